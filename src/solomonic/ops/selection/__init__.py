"""Which tokens the eidetic memory holds: the best `capacity` of the document, renewed at multiples of `block`.

    M(i) = the `capacity` best j of i's document with  position(j) < block * floor(position(i) / block)

Better = higher score; of equal scores the older. A token that has left its slot never comes back, so the best of
(the best so far, a new block) is the best of all, and the memory can be carried, or built up as a tree.

Candidates are numbered [slots | past rows | rows of this call]: S = capacity + W + T of them, W the length of
the ring of past rows (at least `block`). Slots hold what was kept before the call, and their coordinate.
"""

from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from ..sequence import Sequences
from . import tree
from .reference import select as select_by_query
from .tree import Sets

ABSENT = -(1 << 30)
"""Coordinate of an empty slot, and of one that is older than that. It fits 32 bits, all that some devices compute in."""
FEW = 3
"""Blocks that the tree does as fast as a loop."""


BACKENDS = {"tree": tree.select, "compiled": dispatch.compiled_function(__name__, "select")}


def select(
    score: Tensor, coordinate: Tensor, sequences: Sequences, block: int, capacity: int, backend: str | None = None
) -> Sets:
    """score (B, S), -inf at an empty slot; coordinate (B, S) int64 -> the sets of all blocks of the call.

    `backend` None is "compiled" for more than a few blocks on a CPU with numba, else "tree".
    """
    if backend is None:
        many = sequences.position.shape[1] > FEW * block
        backend = "compiled" if many and dispatch.numba_serves(score) else "tree"
    return choose("backend", backend, BACKENDS)(score, coordinate, sequences, block, capacity)


__all__ = ["ABSENT", "BACKENDS", "Sets", "select", "select_by_query"]
