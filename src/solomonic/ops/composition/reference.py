"""State composition by its definition: read the chunks in every order there is, and take the mean.

S <- P_k S + S_k        for the chunks k of one order, from S = 0
"""

from collections.abc import Iterable, Sequence
from itertools import permutations

import torch
from torch import Tensor


def compose(states: Tensor, log_decay: Tensor, how: str) -> Tensor:
    chunks = range(len(states))
    orders: dict[str, Iterable[Sequence[int]]] = {
        "picaso": permutations(chunks),
        "cyclic": [[*chunks[first:], *chunks[:first]] for first in chunks],
        "sequence": [chunks],
        "soup": [[k] for k in chunks],
    }
    S = states.new_zeros(())
    for k in torch.tensor([[*order] for order in orders[how]]).T:  # the first chunk of every order, the second, ...
        keep = log_decay[k].exp()
        S = keep.view(*keep.shape[:3], *[1] * (states.dim() - keep.dim()), *keep.shape[3:]) * S + states[k]
    return S.mean(0)
