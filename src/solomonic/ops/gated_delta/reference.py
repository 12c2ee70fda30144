"""The gated delta rule, one step at a time (Gated DeltaNet, arXiv 2412.06464).

e_t = v_t - exp(g_t) S_{t-1} k_t          what the memory got wrong: the innovation
S_t = exp(g_t) S_{t-1} + b_t e_t k_t^T    S: (V, K) a head
y_t = S_t q_t
"""

import torch
from torch import Tensor

from .call import DeltaCall


def gated_delta(call: DeltaCall) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, beta, log_decay, state, sequences, _ = call
    real = sequences.real()
    out, errors = [], []
    for t in range(v.shape[1]):
        before = state
        if sequences.packed:
            state = torch.where((sequences.position[:, t] == 0)[:, None, None, None], 0, state)
        state = log_decay[:, t, :, None, None].exp() * state
        error = v[:, t] - torch.einsum("bhvk,bhk->bhv", state, k[:, t])
        state = state + (beta[:, t, :, None] * error)[..., None] * k[:, t, :, None, :]
        out.append(torch.einsum("bhvk,bhk->bhv", state, q[:, t]))
        errors.append(error)
        if real is not None:
            state = torch.where(real[:, t, None, None, None], state, before)
    return torch.stack(out, 1), torch.stack(errors, 1), state
