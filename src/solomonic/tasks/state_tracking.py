"""State tracking: the word problem of a group, the product of all elements so far (arXiv 2411.12537, 2502.10297).

One sample (group="s3", length=8): tokens are permutations of 0, 1, 2 in lexicographic order, 0 the identity,
1 = 021, 2 = 102, 3 = 120, 4 = 201, 5 = 210.

    tokens    1 2 0 3 5 4 1 1
    targets   1 4 4 0 5 1 0 1

Tokens are drawn uniformly and independently from the elements of the group. The target at position t is the state
x_1 x_2 ... x_t: the element that comes is multiplied on the right, and a product of permutations ab takes i to
a(b(i)). Every position is scored. As the elements are uniform, so is every state, and a guess is right with
probability 1 / order, whatever came before.

Groups: "parity" (the integers modulo 2), "zN" (those modulo N, in which the state is a counter), "s3", "s4", "s5"
(all permutations) and "a4", "a5" (the even ones). A5 and S5 are not solvable: their word problem is complete for NC1,
so that no transformer and no diagonal state-space model of fixed depth solves it at every length, unless TC0 = NC1
(arXiv 2404.08819). Test lengths go beyond the training length, as a state that is tracked costs nothing to track on.

Source of the definition: `src/generate_data.py` of github.com/jopetty/word-problem, which draws rows without
repetition from all there are; here they are independent.
"""

import re
from collections.abc import Iterable
from itertools import permutations

import numpy as np

from . import _check, _draw
from .base import Batch, Task

LARGEST = 1024  # N of zN, whose table of products has N^2 entries


class StateTracking(Task):
    """Options:

    group    "parity", "zN" for any N from 2 to 1024, "s3", "s4", "s5", "a4" or "a5"
    length   training length
    lengths  test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "state_tracking"
    summary = "the product of all elements of a group so far, at every position"

    def __init__(self, *, group: str = "s3", length: int = 128, lengths: Iterable[int] | None = None):
        self.group = group
        self.labels, self.product = _group(group)
        self.vocab_size = len(self.labels)
        self.chance = 1 / self.vocab_size
        self.length = _check.whole("length", length, 1, "a row has one element or more")
        lengths = [m * self.length for m in (1, 2, 4, 16)] if lengths is None else lengths
        self.lengths = _check.increasing("lengths", lengths)

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        return self._rows(size, self.length, rng)

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        return self._rows(size, _check.whole("length", length, 1, "a row has one element or more"), rng)

    def label(self, token: int) -> str:
        return self.labels[token]

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        tokens = rng.integers(self.vocab_size, size=(_check.batch_size(size), length))
        states, span = tokens.copy(), 1
        while span < length:  # states[:, t] is the product of the last `span` elements: twice as many each time
            states[:, span:] = self.product[states[:, :-span], states[:, span:]]
            span *= 2
        return _draw.batch(tokens, states)


def _group(name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The labels of a group's elements, the identity first, and its table of products, (order, order) int64."""
    cyclic = re.fullmatch(r"z([1-9][0-9]{0,3})", "z2" if name == "parity" else str(name))
    if cyclic and 2 <= int(cyclic[1]) <= LARGEST:
        numbers = np.arange(int(cyclic[1]))
        return tuple(map(str, numbers)), (numbers[:, None] + numbers) % len(numbers)
    if name not in ("s3", "s4", "s5", "a4", "a5"):
        raise ValueError(
            f"group: expected parity, zN with N from 2 to {LARGEST}, s3, s4, s5, a4 or a5; got {name!r}; "
            "take one of these"
        )
    degree = int(name[1])
    elements = np.array(list(permutations(range(degree))))
    if name[0] == "a":
        i, j = np.triu_indices(degree, 1)
        elements = elements[(elements[:, i] > elements[:, j]).sum(1) % 2 == 0]  # an even number of inversions
    code = degree ** np.arange(degree)[::-1]  # increases in lexicographic order
    products = elements[np.arange(len(elements))[:, None, None], elements[None]]  # [a, b, i] = a(b(i))
    labels = tuple("".join(map(str, element)) for element in elements.tolist())
    return labels, np.searchsorted(elements @ code, products @ code)
