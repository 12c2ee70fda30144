"""Rotary position embedding (Su et al., arXiv 2104.09864), halves rotated as in Llama."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import dispatch, rowwise
from .precision import widest

Scaling = tuple[float, float, float, float]
"""factor, low, high, length (Llama 3.1's): a pair that turns at most `low` times in `length` tokens is slowed down by
`factor`, one that turns at least `high` times is left alone, one between is slowed in proportion. With a length of 0
all are slowed alike (position interpolation, arXiv 2306.15595)."""


class Rotation(NamedTuple):
    """Pairs (d, d + D/2) turn by position / base^(2d/D) radians."""

    base: float = 10000.0
    scaling: Scaling | None = None

    def table(self, position: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (..., dim / 2) float32 at `position` (...).

        Angles are float64 where the device has it: in float32 that of position 100,000 is off by 0.004.
        """
        half = dim // 2
        frequency = self.base ** (-torch.arange(half, device=position.device, dtype=torch.float32) / half)
        if self.scaling is not None:
            factor, low, high, length = self.scaling
            kept = ((length / (2 * math.pi) * frequency - low) / (high - low)).clamp(0, 1)
            frequency = frequency * (kept + (1 - kept) / factor)
        wide = widest(position.device)
        angle = position[..., None].to(wide) * frequency.to(wide)
        return angle.cos().float(), angle.sin().float()

    def __call__(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate (B, T, H, D) by `position` (B or 1, T)."""
        return rotate(x, *self.table(position, x.shape[-1]))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, T, H, D) by the angles whose cosines and sines are (B or 1, T, D / 2)."""
    if rowwise.fastest(x) == "triton":
        rotated: Tensor = dispatch.required_triton(rowwise.load_triton, "reference").rotate(x, cos, sin)
        return rotated
    cos, sin = (y[:, :, None].to(x.dtype) for y in (cos, sin))
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rotary(x: Tensor, position: Tensor, base: float = 10000.0, scaling: Scaling | None = None) -> Tensor:
    """Rotate (B, T, H, D) by `position` (B or 1, T)."""
    return Rotation(base, scaling)(x, position)
