"""How badly the next fading output was predicted by a short causal average, one row at a time.

p_j = mean of the last `width` outputs f_{j-width} .. f_{j-1} of the document (0 at its first row)
norm:   |f_j - p_j|          cosine:   1 - cos(f_j, p_j)
"""

import torch
from torch import Tensor

from ..sequence import Sequences


def prediction(extended: Tensor, sequences: Sequences, width: int) -> Tensor:
    rows = []
    for t in range(sequences.position.shape[1]):
        past = extended[:, t : t + width]
        lag = torch.arange(width, 0, -1, device=past.device)
        known = (lag <= sequences.position[:, t, None]).to(past.dtype)[..., None]
        rows.append((past * known).sum(1) / known.sum(1).clamp_min(1))
    return torch.stack(rows, 1)
