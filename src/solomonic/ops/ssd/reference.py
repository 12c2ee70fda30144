"""State-space duality, one step at a time (Mamba-2, arXiv 2405.21060).

    S_t = exp(g_t) S_{t-1} + v_t k_t^T        S: (P, N) a head
    y_t = S_t q_t

In the paper's letters: v = dt x, k = B, q = C, g = dt A. A document's first row forgets S.
"""

import torch
from torch import Tensor

from .call import SSDCall


def ssd(call: SSDCall) -> tuple[Tensor, Tensor]:
    v, k, q, log_decay, state, sequences, *_ = call
    heads = v.shape[2]
    k, q = (x.repeat_interleave(heads // x.shape[2], 2) for x in (k, q))
    document, real = sequences.document(), sequences.real()
    out = []
    for t in range(v.shape[1]):
        before = state
        if document is not None:
            state = torch.where((sequences.position[:, t] == 0)[:, None, None, None], 0, state)
        state = log_decay[:, t, :, None, None].exp() * state + v[:, t, :, :, None] * k[:, t, :, None, :]
        out.append(torch.einsum("bhpn,bhn->bhp", state, q[:, t]))
        if real is not None:
            state = torch.where(real[:, t, None, None, None], state, before)
    return torch.stack(out, 1), state
