"""Exact search over the keys of one layer.

    logit = q . k + logsigmoid(score) * admit + rate * (clock - now)

`logits` is the definition: its sums are taken in float64, in an order that depends on D alone, so that a token has the
same logit, bit for bit, whatever else is in the store. Faster, rounded products find candidates for the top k; these are
scored again by the definition, and more candidates are taken until none that is left out can be among the top k.

Shapes: N queries, G key/value heads, D their width, M tokens, c candidates of each query and head.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..schema import LayerSchema, StoredTokens, entry_of, log_admission

CHUNK = 1 << 10  # tokens scored at a time: their keys as float32 fit the cache
GROUP = 64
SCORED = 1 << 24  # logits kept at a time
Allocate = Callable[..., Tensor]


@dataclass(frozen=True)
class Keys:
    """What search needs of tokens. token_id: (M,) int64. key: (M, G, D). score, clock: (M,)."""

    token_id: Tensor
    key: Tensor
    score: Tensor
    clock: Tensor

    @classmethod
    def of(cls, document: int, tokens: StoredTokens) -> "Keys":
        return cls((document << 32) | tokens.position, tokens.key, tokens.score, tokens.clock)


@dataclass(frozen=True)
class Candidates:
    """The tokens with the largest rounded logits, of each query and head: c of them, in no order.

    token_id: (N, G, c) int64, -1 for none. key: (N, G, c, D) float32. admission, clock: (N, G, c) float32; the clock is
    the document's own. bound: (N, G) float32: no other token has a larger rounded logit; -inf where there is no other
    token. error: how far a rounded logit can be from the definition.
    """

    token_id: Tensor
    key: Tensor
    admission: Tensor
    clock: Tensor
    bound: Tensor
    error: float


class Scope(NamedTuple):
    """What a search goes by besides the queries."""

    rate: float  # lost of a logit for each unit of the store's clock
    clock_starts: dict[int, float]  # with a rate, the store's clock less `now` where each document begins
    only: set[int] | None  # the documents that are searched; None: all


class ExactIndex:
    """Keys of one layer in memory, added in any order and removed by document or by entry."""

    extra = 8
    """Candidates besides k that are scored by the definition."""

    def __init__(self, schema: LayerSchema, dtype: torch.dtype, allocate: Allocate = torch.empty):
        self.schema, self.dtype = schema, dtype
        self.size = 0
        self._allocate = allocate
        self.norm = 0.0  # of the longest key
        self.key = allocate((schema.heads, 0, schema.dim), dtype=dtype)
        self.token_id = torch.empty(0, dtype=torch.int64)
        self.admission = torch.empty(0)
        self.clock = torch.empty(0)
        self._chunk = torch.empty(schema.heads, CHUNK, schema.dim)

    def add(self, keys: Keys) -> None:
        begin, end = self.size, self.size + len(keys.token_id)
        if end > len(self.token_id):
            self.reserve(max(end, 2 * self.size, 1024))
        self.key[:, begin:end] = keys.key.transpose(0, 1)
        self.token_id[begin:end] = keys.token_id
        self.admission[begin:end] = log_admission(keys.score)
        self.clock[begin:end] = keys.clock
        self.norm = max(self.norm, float(torch.linalg.vector_norm(keys.key.float(), dim=-1).max()))
        self.size = end

    def reserve(self, capacity: int, kept: Tensor | None = None) -> None:
        """Room for `capacity` tokens. Of those that are there, only the rows `kept` stay; None: all of them."""
        kept = torch.arange(self.size) if kept is None else kept
        for name in ("token_id", "admission", "clock"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old[kept], old.new_zeros(capacity - len(kept))]))
        key = self._allocate((self.schema.heads, capacity, self.schema.dim), dtype=self.dtype)
        for head in range(self.schema.heads):
            for begin in range(0, len(kept), CHUNK):
                key[head, begin : min(begin + CHUNK, len(kept))] = self.key[head, kept[begin : begin + CHUNK]]
        self.key, self.size = key, len(kept)

    def remove(self, documents: Collection[int] = (), entries: Collection[int] = ()) -> None:
        token_id = self.token_id[: self.size]
        gone = torch.isin(token_id >> 32, torch.tensor(sorted(documents), dtype=torch.int64))
        gone |= torch.isin(entry_of(token_id, self.schema.block), torch.tensor(sorted(entries), dtype=torch.int64))
        if gone.any():
            kept = (~gone).nonzero()[:, 0]
            self.reserve(len(kept), kept)

    def search(
        self, query: Tensor, k: int, scope: Scope, ranks: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """token_id and logit (N, G, k) of the tokens with the largest logits; -1 and -inf for none. As `candidates`.

        ranks: ids of documents, rising, and their ranks, by which equal logits are ordered; None: by id.
        """
        count, certain = k + self.extra, False
        while not certain:
            candidates = self.candidates(query, count, scope)
            clock = candidates.clock.double()
            if scope.rate:
                clock = store_clock(candidates.token_id, candidates.clock, scope.clock_starts)
            logit = logits(
                query[:, :, None], candidates.key, candidates.admission, clock, self.schema.admit, scope.rate
            )
            token_id, top_logit, certain = top_k(candidates, logit, k, ranks)
            count *= 2
        return token_id, top_logit

    def candidates(self, query: Tensor, count: int, scope: Scope) -> Candidates:
        """query: (N, G, D) float32."""
        rate, clock_starts, only = scope
        n, g, d = query.shape
        size = self.size
        padded = -(-size // GROUP) * GROUP
        bias = torch.full((padded,), -torch.inf)
        bias[:size] = self.admission[:size] if self.schema.admit else 0.0
        if rate:
            bias[:size] = (
                bias[:size].double() + rate * store_clock(self.token_id[:size], self.clock[:size], clock_starts)
            ).float()
        if only is not None:
            outside = ~torch.isin(self.token_id[:size] >> 32, torch.tensor(sorted(only), dtype=torch.int64))
            bias[:size].masked_fill_(outside, -torch.inf)
        count = min(count, size)
        q = query.transpose(0, 1).contiguous()  # (G, N, D)
        step = max(1, SCORED // max(1, g * padded))
        rows, rounded = torch.zeros(g, n, count, dtype=torch.int64), torch.zeros(g, n, count)
        for begin in range(0, n, step):
            part = slice(begin, begin + step)
            rows[:, part], rounded[:, part] = self._largest(q[:, part], bias, count)
        key = self.key[torch.arange(g)[:, None, None], rows].float()
        largest = bias[bias > -torch.inf].abs().max().item() if (bias > -torch.inf).any() else 0.0
        scale = query.norm(dim=-1).max().item() * self.norm + largest if n else 0.0
        return Candidates(
            torch.where(rounded == -torch.inf, -1, self.token_id[rows]).transpose(0, 1),
            key.transpose(0, 1),
            self.admission[rows].transpose(0, 1),
            self.clock[rows].transpose(0, 1),
            bound=rounded[..., -1].T if count < size else torch.full((n, g), -torch.inf),
            error=(d + 4) * 2**-22 * scale,
        )

    def _largest(self, q: Tensor, bias: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Rows and rounded logits (G, N, count) of the tokens with the largest, falling. q: (G, N, D)."""
        logit = torch.empty(*q.shape[:2], len(bias))
        for begin in range(0, self.size, CHUNK):
            end = min(begin + CHUNK, self.size)
            key = self._chunk[:, : end - begin].copy_(self.key[:, begin:end])
            logit[..., begin:end] = torch.bmm(q, key.transpose(1, 2))
        logit[..., self.size :] = 0
        groups = logit.add_(bias).unflatten(-1, (-1, GROUP))
        most = groups.amax(-1)
        most = most.topk(min(count, most.shape[-1]), dim=-1).indices  # no other group has one of the best `count`
        top, at = groups.gather(2, most[..., None].expand(-1, -1, -1, GROUP)).flatten(2).topk(count, dim=-1)
        return (most.gather(-1, at // GROUP) * GROUP + at % GROUP).clamp_max(max(self.size - 1, 0)), top


def store_clock(token_id: Tensor, clock: Tensor, clock_starts: dict[int, float]) -> Tensor:
    """Documents' own clocks to the store's, float64; clock_starts: the store's clock where each document begins."""
    known = torch.tensor(sorted(clock_starts), dtype=torch.int64)
    start = torch.tensor([clock_starts[document] for document in sorted(clock_starts)], dtype=torch.float64)
    if not len(known):
        return clock.double()
    at = torch.searchsorted(known, (token_id >> 32).clamp_min(0).contiguous()).clamp_max(len(known) - 1)
    return start[at] + clock.double()


def logits(query: Tensor, key: Tensor, admission: Tensor, clock: Tensor, admit: bool, rate: float) -> Tensor:
    """The definition, float32 (...). query, key: (..., D); admission: (...); clock: (...) float64, the store's less `now`."""
    x = query.double() * key.double()
    while (d := x.shape[-1]) > 1:  # a sum whose order depends on D alone
        half = (d + 1) // 2
        paired = x[..., : d - half] + x[..., half:]
        x = torch.cat([paired, x[..., d - half : half]], -1) if d % 2 else paired
    total = x[..., 0]
    if admit:
        total = total + admission.double()
    if rate:
        total = total + rate * clock
    return total.float()


def merged(a: Candidates, b: Candidates) -> Candidates:
    """The candidates of two searches; a token that is in both counts once."""
    duplicate = (b.token_id[..., :, None] == a.token_id[..., None, :]).any(-1)
    return Candidates(
        torch.cat([a.token_id, b.token_id.masked_fill(duplicate, -1)], -1),
        torch.cat([a.key, b.key], -2),
        torch.cat([a.admission, b.admission], -1),
        torch.cat([a.clock, b.clock], -1),
        torch.maximum(a.bound, b.bound),
        max(a.error, b.error),
    )


def top_k(
    candidates: Candidates, logit: Tensor, k: int, ranks: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, bool]:
    """token_id and logit (N, G, k) of the k largest, and whether they are certain.

    Equal logits are ordered by the rank of their document, then by position. They are certain when every token that is
    no candidate must have a logit below the last of them.
    """
    logit = logit.masked_fill(candidates.token_id < 0, -torch.inf)
    order_key = candidates.token_id
    if ranks is not None:
        known, rank = ranks
        at = torch.searchsorted(known, (order_key >> 32).clamp_min(0).contiguous()).clamp_max(len(known) - 1)
        order_key = rank[at] << 32 | order_key & 0xFFFFFFFF
    order = order_key.masked_fill(candidates.token_id < 0, torch.iinfo(torch.int64).max).argsort(dim=-1, stable=True)
    order = order.gather(-1, logit.gather(-1, order).argsort(dim=-1, descending=True, stable=True))[..., :k]
    token_id, top = candidates.token_id.gather(-1, order), logit.gather(-1, order)
    if missing := k - token_id.shape[-1]:
        token_id = torch.nn.functional.pad(token_id, (0, missing), value=-1)
        top = torch.nn.functional.pad(top, (0, missing), value=-torch.inf)
    bound, error = candidates.bound, candidates.error
    certain = (bound + error < top[..., -1] - error) | (bound == -torch.inf)
    return token_id, top, bool(certain.all())
