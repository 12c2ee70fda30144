"""The scan of Mamba-3 as one scan of Mamba-2 (`ops.ssd`), in which each row writes the input of the row before it.

With u_t = sum_r x_{t,r} B_{t,r}^T, gamma_t = lambda_t Delta_t, and g_t = h_t - gamma_t u_t the state before it:

    g_t = alpha_t R_t g_{t-1} + alpha_t (gamma_{t-1} + (1 - lambda_t) Delta_t) R_t u_{t-1}
    y_t = g_t C_t + gamma_t u_t C_t

No term is a difference or a quotient, and no row depends on a later one's step. R_t moves into B and C: both are
rotated back by the sum of the angles since the call began, and the state forward by that of the whole call. A token of
rank R is R rows of the scan, of which only the first decays; the inputs of higher ranks, which come later in the scan
than rank r reads it, are added.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..sequence import Sequences
from ..ssd import ssd
from .call import TrapezoidCall
from .rotation import rotate_by, totals


def trapezoid(call: TrapezoidCall) -> tuple[Tensor, Tensor]:
    x, B, C, log_decay, step, mix, angle, state, sequences = call
    T, R = C.shape[1:3]
    total = totals(angle, sequences)
    cos, sin = (y[:, :, None] for y in (total.cos(), total.sin()))
    before, now = x[:, :-1], x[:, 1:]
    k, q = rotate_by(B[:, :-1], cos[:, :-1], -sin[:, :-1]), rotate_by(C, cos[:, 1:], -sin[:, 1:])
    gamma = pad(mix * step, (0, 0, 1, 0))
    weight = log_decay.exp() * (gamma[:, :-1] + (1 - mix) * step)
    if sequences.packed:
        weight = weight * (sequences.position != 0)[..., None]
    v, k_rows, q_rows, decay = _ranks(before, k, q, log_decay)
    y, g = ssd(v, k_rows, q_rows, decay, state, _by_rank(sequences, R), step=weight.repeat_interleave(R, 1))
    y = y.unflatten(1, (T, R))
    if R > 1:
        y = y + _read(_products(q, k).triu(1) * weight[..., None, None], before)
    y = y + _read(_products(C, B[:, 1:]) * gamma[:, 1:, :, None, None], now)
    x, B, gamma, cos, sin = (_last(y, sequences) for y in (x, B, gamma, cos, sin))
    wrote = torch.einsum("brhp,brhn->bhpn", x * gamma[:, None, :, None], B)
    return y, rotate_by(g, cos.transpose(1, 2), sin.transpose(1, 2)) + wrote


def _ranks(v: Tensor, k: Tensor, q: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, T, R, H, D) -> (B, T R, H, D), and the decays (B, T, H) of the first ranks."""
    R = v.shape[2]
    if R > 1:
        log_decay = pad(log_decay[:, :, None], (0, 0, 0, R - 1)).flatten(1, 2)
    return v.flatten(1, 2), k.flatten(1, 2), q.flatten(1, 2), log_decay


def _by_rank(sequences: Sequences, R: int) -> Sequences:
    """Of T R rows, R a token."""
    if R == 1:
        return sequences
    position = (sequences.position[..., None] * R + torch.arange(R, device=sequences.position.device)).flatten(1)
    longest = None if sequences.longest is None else sequences.longest * R
    length = None if sequences.length is None else sequences.length * R
    return replace(sequences, position=position, end=sequences.end * R, length=length, longest=longest)


def _products(q: Tensor, k: Tensor) -> Tensor:
    """Of each pair of ranks: q, k (B, T, R, H, N) -> q_r . k_s (B, T, H, R, R)."""
    if q.shape[2] == 1:
        return (q * k).sum(-1)[:, :, 0, :, None, None]
    return q.transpose(2, 3) @ k.permute(0, 1, 3, 4, 2)


def _read(weight: Tensor, x: Tensor) -> Tensor:
    """weight (B, T, H, R, R), x (B, T, R, H, P) -> sum_s weight_rs x_s."""
    if x.shape[2] == 1:
        return weight[..., 0, 0][:, :, None, :, None] * x
    return (weight @ x.transpose(2, 3)).transpose(2, 3)


def _last(x: Tensor, sequences: Sequences) -> Tensor:
    """The last real row, or the one before the call where there is none: (B, 1 + T, ...) -> (B, ...)."""
    if sequences.length is None:
        return x[:, -1]
    return x[torch.arange(len(x), device=x.device), sequences.length]
