"""Context-tree weighting of bits: the exact mixture over all context trees (Willems, Shtarkov and Tjalkens 1995).

A context tree says, from the last bits alone, how likely the next is a 1: each leaf is a context with a chance of its
own. The mixture is over every tree of depth D at most, a tree with k inner nodes and leaves above depth D weighing
2^-k, and over every chance, by the estimator of Krichevsky and Trofimov: p(1) = (n1 + 1/2) / (n0 + n1 + 1). It is Bayes'
rule for sources that are drawn so: no predictor loses fewer bits on their average. Bits before the first count as 0.

At every node of the path from the root to the context, with b = log(Pe / (Pw0 Pw1)) (Pe: its own estimator on what
came here, Pw0 and Pw1: its children's mixtures), the mixture's p = w pe + (1 - w) p_child, w = 1 / (1 + exp(-b)), and b
grows by log(pe / p_child) of the bit that came. This is the recursion Pw = (Pe + Pw0 Pw1) / 2 without its underflow.
"""

from math import exp, log, log2

import numpy as np


class ContextTree:
    """One sequence, a bit at a time. `bits` is its code length so far, -log2 of the mixture's probability."""

    def __init__(self, depth: int = 8):
        self.depth, self.bits = depth, 0.0
        self._context = 0
        self._nodes: dict[tuple[int, int], list[float]] = {}  # (depth, context): n0, n1, b

    def probability(self) -> float:
        """That the next bit is a 1."""
        return self._path()[0][2]

    def update(self, bit: int) -> None:
        path = self._path()
        self.bits -= log2(path[0][2] if bit else 1 - path[0][2])
        for (node, own, _), (_, _, below) in zip(path, [*path[1:], (None, None, 0.5)]):
            if node is not path[-1][0]:
                node[2] += log(own if bit else 1 - own) - log(below if bit else 1 - below)
        for node, _, _ in path:
            node[bit] += 1
        self._context = (self._context << 1 | bit) & ((1 << self.depth) - 1)

    def _path(self) -> list[tuple[list[float], float, float]]:
        """From the root to the context: node, its own estimate and the mixture's of a 1."""
        path, mixed = [], None
        for d in range(self.depth, -1, -1):
            node = self._nodes.setdefault((d, self._context & ((1 << d) - 1)), [0, 0, 0.0])
            own = (node[1] + 0.5) / (node[0] + node[1] + 1)
            mixed = own if mixed is None else mixed + _share(node[2]) * (own - mixed)
            path.append((node, own, mixed))
        return path[::-1]


def _share(b: float) -> float:
    return 1 / (1 + exp(-b)) if b > -700 else 0.0


def code_lengths(rows: np.ndarray, depth: int) -> np.ndarray:
    """(B, T) bits -> (B, T) float64: -log2 of the mixture's probability of each, all rows side by side."""
    size, length = rows.shape
    counts, b = np.zeros((size, 2 ** (depth + 1), 2)), np.zeros((size, 2 ** (depth + 1)))
    context, lengths, row = np.zeros(size, dtype=np.int64), np.empty((size, length)), np.arange(size)
    for t in range(length):
        bit, mixed = rows[:, t].astype(np.int64), np.empty(size)
        for d in range(depth, -1, -1):
            node = (1 << d) + (context & ((1 << d) - 1))
            seen = counts[row, node]
            own = (seen[row, bit] + 0.5) / (seen.sum(1) + 1)  # of the bit that came
            if d == depth:
                mixed = own
            else:
                before, b_here = mixed, b[row, node]
                mixed = before + (own - before) / (1 + np.exp(-np.clip(b_here, -700, 700)))
                b[row, node] = b_here + np.log(own) - np.log(before)
            counts[row, node, bit] += 1
        lengths[:, t] = -np.log2(mixed)
        context = (context << 1 | bit) & ((1 << depth) - 1)
    return lengths
