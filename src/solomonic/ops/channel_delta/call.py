"""What a backend of the delta rule with a decay for each channel is called with."""

from typing import NamedTuple

from torch import Tensor

from ..sequence import Sequences


class ChannelDeltaCall(NamedTuple):
    """float32. A backend returns y (B, T, H, V), the innovations alike, and the state after the last real row."""

    q: Tensor  # (B, T, H, K)
    k: Tensor  # (B, T, H, K): the keys that are written at
    erase: Tensor  # (B, T, H, K): the keys that are erased at
    v: Tensor  # (B, T, H, V)
    log_decay: Tensor  # (B, T, H, K)
    state: Tensor  # (B, H, V, K)
    sequences: Sequences
    innovate: bool = True


__all__ = ["ChannelDeltaCall"]
