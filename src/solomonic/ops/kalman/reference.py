"""Test-time ridge regression, one step at a time (Gated KalmaNet, arXiv 2511.21016).

    H_t = exp(g_t) H_{t-1} + w_t k_t k_t^T        H: (K, K) a head, what keys there were
    U_t = exp(g_t) U_{t-1} + w_t v_t k_t^T        U: (V, K), what values came with them
    x_t = (H_t + l_t I)^-1 q_t,  l_t = RIDGE |H_t|
    y_t = U_t (q_t + a_t (x_t - q_t))

The innovation is v_t - exp(g_t) U_{t-1} (exp(g_t) H_{t-1} + l_t I)^-1 k_t. With z_t = (H_t + l_t I)^-1 k_t it equals
(v_t - U_t z_t) / (1 - w_t k_t.z_t) (Sherman and Morrison), where the divisor is at least l_t / (l_t + w_t |k_t|^2).
"""

import torch
from torch import Tensor

from ..recurrence import Step, recurrence
from .call import KalmanCall
from .chebyshev import RIDGE, solve

EPSILON = 1e-6
"""What |H| is never below: an empty memory has a solution too, and what is weaker than this counts as empty."""


def kalman(call: KalmanCall) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    q, k, v, weight, mix, log_decay, h, u, sequences, iterations, innovate = call

    def step(t: int, h: Tensor, u: Tensor) -> Step:
        keep, written = log_decay[:, t, :, None, None].exp(), (weight[:, t, :, None] * k[:, t])[..., None, :]
        h = keep * h + k[:, t, :, :, None] * written
        u = keep * u + v[:, t, :, :, None] * written
        norm = (h.square().sum((-2, -1)) + EPSILON**2).sqrt()[..., None]
        a = h / norm[..., None]
        x = solve(product, iterations, q[:, t], a) / norm
        x = q[:, t] + mix[:, t, :, None] * (x - q[:, t])
        y = torch.einsum("bhvk,bhk->bhv", u, x)
        if not innovate:
            return (y,), (h, u)
        z = solve(product, iterations, k[:, t], a) / norm
        error = v[:, t] - torch.einsum("bhvk,bhk->bhv", u, z)
        return (y, error / divisor(k[:, t], z, weight[:, t, :, None], norm)), (h, u)

    (y, *errors), (h, u) = recurrence(step, (h, u), sequences, v.shape[1])
    return y, errors[0] if innovate else None, h, u


def product(x: Tensor, a: Tensor) -> Tensor:
    return (a @ x[..., None])[..., 0]


def divisor(k: Tensor, z: Tensor, weight: Tensor, norm: Tensor) -> Tensor:
    """1 - w k.z, (..., 1), and not less than it is for the exact z: with few iterations z may be too long."""
    ridge = RIDGE * norm
    least = ridge / (ridge + weight * k.square().sum(-1, keepdim=True))
    return torch.maximum(1 - weight * (k * z).sum(-1, keepdim=True), least)
