"""The documents that a store serves: where their clocks begin, and their order by name."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .schema import StoredDocument


@dataclass(frozen=True)
class NameOrder:
    """Documents by name, session and digest: an order that does not depend on when they were added.

    rank: of each id, its place in that order. tensors: ids, rising, and their ranks; None where ids are in that order.
    """

    rank: dict[int, int]
    tensors: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, documents: Iterable[StoredDocument]) -> "NameOrder":
        ordered = sorted(documents, key=lambda d: (d.name, d.session or "", d.digest or "", d.id))
        rank = {document.id: place for place, document in enumerate(ordered)}
        ids = sorted(rank)
        ranks = [rank[number] for number in ids]
        if ranks == list(range(len(ids))):
            return cls(rank, None)
        return cls(rank, (torch.tensor(ids, dtype=torch.int64), torch.tensor(ranks, dtype=torch.int64)))


class Catalog:
    """Documents by id. What is computed from all of them is kept until a document comes, changes or goes."""

    def __init__(self, documents: Iterable[StoredDocument]):
        self.documents: dict[int, StoredDocument] = {}
        self.replace_all(documents)

    def replace_all(self, documents: Iterable[StoredDocument]) -> None:
        self.documents = {document.id: document for document in documents}
        self._clock_starts: dict[int, dict[int, float]] = {}
        self._name_order: NameOrder | None = None

    def put(self, document: StoredDocument) -> None:
        if document.id not in self.documents:
            self._name_order = None
        self.documents[document.id] = document
        self._clock_starts.clear()

    def remove(self, documents: Iterable[int]) -> None:
        for document in documents:
            self.documents.pop(document, None)
        self._clock_starts.clear()
        self._name_order = None

    def clock(self, layer: int) -> float:
        """How far the clock of `layer` has run over all documents."""
        return sum(self.documents[document].elapsed(layer) for document in sorted(self.documents))

    def clock_starts(self, layer: int) -> dict[int, float]:
        """The store's clock where each document begins: the sum of those before it. Not to be changed."""
        if layer not in self._clock_starts:
            total, starts = 0.0, {}
            for document in sorted(self.documents):
                starts[document] = total
                total += self.documents[document].elapsed(layer)
            self._clock_starts[layer] = starts
        return self._clock_starts[layer]

    def name_order(self) -> NameOrder:
        if self._name_order is None:
            self._name_order = NameOrder.of(self.documents.values())
        return self._name_order

    def in_order(self, token_ids: Iterable[int]) -> list[int]:
        """By the names of their documents, then by position."""
        order = self.name_order()
        if order.tensors is None:
            return sorted(token_ids)
        return sorted(token_ids, key=lambda token_id: (order.rank.get(token_id >> 32, 0), token_id))


__all__ = ["Catalog", "NameOrder"]
