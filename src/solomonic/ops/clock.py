"""The clock of a fading memory: how much it has forgotten since its document began."""

import torch
from torch import Tensor

from .sequence import LEAST_LOG_DECAY, Sequences


def clock(log_decay: Tensor, state: Tensor | None, sequences: Sequences) -> Tensor:
    """Total of the log decays g <= 0 (B, T, H), as a scan applies them, over the current document: (B, H) float32.

    With a decay for each key channel g is (B, T, H, K), and totals are (B, H, K). `state` is the total before the call.
    exp(total) is what the document leaves of any state before its first row, which is all that the composition of
    states needs to know of it (`ops.composition`).
    """
    last = sequences.last()
    begin = last - sequences.end[:, None]  # coordinate of the document's first row
    row = torch.arange(log_decay.shape[1], device=log_decay.device)
    current = (row >= begin) & (row < last)
    current, goes_on = (x.view(*x.shape, *[1] * (log_decay.dim() - 2)) for x in (current, begin < 0))
    total = (log_decay.float().clamp_min(LEAST_LOG_DECAY) * current).sum(1)
    return total if state is None else total + torch.where(goes_on[:, 0], state, 0)
