"""The scan of Mamba-3, one step at a time (arXiv 2603.15569): exponential-trapezoidal, complex, of rank R.

    h_t = alpha_t R_t h_{t-1} + beta_t R_t u_{t-1} + gamma_t u_t        h: (P, N) a head
    y_{t,r} = h_t C_{t,r}                                               u_t = sum_r x_{t,r} B_{t,r}^T

alpha_t = exp(Delta_t A_t), beta_t = (1 - lambda_t) Delta_t alpha_t, gamma_t = lambda_t Delta_t. R_t rotates pair m of
the state by Delta_t theta_{t,m}: alpha_t R_t is exp(Delta_t (A_t + i theta_t)) of a complex state, in real numbers. The
first row of a document forgets h and the row before it.
"""

import torch
from torch import Tensor

from .call import TrapezoidCall
from .rotation import rotate


def trapezoid(call: TrapezoidCall) -> tuple[Tensor, Tensor]:
    x, B, C, log_decay, step, mix, angle, state, sequences = call
    document, real = sequences.document(), sequences.real()
    h, wrote, out = state, _outer(x[:, 0], B[:, 0]), []
    for t in range(C.shape[1]):
        before = h
        if document is not None:
            first = (sequences.position[:, t] == 0)[:, None, None, None]
            h, wrote = (torch.where(first, 0, y) for y in (h, wrote))
        alpha, delta, part = (y[:, t, :, None, None] for y in (log_decay.exp(), step, mix))
        h = alpha * rotate(h + (1 - part) * delta * wrote, angle[:, t, :, None])
        wrote = _outer(x[:, t + 1], B[:, t + 1])
        h = h + part * delta * wrote
        out.append(torch.einsum("bhpn,brhn->brhp", h, C[:, t]))
        if real is not None:
            h = torch.where(real[:, t, None, None, None], h, before)
    return torch.stack(out, 1), h


def _outer(x: Tensor, B: Tensor) -> Tensor:
    return torch.einsum("brhp,brhn->bhpn", x, B)
