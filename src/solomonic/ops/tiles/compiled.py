"""`Tiling` as numba compiles it: one pass over the rows, in as many parts as torch has threads."""

import numpy as np
from numba import prange
from torch import Tensor

from ..jit import FAST, compiled, in_parts, numbers, threads

F, U = np.float32, np.uintp


@compiled(**FAST)
def _copy(x, i, size, scale, y, o, add):
    """Indices are unsigned: else each is looked at for being negative."""
    if add:
        for c in range(size):
            y[o + U(c)] += x[i + U(c)] * scale
    else:
        for c in range(size):
            y[o + U(c)] = x[i + U(c)] * scale


@compiled(**FAST)
def _rotate(x, i, half, cos, sin, k, scale, y, o, add):
    j, p = i + U(half), o + U(half)
    if add:
        for c in range(half):
            y[o + U(c)] += (x[i + U(c)] * cos[k + U(c)] - x[j + U(c)] * sin[k + U(c)]) * scale
        for c in range(half):
            y[p + U(c)] += (x[j + U(c)] * cos[k + U(c)] + x[i + U(c)] * sin[k + U(c)]) * scale
    else:
        for c in range(half):
            y[o + U(c)] = (x[i + U(c)] * cos[k + U(c)] - x[j + U(c)] * sin[k + U(c)]) * scale
        for c in range(half):
            y[p + U(c)] = (x[j + U(c)] * cos[k + U(c)] + x[i + U(c)] * sin[k + U(c)]) * scale


@in_parts(**FAST)
def _to_tiles(parts, shape, steps, tiling, x, cos, sin, scale, out):
    (B, L, H, D), (by_batch, by_row, by_head), (count, rows, before, G) = shape, steps, tiling
    R, rotating = H // G, len(cos) > 0
    for part in prange(parts):
        for lane in range(count * B * G * part // parts, count * B * G * (part + 1) // parts):
            n, b, g = lane // (B * G), lane // G % B, lane % G
            for t in range(rows):
                at, to = n * rows + t - before, (lane * rows + t) * R * D
                if at < 0 or at >= L:
                    out[to : to + R * D] = F(0)
                    continue
                for r in range(R):
                    i, o = U(b * by_batch + at * by_row + (g * R + r) * by_head), U(to + r * D)
                    if rotating:
                        _rotate(x, i, D // 2, cos, sin, U(at * (D // 2)), scale, out, o, False)
                    else:
                        _copy(x, i, D, scale, out, o, False)


@in_parts(**FAST)
def _from_tiles(parts, shape, steps, tiling, tiles, cos, sin, scale, add, out):
    (B, L, H, D), (by_batch, by_row, by_head), (count, rows, before, G) = shape, steps, tiling
    R, rotating = H // G, len(cos) > 0
    for part in prange(parts):
        for row in range(B * L * part // parts, B * L * (part + 1) // parts):
            b, at = row // L, row % L
            n, t = (at + before) // rows, (at + before) % rows
            for h in range(H):
                o = b * by_batch + at * by_row + h * by_head
                if n < 0 or n >= count:
                    if not add:
                        out[o : o + D] = F(0)
                    continue
                i = U((((n * B + b) * G + h // R) * rows + t) * R * D + h % R * D)
                if rotating:
                    _rotate(tiles, i, D // 2, cos, sin, U(at * (D // 2)), scale, out, U(o), add)
                else:
                    _copy(tiles, i, D, scale, out, U(o), add)


def to_tiles(tiling, x: Tensor, table, scale: float) -> Tensor:
    x = x.detach()
    if x.stride(3) != 1:
        x = x.contiguous()
    B, L, H, D = x.shape
    R = H // tiling.groups
    out = numbers(tiling.tiles * B * tiling.groups, tiling.rows * R, D)
    cos, sin = _angles(table)
    shape, steps = (B, L, H, D), x.stride()[:3]
    _to_tiles(threads(), shape, steps, tuple(tiling), _numbers(x), cos, sin, F(scale), out.view(-1).numpy())
    return out


def from_tiles(tiling, tiles: Tensor, out: Tensor, table, scale: float, add: bool) -> Tensor:
    B, L, H, D = out.shape
    if out.stride(3) != 1:
        raise ValueError(f"expected rows whose last axis is contiguous, got strides {out.stride()}")
    cos, sin = _angles(table)
    shape, steps = (B, L, H, D), out.stride()[:3]
    given = tiles.detach().contiguous().view(-1).numpy(), cos, -sin, F(scale), add
    _from_tiles(threads(), shape, steps, tuple(tiling), *given, _numbers(out))
    return out


def _angles(table) -> tuple[np.ndarray, np.ndarray]:
    return (np.zeros(0, F),) * 2 if table is None else tuple(y.contiguous().view(-1).numpy() for y in table)


def _numbers(x: Tensor) -> np.ndarray:
    """All from the first to the last, whatever lies between."""
    last = sum((n - 1) * step for n, step in zip(x.shape, x.stride()))
    return x.as_strided((last + 1,), (1,)).numpy()


__all__ = ["from_tiles", "to_tiles"]
