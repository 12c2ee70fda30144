"""Approximate search over the keys of one layer: an inverted file (Sivic and Zisserman, 2003) of rounded keys.

Each head's keys are assigned to the nearest of about 2 sqrt(n) centroids, a list each, and a query scores the keys of
the lists whose centroids have the largest products with it: about `SCANNED` keys, of at least `PROBES` lists. Keys and
query are rounded to eight bits, whose products take a fifth of the time and half of the room. The candidates with the
largest of them are scored by the definition, as in exact search. The search misses tokens of lists that were not probed.

Centroids, assignments and rounded keys are a function of what is stored, in the order of token ids, and of nothing else:
not of the order in which it was written, nor of what was forgotten. So are the answers, but for which of many equal
rounded products are scored at all.

Shapes: G heads, n tokens, N queries a head, D dims, C centroids, P lists probed. A chunk is `CHUNK` rows of one list, the
last chunk of a list padded.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .exact import Candidates, ExactIndex, Scope
from .kmeans import KMeans

EXACT_BELOW = 1 << 12  # tokens
PROBES, SCANNED = 16, 1 << 13  # lists, and tokens, that a query scores
CHUNK = 32
QUERIES = 8  # scored at a time
SAMPLE = 1 << 18  # keys that centroids are trained on
BATCH = 1 << 9  # keys that are rounded at a time
TAIL = 1 << 12  # tokens that are in no list yet, before the lists are built again
Arrays = tuple[np.ndarray, ...]  # plain tuples: numba looks at their types at every call


def float_product(a: Tensor, b: Tensor) -> Tensor:
    """The product of whole numbers in float32: exact up to 1,000 dims."""
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
    """The value in float32 of each pattern of sixteen bits; empty for a type of 32."""
    if dtype.itemsize != 2:
        return np.empty(0, dtype=np.float32)
    return torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16)).view(dtype).float().numpy()


def rounded(key: Tensor, scale: Tensor) -> Tensor:
    """Keys to int8, in units of `scale`."""
    return (key.float() / scale).round().clamp(-127, 127).to(torch.int8)


@dataclass(frozen=True)
class DocumentBias:
    """What a search adds to the logits of documents, besides `rate` times the document's own clock.

    known: (M,) int64, ids, rising. added: (M,) float32, -inf for a document that is not searched. clock_start: (M,)
    float64, the store's clock less `now` where the document begins.
    """

    rate: float
    known: Tensor
    added: Tensor
    clock_start: Tensor

    @classmethod
    def of(cls, scope: Scope) -> "DocumentBias | None":
        """None where nothing is added."""
        rate, clock_starts, only = scope
        if only is None and not rate:
            return None
        known = sorted(clock_starts)
        starts = [clock_starts[document] for document in known]
        added = [
            rate * start if only is None or document in only else -torch.inf for document, start in zip(known, starts)
        ]
        return cls(
            rate,
            torch.tensor(known, dtype=torch.int64),
            torch.tensor(added, dtype=torch.float32),
            torch.tensor(starts, dtype=torch.float64),
        )

    def of_documents(self, document: Tensor) -> Tensor:
        return self.added[torch.searchsorted(self.known, document).clamp_max(len(self.known) - 1)]

    def arrays(self, listed: Tensor) -> Arrays:
        """As `compiled.nearest` reads it; listed: the documents of the lists."""
        return tuple(x.numpy() for x in (self.of_documents(listed), self.known, self.added, self.clock_start))


NO_BIAS: Arrays = tuple(np.empty(0, dtype) for dtype in (np.float32, np.int64, np.float32, np.float64))


class InvertedListsIndex(ExactIndex):
    extra = 4
    listed = 0
    """Rows that are in the lists; the others, at most `TAIL`, are the tail."""

    _trained_on = 0  # the tokens, a power of two, that the centroids are trained on; 0: there are no lists
    _centroids: KMeans
    _centroid_code: Tensor  # (G, C, D) int8
    _scale: Tensor  # (G, D): the unit of the codes of keys
    _list_of: Tensor  # (G, n) int64: the list of each row
    _tail_code: Tensor  # (G, n - listed, D) int8
    _edges: Tensor  # (G C + 1,): the chunks of each list, from and to, of all heads
    _row: Tensor  # of each place in the lists (chunks, CHUNK), int32: its row
    _bias: Tensor  # and log-sigmoid of its score, -inf for padding
    _document: Tensor  # int32, index into `_documents`
    _clock: Tensor
    _code: Tensor  # (chunks, CHUNK D) int8
    _documents: Tensor  # ids of the documents in the lists
    _compiled_arguments: tuple[tuple[Any, ...], ...]

    def remove(self, documents: Collection[int] = (), entries: Collection[int] = ()) -> None:
        super().remove(documents, entries)
        self._trained_on = 0

    def search(
        self, query: Tensor, k: int, scope: Scope, ranks: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ExactIndex.search`, but where it approximates, equal logits are ordered by token id."""
        kernels = compiled()
        if self.size < EXACT_BELOW or kernels is None:
            return super().search(query, k, scope, ranks if self.size < EXACT_BELOW else None)
        self._update()
        bias = DocumentBias.of(scope)
        token_id, logit = kernels.nearest(
            query.flatten(0, 1).numpy(),
            *self._compiled_arguments,
            NO_BIAS if bias is None else bias.arrays(self._documents),
            float(scope.rate),
            self.schema.admit,
            k,
            k + self.extra,
            self._probes,
        )
        shape = (*query.shape[:2], k)
        return torch.from_numpy(token_id.reshape(shape)), torch.from_numpy(logit.reshape(shape))

    @property
    def _probes(self) -> int:
        """Lists that a query probes."""
        count = self._centroid_code.shape[1]
        return min(count, max(PROBES, SCANNED * count // self.size))

    def _probed(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of queries (N, G, D): their codes (N G, D), the unit of a product of codes (N G,), the lists to probe (N G, P).

        The lists are those whose centroids' codes have the largest products with the query's; of equal ones the first.
        """
        n, g, d = query.shape
        scaled = (query * self._scale).flatten(0, 1)
        unit = scaled.abs().amax(1).clamp_min(1e-30) / 127
        code = (scaled / unit[:, None]).round()
        agreement = torch.bmm(code.view(n, g, d).transpose(0, 1), self._centroid_code.float().transpose(1, 2)).long()
        count = self._centroid_code.shape[1]
        order = (agreement * count - torch.arange(count)).topk(self._probes, dim=-1).indices
        return code.to(torch.int8), unit, order.transpose(0, 1).flatten(0, 1)

    def candidates(self, query: Tensor, count: int, scope: Scope) -> Candidates:
        if self.size < EXACT_BELOW:
            return super().candidates(query, count, scope)
        self._update()
        n, g, d = query.shape
        code, unit, probed = self._probed(query)
        count = min(count, self.size)
        bias = DocumentBias.of(scope)
        parts = [
            self._of_lists(first % g, g, code[at], unit[at], probed[at], count, bias)
            for first in range(0, n * g, QUERIES)
            for at in [slice(first, first + QUERIES)]
        ]
        rows, logit = (torch.cat(x).view(n, g, count) for x in zip(*parts, strict=True))
        if self.size > self.listed:
            tail, tail_logit = self._of_tail(code.view(n, g, d), unit.view(n, g, 1), probed.view(n, g, -1), bias)
            logit, order = torch.cat([logit, tail_logit], -1).topk(count, dim=-1)
            rows = torch.cat([rows, tail], -1).gather(-1, order)
        there = logit > -torch.inf
        return Candidates(
            torch.where(there, self.token_id[rows], -1),
            self.key[torch.arange(g)[:, None], rows].float(),
            self.admission[rows],
            self.clock[rows],
            bound=torch.full((n, g), -torch.inf),
            error=0.0,
        )

    def _of_lists(
        self, head: int, heads: int, code: Tensor, unit: Tensor, probed: Tensor, count: int, bias: DocumentBias | None
    ) -> tuple[Tensor, Tensor]:
        """Rows of the lists and their logits (m, count), the largest, of m queries: code (m, D), unit (m,), probed (m, P).

        The queries are of heads that follow one another, from `head` on.
        """
        m, lists = (
            len(code),
            (torch.arange(head, head + len(code)) % heads)[:, None] * self._centroid_code.shape[1] + probed,
        )
        begin = self._edges[lists]
        number = (self._edges[lists + 1] - begin).flatten()
        each = number.view(m, -1).sum(1)
        first, total = each.cumsum(0) - each, int(each.sum())
        if not total:
            return torch.zeros(m, count, dtype=torch.int64), torch.full((m, count), -torch.inf)
        skipped = begin.flatten() - number.cumsum(0) + number
        chunk = skipped.repeat_interleave(number, output_size=total) + torch.arange(total)
        of = torch.arange(m).repeat_interleave(each, output_size=total)

        parts = self._code.index_select(0, chunk).view(-1, code.shape[1]).split((each * CHUNK).tolist())
        product = torch.cat([whole_product(part, query[:, None]) for part, query in zip(parts, code, strict=True)])
        logit = self._bias.index_select(0, chunk).addcmul_(product.view(total, CHUNK).float(), unit[of][:, None])
        if bias is not None:
            logit += bias.of_documents(self._documents)[self._document[chunk]]
            logit.add_(self._clock.index_select(0, chunk), alpha=bias.rate)

        # the top `count` rows are in the top `count` chunks
        most = torch.full((m, max(count, int(each.max()))), -torch.inf)
        most[of, torch.arange(total) - first[of]] = logit.amax(1)
        most, at = most.topk(count, dim=-1)
        at = (at + first[:, None]).clamp_max(total - 1)
        top, best = logit[at].masked_fill(most[..., None] == -torch.inf, -torch.inf).flatten(1).topk(count, dim=-1)
        return self._row[chunk[at]].flatten(1).gather(-1, best).long(), top

    def _of_tail(self, code: Tensor, unit: Tensor, probed: Tensor, bias: DocumentBias | None) -> tuple[Tensor, Tensor]:
        """The rows of the tail and their logits (N, G, tail): code (N, G, D), unit (N, G, 1), probed (N, G, P)."""
        product = torch.stack(
            [whole_product(c, q) for c, q in zip(self._tail_code, code.permute(1, 2, 0), strict=True)]
        )
        logit = product.permute(2, 0, 1).float() * unit  # (N, G, tail)
        if self.schema.admit:
            logit = logit + self.admission[self.listed : self.size]
        scored = torch.zeros(*code.shape[:2], self._centroid_code.shape[1], dtype=torch.bool).scatter_(2, probed, True)
        scored = scored.gather(2, self._list_of[:, self.listed : self.size].expand(len(code), -1, -1))
        rows = torch.arange(self.listed, self.size).expand_as(logit)
        if bias is not None:
            logit = logit + bias.of_documents(self.token_id[self.listed : self.size] >> 32)
            logit = logit + bias.rate * self.clock[self.listed : self.size]
        return rows, logit.masked_fill(~scored, -torch.inf)

    def _update(self) -> None:
        """Bring the lists up to all rows, but for a tail that is only assigned."""
        count = 1 << (self.size.bit_length() - 1)
        if count != self._trained_on:
            self._train(count)
            self._trained_on, self.listed = count, 0
            self._list_of = torch.zeros(self.schema.heads, 0, dtype=torch.int64)
            self._tail_code = torch.zeros(self.schema.heads, 0, self.schema.dim, dtype=torch.int8)
        known = self._list_of.shape[1]
        if known < self.size:
            fresh = self.key[:, known : self.size]
            self._list_of = torch.cat([self._list_of, self._centroids.nearest(fresh)], 1)
            if self.listed and self.size - self.listed <= TAIL:
                self._tail_code = torch.cat([self._tail_code, rounded(fresh, self._scale[:, None])], 1)
        if not self.listed or self.size - self.listed > TAIL:
            self._build()
        if known < self.size:
            self._compiled_arguments = self._arguments()

    def _arguments(self) -> tuple[tuple[Any, ...], ...]:
        """What `compiled.nearest` reads besides queries: centroids, lists, tail, keys."""
        code = self._code.view(-1, self.schema.dim)
        key = self.key if self.dtype.itemsize == 4 else self.key.view(torch.int16)
        places = (x.flatten() for x in (self._row, self._bias, self._document, self._clock))
        lists = tuple(x.numpy() for x in (self._edges * CHUNK, code, *places))
        tail = self.listed, self._list_of.numpy(), self._tail_code.contiguous().numpy()
        keys = key.numpy(), halves(self.dtype), *(x.numpy() for x in (self.admission, self.token_id, self.clock))
        return (self._scale.numpy(), self._centroid_code.numpy()), lists, tail, keys

    def _build(self) -> None:
        """The lists of each head one after the other, each in whole chunks."""
        heads, count = self._centroid_code.shape[:2]
        sizes = torch.stack([lists.bincount(minlength=count) for lists in self._list_of])
        self._edges = pad((-(-sizes // CHUNK)).flatten().cumsum(0), (1, 0))  # of all heads
        slots = int(self._edges[-1]) * CHUNK
        begin = self._edges[:-1].view(heads, count) * CHUNK - (sizes.cumsum(1) - sizes)
        self._row = torch.zeros(slots, dtype=torch.int32)
        self._bias = torch.full((slots,), -torch.inf)  # of a padded one
        self._documents, document = (self.token_id[: self.size] >> 32).unique(return_inverse=True)
        self._document, self._clock = torch.zeros(slots, dtype=torch.int32), torch.zeros(slots)
        self._code = self._allocate((slots, self.schema.dim), dtype=torch.int8)
        self._code.zero_()
        for head, (lists, first) in enumerate(zip(self._list_of, begin, strict=True)):
            order = lists.argsort(stable=True)
            slot = first[lists[order]] + torch.arange(self.size)
            self._row[slot], self._document[slot] = order.int(), document[order].int()
            self._clock[slot] = self.clock[order]
            self._bias[slot] = self.admission[order] if self.schema.admit else 0.0
            for rows, at in zip(order.split(BATCH), slot.split(BATCH), strict=True):
                self._code[at] = rounded(self.key[head, rows], self._scale[head])
        for name in ("_row", "_bias", "_document", "_clock", "_code"):
            setattr(self, name, getattr(self, name).view(slots // CHUNK, -1))
        self.listed, self._tail_code = self.size, self._tail_code[:, :0]

    def _train(self, count: int) -> None:
        """Centroids of the `count` first tokens, by Lloyd's iterations from a sample; and the range of keys, by dim."""
        first = self.token_id[: self.size].argsort()[:count]
        sample = self.key[:, first[:: max(1, count // SAMPLE)]].float()
        self._scale = sample.abs().amax(1).clamp_min(1e-30) / 127  # (G, D)
        self._centroids = KMeans.of(sample, 1 << (count.bit_length() // 2 + 1))
        self._centroid_code = rounded(self._centroids.centroids, self._scale[:, None])


__all__ = ["InvertedListsIndex"]
