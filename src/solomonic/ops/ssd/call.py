"""What a backend of the scan of Mamba-2 is called with."""

from typing import NamedTuple

from torch import Tensor

from ..sequence import Sequences


class SSDCall(NamedTuple):
    """A backend returns y (B, T, H, P) and the state after the last real row, both float32.

    Those that `ssd.TAKE_STEP_AND_SKIP` does not name are given values that `step` has multiplied, and no `skip`.
    """

    v: Tensor  # (B, T, H, P)
    k: Tensor  # (B, T, G, N)
    q: Tensor  # (B, T, G, N)
    log_decay: Tensor  # (B, T, H)
    state: Tensor  # (B, H, P, N)
    sequences: Sequences
    step: Tensor | None = None  # (B, T, H)
    skip: Tensor | None = None  # (H,)


__all__ = ["SSDCall"]
