"""Test-time ridge regression by chunks: Chebyshev's method (arXiv 2511.21016) for all rows at once. It needs products
with H_t alone, and those are two masked products a chunk, with no H_t ever formed:

    H_t x = exp(G_t) H x + sum_{s <= t} exp(G_t - G_s) w_s k_s (k_s.x),   G = cumsum(g), H the chunk's incoming state

    |H_t|^2 = exp(2 g_t) |H_{t-1}|^2 + c_t,   c_t = w_t (2 k_t.H_t k_t - w_t |k_t|^4)

The solver works on A = H_t / |H_t|, so that its ridge is a number.

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head.
"""

import torch
from torch import Tensor

from ..chunks import cut, decays, rows
from . import reference
from .call import KalmanCall
from .chebyshev import solve
from .reference import EPSILON, divisor


def kalman(call: KalmanCall, chunk: int = 32) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    q, k, v, weight, mix, log_decay, h, u, sequences, iterations, innovate = call
    T, V = v.shape[1], v.shape[3]
    if T == 1:
        return reference.kalman(call)
    if (real := sequences.real()) is not None:
        weight = weight * real[:, :, None]
        log_decay = log_decay * real[:, :, None]
    (q, k, v), (weight, mix, log_decay), document = cut((q, k, v), (weight, mix, log_decay), sequences, chunk)
    C = k.shape[1]
    decay, into, onward, keep = decays(log_decay, document)
    into, weight, mix = into[..., None], weight[..., None], mix[..., None]
    weighed = decay * weight.mT

    added = torch.cat([k, v], -1).mT @ (onward[..., None] * weight * k)  # b c h (K + V) K
    memory, incoming = torch.cat([h, u], -2), []
    for c in range(C):
        incoming.append(memory)
        memory = keep[:, c, :, None, None] * memory + added[:, c]
    h, u = torch.stack(incoming, 1).split([k.shape[-1], V], -2)

    moment, length = (k * _product(k, into, weighed, k, h)).sum(-1, keepdim=True), k.square().sum(-1, keepdim=True)
    change = weight * (2 * moment - weight * length.square())
    norm = into.square() * h.square().sum((-2, -1))[..., None, None] + decay.square() @ change
    norm = (norm + EPSILON**2).sqrt()
    x = solve(_product, iterations, torch.stack([q, k]) if innovate else q[None], into / norm, weighed / norm, k, h)
    x = torch.stack([q + mix * (x[0] / norm - q), *(x[1:] / norm)])
    read = _read(x, into, weighed, k, u, v)
    errors = (v - read[1]) / divisor(k, x[1], weight, norm) if innovate else None

    h, u = memory.split([k.shape[-1], V], -2)
    return rows(read[0], T), None if errors is None else rows(errors, T), h.clone(), u.clone()  # not two views of one


def _read(x: Tensor, into: Tensor, weighed: Tensor, k: Tensor, state: Tensor, value: Tensor) -> Tensor:
    """M_t x_t of the memory M that had `state` as the chunk began, and was given `value` for k since."""
    return into * (x @ state.mT) + ((x @ k.mT) * weighed) @ value


def _product(x: Tensor, into: Tensor, weighed: Tensor, k: Tensor, h: Tensor) -> Tensor:
    return _read(x, into, weighed, k, h, k)
