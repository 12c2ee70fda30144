"""What a backend of the test-time ridge regression is called with."""

from typing import NamedTuple

from torch import Tensor

from ..sequence import Sequences


class KalmanCall(NamedTuple):
    """float32. A backend returns y and the innovations (B, T, H, V), these or None, and h and u after the last real row."""

    q: Tensor  # (B, T, H, K)
    k: Tensor  # (B, T, H, K)
    v: Tensor  # (B, T, H, V)
    weight: Tensor  # (B, T, H)
    mix: Tensor  # (B, T, H)
    log_decay: Tensor  # (B, T, H)
    h: Tensor  # (B, H, K, K)
    u: Tensor  # (B, H, V, K)
    sequences: Sequences
    iterations: int
    innovate: bool


__all__ = ["KalmanCall"]
