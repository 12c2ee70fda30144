"""Context-tree weighting against the mixture that it is: every tree, one after the other."""

from itertools import product
from math import lgamma, log, pi

import numpy as np
import pytest

from solomonic.theory.solomonoff.context_tree import ContextTree, code_lengths


def trees(depth: int, context: str = ""):
    """Every tree below `context`: its leaves, and the weight it has by chance 1/2 at each node above `depth`."""
    if len(context) == depth:
        yield [context], 1.0
        return
    yield [context], 0.5
    for (zero, a), (one, b) in product(trees(depth, "0" + context), trees(depth, "1" + context)):
        yield zero + one, a * b / 2


def evidence(zeros: int, ones: int) -> float:
    """log of the integral of a chance's likelihood over Beta(1/2, 1/2)."""
    return lgamma(zeros + 0.5) + lgamma(ones + 0.5) - log(pi) - lgamma(zeros + ones + 1)


def brute_force(data: str, depth: int) -> float:
    padded, total = "0" * depth + data, 0.0
    for leaves, weight in trees(depth):
        counts = {leaf: [0, 0] for leaf in leaves}
        for t in range(depth, len(padded)):
            leaf = next(leaf for leaf in leaves if padded[:t].endswith(leaf))
            counts[leaf][int(padded[t])] += 1
        total += weight * np.exp(sum(evidence(*pair) for pair in counts.values()))
    return -np.log2(total)


@pytest.mark.parametrize("depth, how_many", [(1, 2), (2, 5), (3, 26)])
def test_equals_the_mixture_of_all_trees(depth, how_many):
    assert len(list(trees(depth))) == how_many and sum(w for _, w in trees(depth)) == 1
    for data in ("0", "1", "0110100110010110", "0" * 12, "10110111011110"):
        tree = ContextTree(depth)
        for bit in data:
            tree.update(int(bit))
        assert tree.bits == pytest.approx(brute_force(data, depth), abs=1e-10)


def test_rows_side_by_side_equal_one_at_a_time():
    rows = (np.random.default_rng(0).random((3, 200)) < [[0.5], [0.1], [0.0]]).astype(np.int64)
    found = code_lengths(rows, 5)
    for row, lengths in zip(rows, found):
        tree = ContextTree(5)
        for bit, length in zip(row.tolist(), lengths):
            before, one = tree.bits, tree.probability()
            tree.update(bit)
            assert length == pytest.approx(-np.log2(one if bit else 1 - one), abs=1e-10)
            assert tree.bits - before == pytest.approx(length, abs=1e-9)


def test_long_runs_do_not_underflow():
    lengths = code_lengths(np.zeros((1, 5000), dtype=np.int64), 8)
    assert np.isfinite(lengths).all() and lengths[0, -1] < 1e-3
    assert lengths.sum() < 0.5 * np.log2(5000) + 2.1  # KT's loss on a constant, and 1 bit for the tree without branches
