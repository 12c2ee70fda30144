"""Exact search over the keys of one layer.

    logit = q . k + logsigmoid(score) * admit + rate * (clock - now)

`logits` is the definition: its sums are taken in float64, in an order that depends on nothing but D, so that a token
has the same logit, bit for bit, whatever else is in the store. Finding the best among many is the work of faster,
rounded products: what they find is scored again by the definition, and they are asked for more until it cannot change
the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..schema import LayerLayout, Tokens, admission

CHUNK = 1 << 10  # tokens scored at a time: their keys as float32 fit the cache
GROUP = 64
SCORED = 1 << 24  # logits kept at a time
Allocate = Callable[..., Tensor]


@dataclass(frozen=True)
class Keys:
    """What search needs of tokens. age: (M,) int64, document << 32 | position. key: (M, G, D). score, clock: (M,)."""

    age: Tensor
    key: Tensor
    score: Tensor
    clock: Tensor

    @classmethod
    def of(cls, document: int, tokens: Tokens) -> "Keys":
        return cls((document << 32) | tokens.position, tokens.key, tokens.score, tokens.clock)


@dataclass(frozen=True)
class Candidates:
    """The best tokens by rounded products, of each query and head: c of them, in no order.

    age: (N, G, c) int64, document << 32 | position, -1 for none. key: (N, G, c, D) float32.
    admission, clock: (N, G, c) float32; the clock is the document's own. bound: (N, G) float32, no token besides these
    has a larger rounded logit; -inf where there are none. error: how far a rounded one can be from the definition.
    """

    age: Tensor
    key: Tensor
    admission: Tensor
    clock: Tensor
    bound: Tensor
    error: float


class ExactIndex:
    """Keys of one layer in memory. Tokens in any order; removed by document or by entry."""

    more = 8
    """Tokens that are scored by the definition besides those that are asked for."""

    def __init__(self, layout: LayerLayout, dtype: torch.dtype, allocate: Allocate = torch.empty):
        self.layout, self.dtype = layout, dtype
        self.size = 0
        self._allocate = allocate
        self.norm = 0.0  # of the longest key
        self.key = allocate((layout.heads, 0, layout.dim), dtype=dtype)
        self.age = torch.empty(0, dtype=torch.int64)
        self.admission = torch.empty(0)
        self.clock = torch.empty(0)
        self._chunk = torch.empty(layout.heads, CHUNK, layout.dim)

    def add(self, keys: Keys) -> None:
        begin, end = self.size, self.size + len(keys.age)
        if end > len(self.age):
            self.reserve(max(end, 2 * self.size, 1024))
        self.key[:, begin:end] = keys.key.transpose(0, 1)
        self.age[begin:end] = keys.age
        self.admission[begin:end] = admission(keys.score)
        self.clock[begin:end] = keys.clock
        self.norm = max(self.norm, float(torch.linalg.vector_norm(keys.key.float(), dim=-1).max()))
        self.size = end

    def reserve(self, capacity: int, kept: Tensor | None = None) -> None:
        """Room for `capacity` tokens, and of those that are there, only the rows `kept`."""
        kept = torch.arange(self.size) if kept is None else kept
        for name in ("age", "admission", "clock"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old[kept], old.new_zeros(capacity - len(kept))]))
        key = self._allocate((self.layout.heads, capacity, self.layout.dim), dtype=self.dtype)
        for head in range(self.layout.heads):
            for begin in range(0, len(kept), CHUNK):
                key[head, begin : min(begin + CHUNK, len(kept))] = self.key[head, kept[begin : begin + CHUNK]]
        self.key, self.size = key, len(kept)

    def remove(self, documents: set[int] = frozenset(), entries: set[int] = frozenset()) -> None:
        age = self.age[: self.size]
        gone = torch.isin(age >> 32, torch.tensor(sorted(documents), dtype=torch.int64))
        gone |= torch.isin(entry_of(age, self.layout.block), torch.tensor(sorted(entries), dtype=torch.int64))
        if gone.any():
            kept = (~gone).nonzero()[:, 0]
            self.reserve(len(kept), kept)

    def search(
        self,
        query: Tensor,
        k: int,
        rate: float,
        began: dict[int, float],
        only: set[int] | None,
        ranked: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """age and logit (N, G, k) of the tokens with the largest logits; -1 and -inf for none. As `candidates`.

        ranked: ids of documents, rising, and their places in the order in which equal ones are taken; None: by id.
        """
        count, sure = k + self.more, False
        while not sure:
            found = self.candidates(query, count, rate, began, only)
            clock = absolute(found.age, found.clock, began) if rate else found.clock.double()
            logit = logits(query[:, :, None], found.key, found.admission, clock, self.layout.admit, rate)
            age, top, sure = best(found, logit, k, ranked)
            count *= 2
        return age, top

    def candidates(
        self, query: Tensor, count: int, rate: float, began: dict[int, float], only: set[int] | None
    ) -> Candidates:
        """query: (N, G, D) float32. began: the store's clock less `now` where each document begins, if it is to fade."""
        n, g, d = query.shape
        size = self.size
        padded = -(-size // GROUP) * GROUP
        bias = torch.full((padded,), -torch.inf)
        bias[:size] = self.admission[:size] if self.layout.admit else 0.0
        if rate:
            bias[:size] = (bias[:size].double() + rate * absolute(self.age[:size], self.clock[:size], began)).float()
        if only is not None:
            outside = ~torch.isin(self.age[:size] >> 32, torch.tensor(sorted(only), dtype=torch.int64))
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
            torch.where(rounded == -torch.inf, -1, self.age[rows]).transpose(0, 1),
            key.transpose(0, 1),
            self.admission[rows].transpose(0, 1),
            self.clock[rows].transpose(0, 1),
            bound=rounded[..., -1].T if count < size else torch.full((n, g), -torch.inf),
            error=(d + 4) * 2**-22 * scale,
        )

    def _largest(self, q: Tensor, bias: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Rows and rounded logits (G, N, count) of the largest, falling. q: (G, N, D)."""
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


def entry_of(age: Tensor, block: int) -> Tensor:
    """The entries that tokens are of; -1 stays."""
    document, position = age >> 32, age & 0xFFFFFFFF
    return torch.where(age < 0, -1, (document << 32) | position.div(block, rounding_mode="floor"))


def absolute(age: Tensor, clock: Tensor, began: dict[int, float]) -> Tensor:
    """Documents' own clocks to the store's, float64; began: where each document begins."""
    known = torch.tensor(sorted(began), dtype=torch.int64)
    start = torch.tensor([began[document] for document in sorted(began)], dtype=torch.float64)
    if not len(known):
        return clock.double()
    at = torch.searchsorted(known, (age >> 32).clamp_min(0).contiguous()).clamp_max(len(known) - 1)
    return start[at] + clock.double()


def logits(query: Tensor, key: Tensor, admission: Tensor, clock: Tensor, admit: bool, rate: float) -> Tensor:
    """The definition, float32. query, key: (..., D); admission: (...); clock: (...) float64, the store's less `now`."""
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


def both(a: Candidates, b: Candidates) -> Candidates:
    """Of two places; a token that is in both counts once."""
    twice = (b.age[..., :, None] == a.age[..., None, :]).any(-1)
    return Candidates(
        torch.cat([a.age, b.age.masked_fill(twice, -1)], -1),
        torch.cat([a.key, b.key], -2),
        torch.cat([a.admission, b.admission], -1),
        torch.cat([a.clock, b.clock], -1),
        torch.maximum(a.bound, b.bound),
        max(a.error, b.error),
    )


def best(
    found: Candidates, logit: Tensor, k: int, ranked: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, bool]:
    """The k with the largest logits, of equal ones the first of the `ranked`, then the older: age, logit (N, G, k).

    And whether they are sure.

    They are, when whatever was not found must be below the last of them.
    """
    logit = logit.masked_fill(found.age < 0, -torch.inf)
    place = found.age
    if ranked is not None:
        known, rank = ranked
        at = torch.searchsorted(known, (place >> 32).clamp_min(0).contiguous()).clamp_max(len(known) - 1)
        place = rank[at] << 32 | place & 0xFFFFFFFF
    order = place.masked_fill(found.age < 0, torch.iinfo(torch.int64).max).argsort(dim=-1, stable=True)
    order = order.gather(-1, logit.gather(-1, order).argsort(dim=-1, descending=True, stable=True))[..., :k]
    age, top = found.age.gather(-1, order), logit.gather(-1, order)
    if missing := k - age.shape[-1]:
        age = torch.nn.functional.pad(age, (0, missing), value=-1)
        top = torch.nn.functional.pad(top, (0, missing), value=-torch.inf)
    sure = (found.bound + found.error < top[..., -1] - found.error) | (found.bound == -torch.inf)
    return age, top, bool(sure.all())
