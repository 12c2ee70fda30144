"""Approximate search over the keys of one layer: an inverted file (Sivic and Zisserman, 2003) of rounded keys.

Each head's keys are assigned to the nearest of about 2 sqrt(n) centroids, and a query looks at the keys of those
that it agrees with most: about `LOOKED` keys, of at least `PROBES` centroids. It does so in whole numbers: keys and query are rounded to eight bits, whose products
take a fifth of the time and half of the room. The best of these are then scored by the definition, as in exact search;
what is missed is the approximation.

Centroids, assignments and rounded keys are a function of what is stored, in the order of its age, and of nothing else: not
of the order in which it was written, nor of what was forgotten. So are the answers, but for which of many equal rounded
products are scored at all.

Letters: G heads, n tokens, N queries a head, D dims, C centroids; a piece is `PIECE` rows of one list, the last one padded.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .exact import Candidates, ExactIndex
from .kmeans import Means

LEAST = 1 << 12  # tokens, below which search is exact
PROBES, LOOKED = 16, 1 << 13  # lists and tokens that a query looks at
PIECE = 32
TOGETHER = 8  # queries that are looked up at a time
SAMPLE = 1 << 18  # keys that centroids are the means of
BATCH = 1 << 9  # keys that are rounded at a time
TAIL = 1 << 12  # tokens looked through one by one, before the lists are laid out anew


def float_product(a: Tensor, b: Tensor) -> Tensor:
    """The same in float32: exact up to 1,000 dims."""
    return a.float() @ b.float()


whole_product = getattr(torch, "_int_mm", float_product)
"""(M, D) @ (D, K) of int8, summed in int32. Not a public name of torch, hence the other."""


@cache
def compiled() -> ModuleType | None:
    """The search of one query without torch's operations, where there is a numba to compile it."""
    try:
        return import_module(".compiled", __package__)
    except ImportError:
        return None


@cache
def halves(dtype: torch.dtype) -> np.ndarray:
    """What each sixteen bits mean, float32; nothing for a type of 32."""
    if dtype.itemsize != 2:
        return np.empty(0, dtype=np.float32)
    return torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16)).view(dtype).float().numpy()


def rounded(key: Tensor, scale: Tensor) -> Tensor:
    """Keys to int8, in units of `scale`."""
    return (key.float() / scale).round().clamp(-127, 127).to(torch.int8)


@dataclass(frozen=True)
class Fading:
    """What a call adds to logits, besides `rate` times the document's own clock: to those of `known` documents, `added`."""

    rate: float
    known: Tensor  # (M,) int64, rising
    added: Tensor  # (M,) float32, -inf for a document that is not wanted
    began: Tensor  # (M,) float64, the clock less `now` where it begins

    @classmethod
    def of(cls, rate: float, began: dict[int, float], only: set[int] | None) -> "Fading":
        known = sorted(began)
        start = torch.tensor([began[one] for one in known], dtype=torch.float64)
        added = [rate * began[one] if only is None or one in only else -torch.inf for one in known]
        return cls(rate, torch.tensor(known, dtype=torch.int64), torch.tensor(added, dtype=torch.float32), start)

    def shift(self, document: Tensor) -> Tensor:
        return self.added[torch.searchsorted(self.known, document).clamp_max(len(self.known) - 1)]

    def arrays(self, documents: Tensor) -> tuple[np.ndarray, ...]:
        """Of all `documents` what is added; and of the known ones, their ids, what is added, and where they begin."""
        return tuple(x.numpy() for x in (self.shift(documents), self.known, self.added, self.began))


NONE = tuple(np.empty(0, dtype) for dtype in (np.float32, np.int64, np.float32, np.float64))


