"""Rotary position embedding (Su et al., arXiv 2104.09864), halves rotated as in Llama."""

import torch
from torch import Tensor


def rotary(x: Tensor, position: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate (B, T, H, D) by `position` (B or 1, T): pairs (d, d + D/2) turn by position / base^(2d/D) radians."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (position[..., None].float() * frequency)[:, :, None]  # (B or 1, T, 1, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
