"""The clock of a fading memory: how much it has forgotten since its document began."""

import torch
from torch import Tensor

from .place import LEAST_LOG_DECAY, Place


def clock(log_decay: Tensor, state: Tensor | None, place: Place) -> Tensor:
    """Total of the log decays g <= 0 (B, T, H), as a scan applies them, over the current document: (B, H) float32.

    `state` (B, H) is the total before the call. exp(total) is what the document leaves of any state before its first
    row, which is all that the composition of states needs to know of it (`ops.composition`).
    """
    last = place.last()
    begin = last - place.end[:, None]  # coordinate of the document's first row
    row = torch.arange(log_decay.shape[1], device=log_decay.device)
    current = (row >= begin) & (row < last)
    total = (log_decay.float().clamp_min(LEAST_LOG_DECAY) * current[..., None]).sum(1)
    return total if state is None else total + torch.where(begin < 0, state, 0)