class ApproximateIndex(ExactIndex):
    more = 4
    _middle: Tensor | None = None  # codes of the lists' centroids, (G, C, D) int8

    def remove(self, documents: set[int] = frozenset(), entries: set[int] = frozenset()) -> None:
        super().remove(documents, entries)
        self._middle = None

    def search(
        self,
        query: Tensor,
        k: int,
        rate: float,
        began: dict[int, float],
        only: set[int] | None,
        ranked: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As of an exact one; but of equal ones the older is taken, where it approximates."""
        if self.size < LEAST or compiled() is None:
            return super().search(query, k, rate, began, only, ranked if self.size < LEAST else None)
        self._lay_out()
        fades = None if only is None and not rate else Fading.of(rate, began, only)
        age, logit = compiled().nearest(
            query.flatten(0, 1).numpy(),
            *self._arrays,
            NONE if fades is None else fades.arrays(self._documents),
            float(rate),
            self.layout.admit,
            k,
            k + self.more,
            self._probes,
        )
        return tuple(torch.from_numpy(x.reshape(*query.shape[:2], k)) for x in (age, logit))

    @property
    def _probes(self) -> int:
        """Lists that a query looks at."""
        count = self._middle.shape[1]
        return min(count, max(PROBES, LOOKED * count // self.size))

    def _asked(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of queries (N, G, D): codes (N G, D), what a product of these is worth (N G,), lists to look at (N G, P).

        The lists whose centroids' codes have the largest products with the query's; of equal ones the first.
        """
        n, g, d = query.shape
        scaled = (query * self._scale).flatten(0, 1)
        unit = scaled.abs().amax(1).clamp_min(1e-30) / 127
        code = (scaled / unit[:, None]).round()
        agreement = torch.bmm(code.view(n, g, d).transpose(0, 1), self._middle.float().transpose(1, 2)).long()
        count = self._middle.shape[1]
        order = (agreement * count - torch.arange(count)).topk(self._probes, dim=-1).indices
        return code.to(torch.int8), unit, order.transpose(0, 1).flatten(0, 1)

    def candidates(
        self, query: Tensor, count: int, rate: float, began: dict[int, float], only: set[int] | None
    ) -> Candidates:
        if self.size < LEAST:
            return super().candidates(query, count, rate, began, only)
        self._lay_out()
        n, g, d = query.shape
        code, unit, probed = self._asked(query)
        count = min(count, self.size)
        fades = None if only is None and not rate else Fading.of(rate, began, only)
        found = [
            self._listed(first % g, g, code[at], unit[at], probed[at], count, fades)
            for first in range(0, n * g, TOGETHER)
            for at in [slice(first, first + TOGETHER)]
        ]
        rows, logit = (torch.cat(x).view(n, g, count) for x in zip(*found, strict=True))
        if self.size > self._laid:
            tail, theirs = self._unlisted(code.view(n, g, d), unit.view(n, g, 1), probed.view(n, g, -1), fades)
            logit, best = torch.cat([logit, theirs], -1).topk(count, dim=-1)
            rows = torch.cat([rows, tail], -1).gather(-1, best)
        there = logit > -torch.inf
        return Candidates(
            torch.where(there, self.age[rows], -1),
            self.key[torch.arange(g)[:, None], rows].float(),
            self.admission[rows],
            self.clock[rows],
            bound=torch.full((n, g), -torch.inf),
            error=0.0,
        )

    def _listed(
        self, head: int, heads: int, code: Tensor, unit: Tensor, probed: Tensor, count: int, fades: "Fading | None"
    ) -> tuple[Tensor, Tensor]:
        """Of m queries code (m, D), of heads that follow one another: rows with the largest logits, and these (m, count).

        unit (m,): what a product of codes is worth. probed (m, P).
        """
        m, lists = len(code), (torch.arange(head, head + len(code)) % heads)[:, None] * self._middle.shape[1] + probed
        begin = self._edges[lists]
        number = (self._edges[lists + 1] - begin).flatten()
        each = number.view(m, -1).sum(1)
        first, total = each.cumsum(0) - each, int(each.sum())
        if not total:
            return torch.zeros(m, count, dtype=torch.int64), torch.full((m, count), -torch.inf)
        skipped = begin.flatten() - number.cumsum(0) + number
        piece = skipped.repeat_interleave(number, output_size=total) + torch.arange(total)
        of = torch.arange(m).repeat_interleave(each, output_size=total)

        parts = self._code.index_select(0, piece).view(-1, code.shape[1]).split((each * PIECE).tolist())
        product = torch.cat([whole_product(part, one[:, None]) for part, one in zip(parts, code, strict=True)])
        logit = self._bias.index_select(0, piece).addcmul_(product.view(total, PIECE).float(), unit[of][:, None])
        if fades is not None:
            logit += fades.shift(self._documents)[self._document[piece]]
            logit.add_(self._clock.index_select(0, piece), alpha=fades.rate)

        # the best `count` rows are in the best `count` pieces
        most = torch.full((m, max(count, int(each.max()))), -torch.inf)
        most[of, torch.arange(total) - first[of]] = logit.amax(1)
        most, at = most.topk(count, dim=-1)
        at = (at + first[:, None]).clamp_max(total - 1)
        top, best = logit[at].masked_fill(most[..., None] == -torch.inf, -torch.inf).flatten(1).topk(count, dim=-1)
        return self._row[piece[at]].flatten(1).gather(-1, best).long(), top

    def _unlisted(self, code: Tensor, unit: Tensor, probed: Tensor, fades: "Fading | None") -> tuple[Tensor, Tensor]:
        """All rows of the tail and their logits, as `_listed`: code (N, G, D), unit (N, G, 1), probed (N, G, P)."""
        product = torch.stack([whole_product(c, q) for c, q in zip(self._tail, code.permute(1, 2, 0), strict=True)])
        logit = product.permute(2, 0, 1).float() * unit  # (N, G, tail)
        if self.layout.admit:
            logit = logit + self.admission[self._laid : self.size]
        asked = torch.zeros(*code.shape[:2], self._middle.shape[1], dtype=torch.bool).scatter_(2, probed, True)
        asked = asked.gather(2, self._which[:, self._laid : self.size].expand(len(code), -1, -1))
        rows = torch.arange(self._laid, self.size).expand_as(logit)
        if fades is not None:
            logit = logit + fades.shift(self.age[self._laid : self.size] >> 32)
            logit = logit + fades.rate * self.clock[self._laid : self.size]
        return rows, logit.masked_fill(~asked, -torch.inf)

    def _lay_out(self) -> None:
        """Lists of all rows, but for a tail that is only assigned."""
        of = 1 << (self.size.bit_length() - 1)
        if self._middle is None or of != self._of:
            self._choose(of)
            self._of, self._laid = of, 0
            self._which = torch.zeros(self.layout.heads, 0, dtype=torch.int64)
            self._tail = torch.zeros(self.layout.heads, 0, self.layout.dim, dtype=torch.int8)
        known = self._which.shape[1]
        if known < self.size:
            fresh = self.key[:, known : self.size]
            self._which = torch.cat([self._which, self._means.nearest(fresh)], 1)
            if self._laid and self.size - self._laid <= TAIL:
                self._tail = torch.cat([self._tail, rounded(fresh, self._scale[:, None])], 1)
        if not self._laid or self.size - self._laid > TAIL:
            self._lay()
        if known < self.size:
            self._arrays = self._for_compiled()

    def _for_compiled(self) -> tuple:
        """What `compiled.nearest` reads besides queries."""
        code = self._code.view(-1, self.layout.dim)
        key = self.key if self.dtype.itemsize == 4 else self.key.view(torch.int16)
        places = (x.flatten() for x in (self._row, self._bias, self._document, self._clock))
        lists = tuple(x.numpy() for x in (self._edges * PIECE, code, *places))
        tail = self._laid, self._which.numpy(), self._tail.contiguous().numpy()
        keys = key.numpy(), halves(self.dtype), *(x.numpy() for x in (self.admission, self.age, self.clock))
        return (self._scale.numpy(), self._middle.numpy()), lists, tail, keys

    def _lay(self) -> None:
        """The lists of each head one after the other, each in whole pieces."""
        heads, count = self._middle.shape[:2]
        sizes = torch.stack([which.bincount(minlength=count) for which in self._which])
        self._edges = pad((-(-sizes // PIECE)).flatten().cumsum(0), (1, 0))  # pieces, of all heads
        slots = int(self._edges[-1]) * PIECE
        begin = self._edges[:-1].view(heads, count) * PIECE - (sizes.cumsum(1) - sizes)
        self._row = torch.zeros(slots, dtype=torch.int32)
        self._bias = torch.full((slots,), -torch.inf)  # of a padded one
        self._documents, document = (self.age[: self.size] >> 32).unique(return_inverse=True)
        self._document, self._clock = torch.zeros(slots, dtype=torch.int32), torch.zeros(slots)
        self._code = self._allocate((slots, self.layout.dim), dtype=torch.int8)
        self._code.zero_()
        for head, (which, begun) in enumerate(zip(self._which, begin, strict=True)):
            order = which.argsort(stable=True)
            slot = begun[which[order]] + torch.arange(self.size)
            self._row[slot], self._document[slot] = order.int(), document[order].int()
            self._clock[slot] = self.clock[order]
            self._bias[slot] = self.admission[order] if self.layout.admit else 0.0
            for mine, where in zip(order.split(BATCH), slot.split(BATCH), strict=True):
                self._code[where] = rounded(self.key[head, mine], self._scale[head])
        for name in ("_row", "_bias", "_document", "_clock", "_code"):
            setattr(self, name, getattr(self, name).view(slots // PIECE, -1))
        self._laid, self._tail = self.size, self._tail[:, :0]

    def _choose(self, of: int) -> None:
        """Centroids of the `of` oldest tokens, by Lloyd's iterations from some of them; and the keys' range, by dims."""
        oldest = self.age[: self.size].argsort()[:of]
        sample = self.key[:, oldest[:: max(1, of // SAMPLE)]].float()
        self._scale = sample.abs().amax(1).clamp_min(1e-30) / 127  # (G, D)
        self._means = Means.of(sample, 1 << (of.bit_length() // 2 + 1))
        self._middle = rounded(self._means.mean, self._scale[:, None])


__all__ = ["ApproximateIndex"]
