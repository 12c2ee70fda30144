"""Rotary position embedding (Su et al., arXiv 2104.09864), halves rotated as in Llama."""

import math

import torch
from torch import Tensor

Scaling = tuple[float, float, float, float]
"""factor, low, high, length (Llama 3.1's): a pair that turns at most `low` times in `length` tokens is slowed down by
`factor`, one that turns at least `high` times is left alone, one between is slowed in proportion. With a length of 0
all are slowed alike (position interpolation, arXiv 2306.15595)."""


def rotary(x: Tensor, position: Tensor, base: float = 10000.0, scaling: Scaling | None = None) -> Tensor:
    """Rotate (B, T, H, D) by `position` (B or 1, T): pairs (d, d + D/2) turn by position / base^(2d/D) radians."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if scaling is not None:
        factor, low, high, length = scaling
        kept = ((length / (2 * math.pi) * frequency - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (kept + (1 - kept) / factor)
    angle = (position[..., None].float() * frequency)[:, :, None]  # (B or 1, T, 1, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
