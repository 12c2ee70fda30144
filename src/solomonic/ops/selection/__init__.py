"""Which tokens the eidetic memory holds: the best `capacity` of the document, renewed at multiples of `block`.

    M(i) = the `capacity` best j of i's document with  position(j) < block * floor(position(i) / block)

Better = higher score; of equal scores the older. A token that has lost its place never comes back, so the best of
(the best so far, a new block) is the best of all, and the memory can be carried, or built up as a tree.

Candidates are numbered [slots | past rows | rows of this call]: S = capacity + W + T of them, W the length of
the ring of past rows (at least `block`). Slots hold what was kept before the call, and their coordinate.
"""

from .reference import select as select_by_query
from .tree import Sets, select

ABSENT = -(1 << 30)
"""Coordinate of an empty slot, and of one that is older than that. It fits 32 bits, all that some devices compute in."""

__all__ = ["ABSENT", "Sets", "select", "select_by_query"]
