"""The gated delta rule, one step at a time (Gated DeltaNet, arXiv 2412.06464).

e_t = v_t - exp(g_t) S_{t-1} k_t          what the memory got wrong: the innovation
S_t = exp(g_t) S_{t-1} + b_t e_t k_t^T    S: (V, K) a head
y_t = S_t q_t
"""

import torch
from torch import Tensor

from ..recurrence import Step, recurrence
from .call import DeltaCall


def gated_delta(call: DeltaCall) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, beta, log_decay, state, sequences, _ = call

    def step(t: int, state: Tensor) -> Step:
        state = log_decay[:, t, :, None, None].exp() * state
        error = v[:, t] - torch.einsum("bhvk,bhk->bhv", state, k[:, t])
        state = state + (beta[:, t, :, None] * error)[..., None] * k[:, t, :, None, :]
        return (torch.einsum("bhvk,bhk->bhv", state, q[:, t]), error), (state,)

    (y, errors), (state,) = recurrence(step, (state,), sequences, v.shape[1])
    return y, errors, state
