"""What a backend of the exponential-trapezoidal scan is called with."""

from typing import NamedTuple

from torch import Tensor

from ..sequence import Sequences


class TrapezoidCall(NamedTuple):
    """float32. x and B have the row before the call first. A backend returns y (B, T, R, H, P) and the state after it."""

    x: Tensor  # (B, 1 + T, R, H, P)
    B: Tensor  # (B, 1 + T, R, H, N)
    C: Tensor  # (B, T, R, H, N)
    log_decay: Tensor  # (B, T, H)
    step: Tensor  # (B, T, H)
    mix: Tensor  # (B, T, H)
    angle: Tensor  # (B, T, H, M)
    state: Tensor  # (B, H, P, N)
    sequences: Sequences


__all__ = ["TrapezoidCall"]
