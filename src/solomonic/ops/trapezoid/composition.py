"""State composition (`ops.composition`) where chunks rotate states: chunk k takes S to P_k exp(i phi_k) S + S_k.

The weights of `ops.composition` are polynomials in the P_k, which may be complex: exp(log P_k + i phi_k) for a pair.
"""

import torch
from torch import Tensor

from ..composition import weighted


def compose(states: Tensor, log_decay: Tensor, phase: Tensor, how: str) -> Tensor:
    """states (N, B, H, P, S), log_decay (N, B, H) <= 0, phase (N, B, H, M), 2 M <= S -> (B, H, P, S), in float32.

    `how` is one of `ops.composition.METHODS`. Exact but for the seams: the first row of a chunk would also have written
    the last input of the chunk before it.
    """
    M = phase.shape[-1]
    a, b, rest = states.float().split([M, M, states.shape[-1] - 2 * M], -1)
    log_decay = log_decay.float()
    left = torch.complex(log_decay[..., None].expand_as(phase), phase.float())
    pairs = weighted.compose(torch.complex(a, b), left, how)
    return torch.cat([pairs.real, pairs.imag, weighted.compose(rest, log_decay, how)], -1)
