"""`softmax` as numba compiles it: what is hidden is known from bounds, in as many parts as torch has threads.

Keys are gone through by whole parts: a loop over what is seen alone is mostly the rest that does not fill a vector.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from torch import Tensor

from ..jit import FAST, compiled, dot, exp, in_parts, numbers, threads

F = np.float32
LEAST = F(-3e38)  # of no key: what is hidden


@intrinsic
def _larger(context, x, y):
    """By an instruction that is vectorised. What a NaN does to it does not matter: the weight of one is NaN."""

    def generate(context, builder, signature, arguments):
        number = ir.FloatType()
        function = builder.module.declare_intrinsic("llvm.maxnum", [number], ir.FunctionType(number, [number] * 2))
        return builder.call(function, arguments, fastmath=("nsz",))

    return types.float32(types.float32, types.float32), generate


@compiled(**FAST)
def _largest(x, most):
    for s in range(len(x)):
        most = _larger(most, x[s])
    return most


@compiled(**FAST)
def _exponentials(x, most, ones):
    """Writes exp(x - most), 0 for less than e^-80, and gives their sum."""
    for s in range(len(x)):
        log = x[s] - most
        x[s] = F(0) if log < F(-80) else exp(log)
    return dot(x, ones[: len(x)])


@compiled(**FAST)
def _scale(x, by):
    for s in range(len(x)):
        x[s] *= by


@in_parts(**FAST)
def _softmax(parts, tile, columns, sizes, x, position, unseen, mass):
    """columns (parts, 4): nearest, farthest, first, width; sizes: where each part begins, the eidetic keys' at last."""
    count, B, G, rows, R = tile
    P, Q, T = len(columns), rows * R, position.shape[1]
    capacity = unseen.shape[3]
    for part in prange(parts):
        bounds, ones = np.empty((P, 2), np.int64), np.ones(max(columns[:, 3].max(), capacity), F)
        for lane in range(count * B * G * part // parts, count * B * G * (part + 1) // parts):
            n, b = lane // (B * G), lane // G % B
            for t in range(rows):
                row = n * rows + t
                before = position[b % len(position), row] if row < T else 0
                for p in range(P):
                    nearest, farthest, first, width = columns[p]
                    bounds[p, 1] = max(min(width, t - first - nearest + 1), 0)
                    bounds[p, 0] = min(max(0, t - first - min(farthest - 1, before)), bounds[p, 1])
                for r in range(R):
                    query = lane * Q + t * R + r
                    at = sizes[P] + query * capacity
                    kept, most = x[at : at + capacity], LEAST
                    if capacity:
                        dark = unseen[b % len(unseen), n, t]
                        for s in range(capacity):
                            kept[s] = LEAST if dark[s] else kept[s]
                        most = _largest(kept, most)
                    for p in range(P):
                        at = sizes[p] + query * columns[p, 3]
                        x[at : at + bounds[p, 0]] = LEAST
                        x[at + bounds[p, 1] : at + columns[p, 3]] = LEAST
                        most = _largest(x[at : at + columns[p, 3]], most)
                    total = F(0)
                    if capacity:
                        total = _exponentials(kept, most, ones)
                    for p in range(P):
                        at = sizes[p] + query * columns[p, 3]
                        total += _exponentials(x[at : at + columns[p, 3]], most, ones)
                    by = F(1) / total
                    _scale(kept, by)
                    for p in range(P):
                        at = sizes[p] + query * columns[p, 3]
                        _scale(x[at : at + columns[p, 3]], by)
                    if len(mass):
                        mass[query] = most + np.log(total)


@in_parts(**FAST)
def _change(parts, keys, x, mean, weight):
    for part in prange(parts):
        for row in range(len(mean) * part // parts, len(mean) * (part + 1) // parts):
            at = row * keys
            a, w, m = x[at : at + keys], weight[at : at + keys], mean[row]
            for s in range(keys):
                a[s] = (a[s] - m) * w[s]


def softmax(logits, tile, columns, position, unseen, massed: bool) -> Tensor | None:
    """In place; the mass, where it is wanted."""
    rows = tile.lanes * tile.queries
    sizes = np.cumsum([0, *(rows * c.width for c in columns)])
    if unseen is None:
        unseen = torch.zeros(1, 1, 1, 0, dtype=torch.bool, device="cpu")
    mass = numbers(rows if massed else 0)
    inputs = logits.all.numpy(), position.contiguous().numpy(), unseen.contiguous().numpy(), mass.numpy()
    _softmax(threads(), tuple(tile), np.array(columns), sizes, *inputs)
    return mass.view(tile.lanes, tile.queries, 1) if massed else None


def change(dweight: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
    """In place of `dweight`."""
    dweight = dweight.contiguous()
    inputs = (x.detach().reshape(-1).numpy() for x in (dweight, mean, weight))
    _change(threads(), weight.shape[-1], *inputs)
    return dweight


__all__ = ["change", "softmax"]
