"""What the tasks of prediction share: the code length of a target, and rows of bits behind a token that begins them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import IGNORE, Batch

BEGIN = 2  # the token before the first bit: it, too, is predicted


def code_length(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> (B, T) float32: -log2 p(target), bits; NaN where IGNORE."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORE)
    return (nats / np.log(2)).view_as(targets).masked_fill(targets == IGNORE, torch.nan)


def rows(bits: np.ndarray, bound: np.ndarray | None = None) -> Batch:
    """(B, T) int64 bits as a Batch: each position has the bit before it, the first BEGIN."""
    tokens = np.concatenate([np.full((len(bits), 1), BEGIN), bits[:, :-1]], axis=1)
    known = None if bound is None else torch.from_numpy(bound.astype(np.float32))
    return Batch(torch.from_numpy(tokens), torch.from_numpy(np.ascontiguousarray(bits)), known)


def label(token: int) -> str:
    return "^" if token == BEGIN else str(token)
