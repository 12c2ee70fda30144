"""State-space duality, one step at a time (Mamba-2, arXiv 2405.21060).

    S_t = exp(g_t) S_{t-1} + v_t k_t^T        S: (P, N) a head
    y_t = S_t q_t

In the paper's letters: v = dt x, k = B, q = C, g = dt A. A document's first row forgets S.
"""

import torch
from torch import Tensor

from ..recurrence import Step, recurrence
from .call import SSDCall


def ssd(call: SSDCall) -> tuple[Tensor, Tensor]:
    v, k, q, log_decay, state, sequences, *_ = call
    heads = v.shape[2]
    k, q = (x.repeat_interleave(heads // x.shape[2], 2) for x in (k, q))

    def step(t: int, state: Tensor) -> Step:
        state = log_decay[:, t, :, None, None].exp() * state + v[:, t, :, :, None] * k[:, t, :, None, :]
        return (torch.einsum("bhpn,bhn->bhp", state, q[:, t]),), (state,)

    (y,), (state,) = recurrence(step, (state,), sequences, v.shape[1])
    return y, state
