"""The causal average of all rows at once: `width` shifted sums."""

from torch import Tensor

from ..sequence import Sequences


def prediction(extended: Tensor, sequences: Sequences, width: int) -> Tensor:
    T = sequences.position.shape[1]
    total: Tensor | int = 0
    for lag in range(1, width + 1):
        known = (sequences.position >= lag)[..., None].to(extended.dtype)
        total = total + extended[:, width - lag : width - lag + T] * known
    return total / sequences.position.clamp(1, width)[..., None].to(extended.dtype)
