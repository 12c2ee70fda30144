"""The store as one layer of an attached model sees it: the layer writes to it what leaves its window, and searches it.

Shapes: B rows, T tokens of a call, H query heads and G key/value heads of dim D, E = H k tokens found for a query.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..memory import Entries, LayerSchema, StoredTokens
from ..memory.schema import entry_of
from ..mixers import State
from ..mixers.bmojo import BMojoConfig
from ..ops.innovation import rank
from ..ops.memory_attention.call import Stored
from ..ops.memory_attention.state import memory_positions, ring
from ..ops.sequence import Sequences

if TYPE_CHECKING:
    from .attach import Attached

LONGEST, MOST = 64, 1 << 16
"""Tokens of one call, and of what they find in a head, at most: room is taken for each of them."""


@dataclass(frozen=True)
class Passage:
    """The attention that the queries of a layer gave to a stored block in one call.

    span: bytes [start, end) of the document's text. weight: the mean over heads and queries.
    """

    layer: int
    document: int
    span: tuple[int, int]
    weight: float


class LayerStore:
    """`Sequences.store` of one layer, with the interface `ops.sequence.Store`."""

    def __init__(self, attached: "Attached", schema: LayerSchema, config: BMojoConfig):
        self.attached, self.schema, self.config = attached, schema, config

    def begin(self, state: State | None) -> None:
        """Before a call that goes on from `state`."""
        self.before = 0  # tokens of the document that have been read
        self.attention: State | None = None
        self.held: Tensor | None = None  # positions (B, capacity) in the eidetic memory
        if state is not None and self.attached.own is not None:
            attention = state["layers"][self.schema.layer]["attention"]
            self.before, self.attention = int(state["position"][0]), attention
            self.held = memory_positions(attention, state["position"], self.config.block_size, self.config.exact)

    def keep(self, k: Tensor, v: Tensor, score: Tensor) -> None:
        """As `ops.sequence.Store.keep`: write what leaves the window before the next block."""
        if self.attached.writing is None:
            return
        now = self.before + k.shape[1]
        if self.attention is not None:
            k, v, score = (
                torch.cat([self.attention[name], x], 1) for name, x in (("k", k), ("v", v), ("score", score))
            )
        first, last = self._written(self.before), self._written(now)
        if last <= self.before:
            self._write(self.before, now, first, last, k, v, score)
        else:
            self.attached.after_tick(lambda: self._write(now, now, first, last, k, v, score))

    def finish(self, state: State) -> None:
        """Write what is still in the window where the document ends."""
        end, attention = int(state["position"][0]), state["layers"][self.schema.layer]["attention"]
        self._write(end, end, self._written(end), end, *ring(attention))

    def _written(self, read: int) -> int:
        """Tokens that have been written when `read` tokens of the document are read."""
        boundary = (read - 1) // self.config.block_size * self.config.block_size
        return max(0, boundary + self.config.block_size - self.config.window) if boundary > 0 else 0

    def _write(self, timed: int, now: int, first: int, last: int, k: Tensor, v: Tensor, score: Tensor) -> None:
        """The tokens at positions [first, last) whose score passes the admission threshold.

        The clock has run over the tokens before `timed`; k, v (1, rows, G, D) and score (1, rows) end before `now`.
        """
        attached = self.attached
        if last <= first or attached.writing is None:
            return
        rows = slice(k.shape[1] - now + first, k.shape[1] - now + last)
        k, v, score = k[0, rows], v[0, rows], score[0, rows].detach().float()
        passed = slice(None) if self.schema.least is None else rank(score) >= self.schema.least
        position = torch.arange(first, last, device=score.device)[passed].cpu()
        if not len(position):
            return
        span = torch.stack([position, position + 1], 1) if attached.spans is None else attached.spans(position)
        clock = attached.clock.at(position, timed)
        attached.writing.write(
            self.schema.layer, StoredTokens(position, k[passed], v[passed], score[passed], clock, span)
        )

    def recall(self, q: Tensor, sequences: Sequences) -> Stored | None:
        """As `ops.sequence.Store.recall`."""
        attached, (B, T, _, D) = self.attached, q.shape
        if not attached.k:
            return None
        layer, store = self.schema.layer, attached.store
        query = (q.detach().float() * D**-0.5).view(B * T, self.schema.heads, -1, D).transpose(1, 2).flatten(0, 1)
        now = store.clock(layer) if attached.rate else 0.0
        if attached.newest is None:
            token_id = store.search(layer, query, attached.k, attached.rate, attached.only, now).token_id
        else:
            token_id = self._newest(query, now, attached.newest)
        if attached.k > LONGEST:  # no room for what is not there
            token_id = token_id[..., : max(1, int((token_id >= 0).sum(-1).max()))]
        # what several heads find is attended to once
        token_ids = _distinct(token_id.reshape(B * T, -1).tolist(), store.in_order)
        if max(token_ids) < 0:
            return None
        tokens = store.read(layer, token_ids).view(B, T, -1)
        attached.used.update(token_id >> 32 for token_id in {*token_ids} - {-1})
        visible = tokens.real.to(q.device)
        if attached.own is not None:
            seen = self._in_sight(torch.tensor(token_ids, device=q.device).view(B, T, -1), sequences)
            visible = visible & ~seen
        bias = logsigmoid(tokens.score) if self.schema.admit else torch.zeros_like(tokens.score)
        if attached.rate:
            bias = bias + attached.rate * (tokens.clock - now)
        if attached.offset:
            bias = bias + attached.offset
        watch = None if attached.watch is None else self._watcher(attached.watch, token_ids, T)
        return Stored(q, tokens.key.to(q), tokens.value.to(q), bias.to(q.device), visible, watch, attached.sharpness)

    def _watcher(
        self, watch: Callable[[list[Passage]], None], token_ids: list[int], length: int
    ) -> Callable[[Tensor], None]:
        """Calls `watch` with the passages that `token_ids` are of, by the weights (B, T, H, E) of the first row."""

        def report(weights: Tensor) -> None:
            weight = weights[0].float().mean(1).flatten().cpu() / length  # (T E,)
            entries, of = entry_of(torch.tensor(token_ids), self.schema.block).unique(return_inverse=True)
            total = weight.new_zeros(len(entries)).index_add(0, of[: len(weight)], weight)
            blocks = self.attached.store.fetch(self.schema.layer, entries)
            watch([_passage(self.schema.layer, blocks, n, total[n]) for n in total.nonzero()[:, 0].tolist()])

        return report

    def _in_sight(self, token_id: Tensor, sequences: Sequences) -> Tensor:
        """Of token ids (B, T, E): whether the query sees the token in its window or in the eidetic memory already."""
        position = token_id & 0xFFFFFFFF
        seen = sequences.position[..., None] - position < self.config.window
        if self.held is not None:
            seen = seen | (position[..., None] == self.held[:, None, None]).any(-1)
        return (token_id >> 32 == self.attached.own) & seen

    def _newest(self, query: Tensor, now: float, newest: int) -> Tensor:
        """As a search among the `newest` tokens before the block: (N, G, D) -> token ids (N, G, k), -1 for none."""
        attached, own, block = self.attached, self.attached.own, self.config.block_size
        assert own is not None
        end = self.before // block * block
        first = max(0, end - newest)
        ids = own << 32 | torch.arange(first // block, end // block + 1)
        entries = attached.store.fetch(self.schema.layer, ids)
        real = entries.real & (entries.position >= first) & (entries.position < end)
        logit = torch.einsum("ngd,mgd->ngm", query, entries.key[real].to(query.device))
        if self.schema.admit:
            logit = logit + logsigmoid(entries.score[real]).to(query.device)
        if attached.rate:
            logit = logit + attached.rate * (entries.clock[real].to(query.device) - now)
        order = logit.argsort(dim=-1, descending=True, stable=True)[..., : attached.k]
        token_id = (own << 32 | entries.position[real]).to(query.device)[order]
        return torch.nn.functional.pad(token_id, (0, attached.k - token_id.shape[-1]), value=-1)


def _distinct(token_ids: list[list[int]], in_order: Callable[[Collection[int]], list[int]]) -> list[int]:
    """The rows one after the other, each id of a row once, in order, and -1 in place of the repeated ones."""
    distinct = []
    for row in token_ids:
        once = in_order({*row} - {-1})
        distinct += once + [-1] * (len(row) - len(once))
    return distinct


def _passage(layer: int, entries: Entries, n: int, weight: Tensor) -> Passage:
    span = entries.span[n][entries.real[n]]
    return Passage(layer, int(entries.document[n]), (int(span[:, 0].min()), int(span[:, 1].max())), float(weight))


__all__ = ["LONGEST", "MOST", "LayerStore", "Passage"]
