"""What a backend of the gated delta rule is called with."""

from typing import NamedTuple

from torch import Tensor

from ..sequence import Sequences


class DeltaCall(NamedTuple):
    """float32. A backend returns y (B, T, H, V), the innovations alike or None, and the state after the last real row."""

    q: Tensor  # (B, T, H, K)
    k: Tensor  # (B, T, H, K)
    v: Tensor  # (B, T, H, V)
    beta: Tensor  # (B, T, H)
    log_decay: Tensor  # (B, T, H)
    state: Tensor  # (B, H, V, K)
    sequences: Sequences
    innovate: bool = True  # whether the innovations are wanted


__all__ = ["DeltaCall"]
