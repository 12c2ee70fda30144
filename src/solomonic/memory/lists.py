"""Approximate search over the keys of one layer: an inverted file (Sivic and Zisserman, 2003).

Each head's keys are assigned to the nearest of about sqrt(n) centroids, and a query scores the keys of the `PROBES`
centroids that it agrees with most. Centroids and assignments are a function of what is stored, in the order of its age,
and of nothing else: not of the order in which it was written, nor of what was forgotten. What is found is scored by the
definition, as in exact search; what is missed is the approximation. The keys are held twice, as they came and by list.
"""

import torch
from torch import Tensor

from .index import Candidates, ExactIndex, absolute

LEAST = 1 << 14  # tokens, below which search is exact
PROBES = 16
SAMPLE = 1 << 14  # keys that centroids are the means of
ROUNDS = 6
TAIL = 1 << 12  # tokens looked through one by one, before the lists are laid out anew
BATCH = 1 << 12


class ApproximateIndex(ExactIndex):
    centroid: Tensor | None = None  # (G, C, D) float32

    def remove(self, documents: set[int] = frozenset(), entries: set[int] = frozenset()) -> None:
        super().remove(documents, entries)
        self.centroid = None

    def candidates(
        self, query: Tensor, count: int, rate: float, began: dict[int, float], only: set[int] | None
    ) -> Candidates:
        if self.size < LEAST:
            return super().candidates(query, count, rate, began, only)
        self._lay_out()
        n, g, _ = query.shape
        rows, there = torch.zeros(n, g, count, dtype=torch.int64), torch.zeros(n, g, count, dtype=torch.bool)
        agreement = torch.bmm(query.transpose(0, 1), self.centroid.transpose(1, 2))  # (G, N, C)
        probed = agreement.topk(min(PROBES, agreement.shape[-1]), dim=-1).indices
        wanted = None if only is None else torch.tensor(sorted(only), dtype=torch.int64)
        for head in range(g):
            for i in range(n):
                found, key, admission = self._listed(head, probed[head, i])
                logit = key.float() @ query[i, head]
                if self.layout.admit:
                    logit += admission
                if wanted is not None:
                    inside = torch.isin(self.age[found] >> 32, wanted)
                    found, logit = found[inside], logit[inside]
                if rate:
                    logit += (rate * absolute(self.age[found], self.clock[found], began)).float()
                top = logit.topk(min(count, len(found))).indices
                rows[i, head, : len(top)], there[i, head, : len(top)] = found[top], True
        heads = torch.arange(g)[None, :, None]
        return Candidates(
            torch.where(there, self.age[rows], -1),
            self.key[heads, rows].float(),
            self.admission[rows],
            self.clock[rows],
            bound=torch.full((n, g), -torch.inf),
            error=0.0,
        )

    def _listed(self, head: int, probed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, keys and admissions, (M,), (M, D), (M,), of what belongs to the centroids `probed` (P,)."""
        edges = self._edges[head, torch.stack([probed, probed + 1])].tolist()
        laid = (self._order[head], self._laid_key[head], self._laid_admission[head])
        parts = [[x[begin:end] for begin, end in zip(*edges)] for x in laid]
        if self.size > self._laid:
            asked = torch.zeros(self.centroid.shape[1], dtype=torch.bool)
            asked[probed] = True
            tail = asked[self._which[head, self._laid : self.size]].nonzero()[:, 0] + self._laid
            for part, x in zip(parts, (tail, self.key[head, tail], self.admission[tail])):
                part.append(x)
        return tuple(map(torch.cat, parts))

    def _lay_out(self) -> None:
        """Lists of all rows, but for a tail that is only assigned."""
        of = 1 << (self.size.bit_length() - 1)
        if self.centroid is None or of != self._of:
            self.centroid, self._of = self._means(of), of
            self._which = torch.zeros(self.layout.heads, 0, dtype=torch.int64)
            self._laid = 0
        known = self._which.shape[1]
        if known < self.size:
            fresh = [self._nearest(self.key[:, b : min(b + BATCH, self.size)]) for b in range(known, self.size, BATCH)]
            self._which = torch.cat([self._which, *fresh], 1)
        if not self._laid or self.size - self._laid > TAIL:
            count = self.centroid.shape[1]
            self._order = self._which.argsort(dim=1, stable=True)
            sizes = torch.stack([which.bincount(minlength=count) for which in self._which])
            self._edges = torch.nn.functional.pad(sizes.cumsum(1), (1, 0))
            self._laid = self.size
            # once more in the order of the lists, each of which is then read as one piece
            self._laid_key = self._allocate((*self._order.shape, self.layout.dim), dtype=self.dtype)
            for key, mine, order in zip(self._laid_key, self.key, self._order):
                torch.index_select(mine, 0, order, out=key)
            self._laid_admission = self.admission[self._order]

    def _nearest(self, key: Tensor) -> Tensor:
        """(G, M, D) -> (G, M): by distance, in batches of one shape, whose products are rounded alike."""
        m = key.shape[1]
        key = torch.nn.functional.pad(key.float(), (0, 0, 0, BATCH - m))
        offset = self.centroid.square().sum(-1)[:, None] / 2
        return (torch.bmm(key, self.centroid.transpose(1, 2)) - offset).argmax(-1)[:, :m]

    def _means(self, of: int) -> Tensor:
        """Centroids of the `of` oldest tokens, by Lloyd's iterations from some of them."""
        oldest = self.age[: self.size].argsort()[:of]
        sample = self.key[:, oldest[:: max(1, of // SAMPLE)]].float()
        count = 1 << (of.bit_length() // 2)
        self.centroid = sample[:, :: sample.shape[1] // count][:, :count].clone()
        for _ in range(ROUNDS):
            which = torch.cat([self._nearest(part) for part in sample.split(BATCH, 1)], 1)
            total = torch.zeros_like(self.centroid).scatter_add_(1, which[..., None].expand_as(sample), sample)
            number = torch.stack([w.bincount(minlength=count) for w in which])[..., None]
            self.centroid = torch.where(number > 0, total / number.clamp_min(1), self.centroid)
        return self.centroid


__all__ = ["ApproximateIndex"]
