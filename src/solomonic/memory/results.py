"""What the methods of a store return.

Shapes: n entries of at most S tokens, G key/value heads, D their width, N queries, k tokens found for each query and head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .schema import LayerSchema, StoredDocument, entry_of


@dataclass(frozen=True)
class SearchResult:
    """Of each query and head the k tokens with the largest logits, falling.

    token_id: (N, G, k) int64, -1 for none. block: tokens an entry. logit: (N, G, k) float32, -inf for none.
    """

    token_id: Tensor
    block: int
    logit: Tensor

    @property
    def entry(self) -> Tensor:
        """(N, G, k) int64, the id of the token's entry, -1 for none."""
        return entry_of(self.token_id, self.block)

    @property
    def position(self) -> Tensor:
        """(N, G, k) int64, of the token in its document, -1 for none."""
        return torch.where(self.token_id < 0, -1, self.token_id & 0xFFFFFFFF)


@dataclass(frozen=True)
class Entries:
    """What `Store.fetch` returns: the tokens of n entries, at most S each; `real` says which are there.

    key, value: (n, S, G, D) float32. score, clock: (n, S) float32; the clock is the store's, of all documents so far.
    position: (n, S) int64. real: (n, S) bool. document: (n,) int64. span: (n, S, 2) int64.
    """

    key: Tensor
    value: Tensor
    score: Tensor
    clock: Tensor
    position: Tensor
    real: Tensor
    document: Tensor
    span: Tensor


@dataclass(frozen=True)
class ReadTokens:
    """What `Store.read` returns: tokens in the shape (...) that `view` gives them; `real` says which are there.

    key, value: (..., G, D) float32. score, clock: (...) float32; the clock is the store's, of all documents so far.
    """

    packed: Tensor  # (..., 2 G D + 3), as `StoredTokens.packed`
    clock_starts: list[float]  # the store's clock where the document of each token begins
    schema: LayerSchema

    def view(self, *shape: int) -> "ReadTokens":
        return ReadTokens(self.packed.view(*shape, self.packed.shape[-1]), self.clock_starts, self.schema)

    @property
    def key(self) -> Tensor:
        return self._heads(self.packed[..., : self._width])

    @property
    def value(self) -> Tensor:
        return self._heads(self.packed[..., self._width : -3])

    @property
    def score(self) -> Tensor:
        return self.packed[..., -3]

    @property
    def clock(self) -> Tensor:
        clock = self.packed[..., -2]
        return (torch.tensor(self.clock_starts, dtype=torch.float64).view(clock.shape) + clock.double()).float()

    @property
    def real(self) -> Tensor:
        return self.packed[..., -1] > 0

    @property
    def _width(self) -> int:
        return self.schema.heads * self.schema.dim

    def _heads(self, flat: Tensor) -> Tensor:
        return flat.view(*flat.shape[:-1], self.schema.heads, self.schema.dim)


@dataclass(frozen=True)
class Forgotten:
    """What `Store.forget` removed. asked: the documents that were asked for. followed: those computed from them, directly
    or through others, which went too.

    unknown: damaged documents that stay; their rows cannot tell whether they were computed from what went. unfinished:
    what of the removed documents may still be in the store's files, and why; None: nothing.
    """

    asked: tuple[StoredDocument, ...]
    followed: tuple[StoredDocument, ...]
    unknown: tuple[int, ...] = ()
    unfinished: str | None = None


@dataclass(frozen=True)
class Evicted:
    """How much `Store.evict` removed."""

    entries: int
    tokens: int
    bytes: int


__all__ = ["Entries", "Evicted", "Forgotten", "ReadTokens", "SearchResult"]
