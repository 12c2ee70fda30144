"""The delta rule with a decay for each key channel, one step at a time (arXiv 2510.26692, 2605.22791).

S' = S_{t-1} Diag(exp(g_t))    what is left, a channel at a time; S: (V, K) a head
e_t = v_t - S' p_t             what the memory got wrong at the keys to erase: the innovation
S_t = S' + e_t k_t^T
y_t = S_t q_t
"""

import torch
from torch import Tensor

from ..recurrence import Step, recurrence
from .call import ChannelDeltaCall


def channel_delta(call: ChannelDeltaCall) -> tuple[Tensor, Tensor, Tensor]:
    q, k, erase, v, log_decay, state, sequences, _ = call

    def step(t: int, state: Tensor) -> Step:
        state = log_decay[:, t, :, None].exp() * state
        error = v[:, t] - torch.einsum("bhvk,bhk->bhv", state, erase[:, t])
        state = state + error[..., None] * k[:, t, :, None, :]
        return (torch.einsum("bhvk,bhk->bhv", state, q[:, t]), error), (state,)

    (y, errors), (state,) = recurrence(step, (state,), sequences, v.shape[1])
    return y, errors, state
