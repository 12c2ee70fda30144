"""Rotations of the pairs of a state: of N dims, m and m + M are rotated by angle m of M, those from 2 M on are not."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..precision import widest
from ..sequence import Sequences


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """x (..., N) by angle (..., M), 2 M <= N: (a + ib) exp(i angle) for the pairs (a, b)."""
    return rotate_by(x, angle.cos(), angle.sin())


def rotate_by(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., N) by the angles whose cosines and sines are (..., M)."""
    M = cos.shape[-1]
    a, b, rest = x.split([M, M, x.shape[-1] - 2 * M], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def wrap(angle: Tensor) -> Tensor:
    """The same direction, from -pi to pi."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


def totals(angle: Tensor, sequences: Sequences) -> Tensor:
    """Angles of rows (B, T, H, M) -> their sums up to each row (B, 1 + T, H, M), 0 before the first; padding adds none.

    Wrapped, and summed in float64 where the device has it: a long call loses no digits.
    """
    if (real := sequences.real()) is not None:
        angle = angle * real[:, :, None, None]
    return wrap(pad(angle.to(widest(angle.device)).cumsum(1), (0, 0, 0, 0, 1, 0))).float()


def phase(angle: Tensor, state: Tensor | None, sequences: Sequences) -> Tensor:
    """Sum of the angles of rows (B, T, H, M) over the current document: (B, H, M) float32, wrapped.

    `state` (B, H, M) is the phase before the call. What `ops.clock` is for decays.
    """
    last = sequences.last()
    begin = last - sequences.end[:, None]
    row = torch.arange(angle.shape[1], device=angle.device)
    current = (row >= begin) & (row < last)
    total = (angle.to(widest(angle.device)) * current[..., None, None]).sum(1)
    return wrap(total if state is None else total + torch.where(begin[..., None] < 0, state, 0)).float()
