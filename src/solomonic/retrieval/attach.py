"""A model with a long-term store: what leaves its windows is kept on disk, and comes back when a query matches it.

    S(p)   the tokens j < p + block - window of a document that passed the innovation test: score_j >= least
    R(i)   of each head, the k tokens of the store with the largest logits for query i

At every multiple p of `block` the layer hands over what leaves its window before the next one: S(p) is a function of
the past alone, the same however the input was cut into calls. In one softmax with all else, query i attends to R(i),
but for tokens of its own document that it sees in its window (i - window < j) or in the eidetic memory (j in M(i)).
With every token kept and found, that is B'MOJO with an eidetic memory without bounds; `tests/memory` holds it to that.

A document's clock runs by what its tokens tell: `change`, how far their surprise departs from what was usual, so that it
stands still while the source stays the same (`changes`); `surprise` itself, -ln p of each given those before it, in
nats; or `tokens`, one each (docs/decay.md compares them).

Letters: B rows, T tokens of a call, H query heads and G key/value heads of dim D, E = H k tokens found for a query, S the
most tokens of an entry.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from .._utils.spelling import unknown
from ..checkpoints.folder import fingerprint
from ..memory import DocumentWriter, Entries, LayerSchema, Store, StoredTokens, StoreSchema
from ..memory.schema import entry_of
from ..mixers.bmojo import EXACT, BMojo, BMojoConfig
from ..model import LanguageModel, State
from ..ops.innovation import rank, standing
from ..ops.memory_attention import Stored
from ..ops.sequence import Sequences

CLOCKS = ("change", "surprise", "tokens")

LONGEST, MOST = 64, 1 << 16
"""Tokens of one call, and of what they find in a head, at most: it is laid out for each of them."""

ROWS, LENGTH, BEGUN = 64, 64, 32
"""Texts that the model writes to set the innovation test by, their tokens, and how many of these do not count."""

USUAL, FEWEST = 256, 16
"""Tokens over which the clock `change` takes the mean and deviation of surprise, and without which it stands still."""

OVER, LEAST_VARIANCE = 5.0, 1e-4


@dataclass(frozen=True)
class Passage:
    """Of one call: what the queries of a layer gave to a stored block. weight: the mean over heads and queries."""

    layer: int
    document: int
    span: tuple[int, int]  # bytes of the document's text
    weight: float


def store_schema(
    model: LanguageModel,
    layers: Collection[int] | None = None,
    dtype: str = "float16",
    keep: float = 1.0,
    text: Tensor | None = None,
) -> StoreSchema:
    """What a store of `model` looks like: of all its layers with an eidetic memory, or of `layers`, numbers from 0.

    keep: the share of tokens that pass the innovation test; 1 keeps all. It is the share of the tokens of `text` (T,),
    or, without one, of texts that the model writes itself: then the schema is a function of the model alone.
    ValueError for a model or a layer without an eidetic memory.
    """
    able = [i for i, block in enumerate(model.blocks) if isinstance(block.mixer, BMojo) and block.mixer.config.capacity]
    chosen = able if layers is None else sorted(set(layers))
    if not chosen or not set(chosen) <= set(able):
        has = ", ".join(map(str, able)) or "none"
        raise ValueError(f"expected layers with an eidetic memory to store, got {chosen}; this model's are {has}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a share in (0, 1], got {keep}")
    least = dict.fromkeys(chosen, None)
    if keep < 1:
        if text is not None and len(text) < 2:
            raise ValueError("keep: expected some text to measure scores on, got none")
        scores = _own_scores(model, chosen) if text is None else _scores(model, chosen, text)
        least = {i: float(one.quantile(1 - keep)) for i, one in scores.items()}
    shapes = []
    for i in chosen:
        config = model.blocks[i].mixer.config
        dim = model.blocks[i].mixer.project.dim
        shapes.append(LayerSchema(i, config.kv_heads, dim, config.block_size, config.score == "learned", least[i]))
    return StoreSchema(fingerprint(model), tuple(shapes), dtype)


def _own_scores(model: LanguageModel, layers: Sequence[int]) -> dict[int, Tensor]:
    """The scores, of each layer, of the tokens of texts that the model writes itself, each drawn as it foretells it."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (ROWS, 1), generator=random)
    scores: dict[int, list[Tensor]] = {i: [] for i in layers}
    state = None
    with torch.inference_mode():
        for at in range(LENGTH):
            logits, state = model(tokens.to(model.embedding.weight.device), state)
            chances = logits[:, -1].cpu().double().softmax(-1)
            if not chances.isfinite().all():
                raise ValueError("expected finite logits, got others; the model's weights are damaged")
            tokens = torch.multinomial(chances, 1, generator=random)
            for i in layers if at >= BEGUN else ():
                scores[i].append(rank(state["layers"][i]["attention"]["score"][:, -1].float()).cpu())
    return {i: torch.cat(s) for i, s in scores.items()}


def _scores(model: LanguageModel, layers: Sequence[int], text: Tensor) -> dict[int, Tensor]:
    """The scores, of each layer, of tokens of `text`."""
    scores: dict[int, list[Tensor]] = {i: [] for i in layers}
    state = None
    with torch.inference_mode():
        for part in text[None].split(256, 1):
            _, state = model(part.to(model.embedding.weight.device), state)
            for i in layers:
                ring = rank(state["layers"][i]["attention"]["score"][0].float())
                scores[i].append(ring[-min(part.shape[1], len(ring)) :].cpu())
    return {i: torch.cat(s) for i, s in scores.items()}


class Attached:
    """`model` with `store`: it is called as the model is, and goes wherever a model goes that is not trained.

    k: tokens that each head finds for each query, 0 for a store that is written and never read.
    rate: how much a stored token's logit falls in a unit of the store's clock (`memory.Store`); docs/decay.md measures it.
    offset: added to the logit of everything stored: below 0, a model that sees too much in the store is held back.
    only: ids of documents to find tokens of, None for all.
    own: the document in the store that the state is of, if any: what is in sight is not found again.
    newest: only `own`'s last so many tokens before the block are found, without asking the store's index; None for all.
    writing: the document to write what leaves the windows to; it is `own` then. B is 1 with it.
    spans: the byte spans (M, 2) of the document's tokens at positions (M,), for what is written; None: a byte a token.
    clock: what the clock of the document that is written runs by, one of `CLOCKS`.
    watch: is told the `Passage`s of every layer of every call.
    used: documents that something was found of, so far.
    ValueError for a store of another model.
    """

    def __init__(
        self,
        model: LanguageModel,
        store: Store,
        *,
        k: int = 4,
        rate: float = 0.0,
        offset: float = 0.0,
        only: Collection[int] | None = None,
        own: int | None = None,
        newest: int | None = None,
        writing: DocumentWriter | None = None,
        spans: Callable[[Tensor], Tensor] | None = None,
        clock: str = "change",
        watch: Callable[[list[Passage]], None] | None = None,
    ):
        if type(k) is not int or not 0 <= k <= MOST:
            raise ValueError(f"k: expected a whole number from 0 to {MOST}, got {k!r}")
        if newest is not None and (type(newest) is not int or newest < 1):
            raise ValueError(f"newest: expected a whole number >= 1, or None, got {newest!r}")
        if newest is not None and own is None and writing is None:
            raise ValueError(
                "newest: expected a document of the store's to find the last tokens of; pass own or writing"
            )
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        if store.schema.model != fingerprint(model):
            raise ValueError("store: expected one of this model, got one of another; make one, or use its own model")
        self.model, self.store, self.k, self.rate, self.only = model, store, k, rate, only
        self.offset, self.newest = offset, newest
        self.clock, self.watch = clock, watch
        self._begin(own, writing, spans)

    def write(self, writing: DocumentWriter, spans: Callable[[Tensor], Tensor] | None = None, k: int = 0) -> "Attached":
        """The same model and store, to read the document `writing` into it, from its first token on."""
        other = copy.copy(self)
        other.k = k
        other._begin(None, writing, spans)
        return other

    def _begin(self, own: int | None, writing: DocumentWriter | None, spans: Callable[[Tensor], Tensor] | None) -> None:
        self.own = own if writing is None else writing.id
        self.writing, self.spans = writing, spans
        self.used: set[int] = set()
        self._time = torch.zeros(0, dtype=torch.float64)  # of the document's last tokens
        self._last: Tensor | None = None  # logits (V,) for the next token
        self._usual: Tensor | None = None  # of the surprise so far, what `changes` goes on from
        self._waiting: list[Callable[[], None]] = []  # what is handed over once its clock is known
        blocks = self.model.blocks
        self._layers = [_Layer(self, shape, blocks[shape.layer].mixer.config) for shape in self.store.schema.layers]

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):  # before there is one, while a copy is made
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(
        self, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `LanguageModel.forward`. With `own`, all rows are of that document and have read equally far."""
        if self.own is not None:
            self._check_own(tokens, state, mask, segments)
        logits = []
        for first, last in self._parts(tokens.shape[1], state):
            real, piece = (None if x is None else x[:, first:last] for x in (mask, segments))
            stores: list[_Layer | None] = [None] * len(self.model.blocks)
            for layer in self._layers:
                stores[layer.shape.layer] = layer
                layer.begin(state)
            x = self.model.embed(tokens[:, first:last], real)
            x, state = self.model.hidden(x, state, mask=real, segments=piece, stores=stores)
            logits.append(self.model.head(x))
            if self.writing is not None:
                self._tick(tokens[0, first:last], logits[-1][0].detach())
                for hand_over in self._waiting:
                    hand_over()
                self._waiting.clear()
        return torch.cat(logits, 1) if len(logits) > 1 else logits[0], state

    def _tick(self, tokens: Tensor, logits: Tensor) -> None:
        """The clock of `tokens` (T,), whose logits for what follows are (T, V)."""
        more = torch.ones(len(tokens), dtype=torch.float64)
        if self.clock != "tokens":
            known = logits[:-1] if self._last is None else torch.cat([self._last[None], logits[:-1]])
            first = len(tokens) - len(known)  # 1 where the document begins, whose first token nothing foretells
            more[:first] = 0
            more[first:] = cross_entropy(known.float(), tokens[first:], reduction="none").double().cpu()
            self._last = logits[-1]
        if self.clock == "change":
            more[first:], self._usual = changes(more[first:], self._usual)
        before = self._time[-1] if len(self._time) else 0.0
        kept = max(layer.config.window + layer.config.block_size for layer in self._layers)
        self._time = torch.cat([self._time[-kept:], before + more.cumsum(0)])

    def saved(self) -> dict[str, Tensor]:
        """What `restore` needs, besides the model's state, to go on writing after an interruption."""
        known = {"time": self._time, "last": self._last, "usual": self._usual}
        return {name: tensor for name, tensor in known.items() if tensor is not None}

    def restore(self, saved: dict[str, Tensor]) -> None:
        self._time, self._last, self._usual = saved["time"], saved.get("last"), saved.get("usual")

    def finish(self, state: State) -> None:
        """Hand over what is still in sight where the document ends."""
        for layer in self._layers:
            layer.finish(state)

    def _check_own(self, tokens: Tensor, state: State | None, mask: Tensor | None, segments: Tensor | None) -> None:
        position = torch.zeros(1) if state is None else state["position"]
        if segments is not None or (mask is not None and not mask.all()) or (position != position[0]).any():
            raise ValueError("expected rows of one document that have read equally far, without padding, got others")
        if self.writing is not None and tokens.shape[0] != 1:
            raise ValueError(f"expected one row to write to the store, got {tokens.shape[0]}")

    def _parts(self, length: int, state: State | None) -> Iterator[tuple[int, int]]:
        """Where to cut a call: what changes at a boundary, for a document of the store's own, begins a part."""
        longest = max(1, min(LONGEST, MOST // max(self.k, 1)))
        cuts = set(range(longest, length, longest)) if self.k else set()
        if self.k and self.own is not None:
            at = 0 if state is None else int(state["position"][0])
            for block in {layer.config.block_size for layer in self._layers}:
                cuts |= {cut - at for cut in range(at // block * block + block, at + length, block)}
        ends = sorted(cuts | {length})
        return zip([0, *ends], ends)


class _Layer:
    """The store as one layer sees it (`ops.place.Store`), during one call."""

    def __init__(self, attached: Attached, shape: LayerSchema, config: BMojoConfig):
        self.attached, self.shape, self.config = attached, shape, config

    def begin(self, state: State | None) -> None:
        """Before a call that goes on from `state`."""
        self.before, self.attention, self.held = 0, None, None
        if state is not None and self.attached.own is not None:
            self.before = int(state["position"][0])
            self.attention = state["layers"][self.shape.layer]["attention"]
            self.held = memory_at(self.config, self.attention, state["position"])

    def keep(self, k: Tensor, v: Tensor, score: Tensor) -> None:
        if self.attached.writing is None:
            return
        now = self.before + k.shape[1]
        rows = (k, v, score)
        if self.attention is not None:
            rows = (torch.cat([self.attention[name], x], 1) for name, x in zip(("k", "v", "score"), rows))
        first, last = self._handed(self.before), self._handed(now)
        if last <= self.before:
            self._write(self.before, now, first, last, *rows)
        else:
            self.attached._waiting.append(lambda: self._write(now, now, first, last, *rows))

    def finish(self, state: State) -> None:
        end, attention = int(state["position"][0]), state["layers"][self.shape.layer]["attention"]
        self._write(end, end, self._handed(end), end, *(attention[name] for name in ("k", "v", "score")))

    def _handed(self, read: int) -> int:
        """Tokens that have been handed over when `read` tokens of the document are read."""
        boundary = (read - 1) // self.config.block_size * self.config.block_size
        return max(0, boundary + self.config.block_size - self.config.window) if boundary > 0 else 0

    def _write(self, timed: int, now: int, first: int, last: int, k: Tensor, v: Tensor, score: Tensor) -> None:
        """What passes the test of positions [first, last).

        The clock is known of the tokens before `timed`; k, v (1, rows, G, D) and score (1, rows) end before `now`.
        """
        if last <= first:
            return
        rows = slice(k.shape[1] - now + first, k.shape[1] - now + last)
        k, v, score = k[0, rows], v[0, rows], score[0, rows].detach().float()
        passed = slice(None) if self.shape.least is None else rank(score) >= self.shape.least
        position = torch.arange(first, last, device=score.device)[passed].cpu()
        if not len(position):
            return
        spans = self.attached.spans or (lambda position: torch.stack([position, position + 1], 1))
        time = self.attached._time
        clock = time[len(time) - timed + position].float()
        tokens = StoredTokens(position, k[passed], v[passed], score[passed], clock, spans(position))
        self.attached.writing.write(self.shape.layer, tokens)

    def recall(self, q: Tensor, sequences: Sequences) -> Stored | None:
        attached, (B, T, _, D) = self.attached, q.shape
        if not attached.k:
            return None
        which, store = self.shape.layer, attached.store
        query = (q.detach().float() * D**-0.5).view(B * T, self.shape.heads, -1, D).transpose(1, 2).flatten(0, 1)
        now = store.clock(which) if attached.rate else 0.0
        if attached.newest is None:
            token_id = store.search(which, query, attached.k, attached.rate, attached.only, now).token_id
        else:
            token_id = self._newest(query, now)
        if attached.k > LONGEST:  # no room for what is not there
            token_id = token_id[..., : max(1, int((token_id >= 0).sum(-1).max()))]
        token_ids = _distinct(
            token_id.reshape(B * T, -1).tolist(), store.in_order
        )  # what several heads find is seen once
        if max(token_ids) < 0:
            return None
        found = store.read(which, token_ids).view(B, T, -1)
        attached.used.update(token_id >> 32 for token_id in {*token_ids} - {-1})
        visible = found.real.to(q.device)
        if attached.own is not None:
            visible = visible & ~self._in_sight(torch.tensor(token_ids, device=q.device).view(B, T, -1), sequences)
        bias = logsigmoid(found.score) if self.shape.admit else torch.zeros_like(found.score)
        if attached.rate:
            bias = bias + attached.rate * (found.clock - now)
        if attached.offset:
            bias = bias + attached.offset
        watch = None
        if attached.watch is not None:

            def watch(weight: Tensor) -> None:
                given = weight[0].float().mean(1).flatten().cpu() / T  # (T E,), of the first row
                entries, of = entry_of(torch.tensor(token_ids), self.shape.block).unique(return_inverse=True)
                total = given.new_zeros(len(entries)).index_add(0, of[: len(given)], given)
                blocks = store.fetch(which, entries)
                attached.watch([_passage(which, blocks, n, total[n]) for n in total.nonzero()[:, 0].tolist()])

        return Stored(q, found.key.to(q), found.value.to(q), bias.to(q.device), visible, watch)

    def _in_sight(self, token_id: Tensor, sequences: Sequences) -> Tensor:
        """Of token_ids (B, T, E): whether the query sees the token in its window or in the eidetic memory already."""
        position = token_id & 0xFFFFFFFF
        seen = sequences.position[..., None] - position < self.config.window
        if self.held is not None:
            seen = seen | (position[..., None] == self.held[:, None, None]).any(-1)
        return (token_id >> 32 == self.attached.own) & seen

    def _newest(self, query: Tensor, now: float) -> Tensor:
        """As a search among the last tokens before the block: (N, G, D) -> document << 32 | position (N, G, k), -1 for none."""
        attached, block = self.attached, self.config.block_size
        end = self.before // block * block
        first = max(0, end - attached.newest)
        ids = attached.own << 32 | torch.arange(first // block, end // block + 1)
        entries = attached.store.fetch(self.shape.layer, ids)
        real = entries.real & (entries.position >= first) & (entries.position < end)
        logit = torch.einsum("ngd,mgd->ngm", query, entries.key[real].to(query.device))
        if self.shape.admit:
            logit = logit + logsigmoid(entries.score[real]).to(query.device)
        if attached.rate:
            logit = logit + attached.rate * (entries.clock[real].to(query.device) - now)
        order = logit.argsort(dim=-1, descending=True, stable=True)[..., : attached.k]
        token_id = (attached.own << 32 | entries.position[real]).to(query.device)[order]
        return torch.nn.functional.pad(token_id, (0, attached.k - token_id.shape[-1]), value=-1)


def _distinct(token_ids: list[list[int]], in_order: Callable[[Collection[int]], list[int]]) -> list[int]:
    """Each one of a row once, in order, and -1 in place of the others."""
    distinct = []
    for row in token_ids:
        mine = in_order({*row} - {-1})
        distinct += mine + [-1] * (len(row) - len(mine))
    return distinct


def _passage(layer: int, entries: Entries, n: int, weight: Tensor) -> Passage:
    span = entries.span[n][entries.real[n]]
    return Passage(layer, int(entries.document[n]), (int(span[:, 0].min()), int(span[:, 1].max())), float(weight))


def changes(nats: Tensor, usual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How much time passes at each token of surprise `nats` (T,), in standard deviations of surprise; both float64.

        z = (x - m) / s - 1/2    m, s: mean and deviation of x over the 256 tokens before, or all, at least 16
        c <- max(0, c + z)       a cumulative sum (E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954)
        tick = max(0, c - 5)     c <- min(c, 5): not an alarm at 5 but all that flows over it, so that it is continuous

    usual: (4,) count, m, mean of x squared and c, as the call before returned them; None where the document begins.
    """
    count, mean, square, total = (0.0,) * 4 if usual is None else usual.tolist()
    ticks = []
    for x in nats.tolist():
        tick = 0.0
        if count >= FEWEST:
            spread = max(square - mean * mean, LEAST_VARIANCE) ** 0.5
            total = max(0.0, total + (x - mean) / spread - 0.5)
            tick, total = max(0.0, total - OVER), min(total, OVER)
        count += 1
        share = max(1 / USUAL, 1 / count)
        mean, square = mean + share * (x - mean), square + share * (x * x - square)
        ticks.append(tick)
    return torch.tensor(ticks, dtype=torch.float64), torch.tensor([count, mean, square, total], dtype=torch.float64)


def memory_at(config: BMojoConfig, attention: State, position: Tensor) -> Tensor:
    """Positions (B, capacity) of M(i), -1 = none, for the row i after `position` (B,) tokens, whose state this is."""
    ring = attention["score"].shape[1]
    past = position[:, None] - torch.arange(ring, 0, -1, device=position.device)
    new = past[:, -config.block_size :]
    offered = (new >= 0) & (position % config.block_size == 0)[:, None]
    score = torch.cat([attention["slot_score"], attention["score"][:, -config.block_size :].float()], 1)
    lost = None
    if "lost" in attention:
        lost = torch.cat([attention["slot_lost"], attention["lost"][:, -config.block_size :]], 1)
    score = standing(score, lost, config.score in EXACT)
    empty = torch.cat([attention["slot_score"] == -torch.inf, ~offered], 1)
    best, order = score.masked_fill(empty, -torch.inf).sort(dim=1, descending=True, stable=True)
    where = torch.cat([position[:, None] - attention["slot_age"], new], 1).gather(1, order)
    return where.masked_fill(best == -torch.inf, -1)[:, : config.capacity]


__all__ = ["CLOCKS", "Attached", "Passage", "changes", "memory_at", "store_schema"]
