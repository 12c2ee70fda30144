"""Controllability, observability and horizon of a fading memory along a text.

A head keeps S_t, a row of N numbers for each of its P values. With a_t = exp(g_t), and c_t the size of what is written,

    S_t = S_{t-1} A_t + v_t b_t^T,   y_t = S_t q_t
    A_t = a_t I,                         b_t = k_t                 (Mamba-2, Gated KalmaNet's U)
    A_t = a_t (I - beta_t k_t k_t^T),    b_t = beta_t k_t          (the delta rule)
    A_t = Diag(a_t) (I - p_t k_t^T),     b_t = k_t                 (with a decay a channel, which erases at p_t)

a system that the text changes at every token. Along that text, frozen there,

    Wc_t = A_t^T Wc_{t-1} A_t + c_t^2 b_t b_t^T          what has been written, (N, N): controllability
    Wo_t = A_{t+1} (Wo_{t+1} + q_{t+1} q_{t+1}^T) A_{t+1}^T    what will be read of what is there now: observability

and the square roots of the eigenvalues of Wc_t Wo_t are the Hankel singular values: how much of each direction is both
written before t and read after it. A direction that is not, the head has no use for there. c_t = |v_t| / sqrt(P).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .watch import Scan

SHARE = 0.99
"""The order of a head is the number of directions that hold this share of the sum of its Hankel singular values."""


@dataclass
class Gramians:
    """At rows t: controllability and observability (rows, H, N, N), Hankel singular values (rows, H, N), falling."""

    at: Tensor
    controllability: Tensor
    observability: Tensor
    hankel: Tensor

    def orders(self, share: float = SHARE) -> Tensor:
        """(rows, H): how many directions hold `share` of the sum; 0 where nothing is written that is read."""
        total = self.hankel.sum(-1, keepdim=True)
        reached = (self.hankel.cumsum(-1) < share * total).sum(-1) + 1
        return torch.where(total[..., 0] > 0, reached, 0)


def gramians(scan: Scan, every: int = 32) -> Gramians:
    """At every `every`-th row of the scan but the last, in float64. ValueError for a text of fewer rows."""
    k, q, v, g = (x.double() for x in (scan.k, scan.q, scan.v, scan.log_decay))
    T, H, N = k.shape
    keep = torch.diag_embed(g.exp() if g.dim() == 3 else g.exp()[..., None].expand(-1, -1, N))  # A_t^T
    written = k
    if scan.erase is not None:
        keep = (torch.eye(N, dtype=k.dtype) - k[..., None] * scan.erase.double()[..., None, :]) @ keep
    if scan.beta is not None:
        beta = scan.beta.double()[..., None]
        keep = keep @ (torch.eye(N, dtype=k.dtype) - (beta * k)[..., None] * k[..., None, :])
        written = beta * k
    written = written * (v.norm(dim=-1, keepdim=True) / v.shape[-1] ** 0.5)
    rows = set(range(every, T - 1, every))
    control, observe = {}, {}
    W = torch.zeros(H, N, N, dtype=k.dtype)
    for t in range(T):
        W = keep[t] @ W @ keep[t].mT + written[t][..., None] * written[t][..., None, :]
        if t in rows:
            control[t] = W
    W = torch.zeros(H, N, N, dtype=k.dtype)
    for t in range(T - 2, -1, -1):
        W = keep[t + 1].mT @ (W + q[t + 1][..., None] * q[t + 1][..., None, :]) @ keep[t + 1]
        if t in rows:
            observe[t] = W
    if not rows:
        raise ValueError(f"expected a text of more than {every + 1} tokens, got {T}")
    at = sorted(rows)
    Wc, Wo = (torch.stack([by_row[t] for t in at]) for by_row in (control, observe))
    root = _root(Wc)
    hankel = torch.linalg.eigvalsh(root @ Wo @ root).clamp_min(0).sqrt().flip(-1)
    return Gramians(torch.tensor(at), Wc, Wo, hankel)


def horizon(log_decay: Tensor, left: float) -> Tensor:
    """log_decay g <= 0 (T, H) -> (T, H) float64: after how many tokens less than `left` is left of what each row wrote.

    After s tokens exp(g_{t+1} + ... + g_{t+s}) is left; infinite where the text ends before. For the delta rule this is
    the decay alone: what is overwritten goes sooner.
    """
    T = len(log_decay)
    total = -log_decay.double().cumsum(0)  # rises
    target = total - math.log(left)
    reached = torch.searchsorted(total.T.contiguous(), target.T.contiguous()).T  # first row at which it has been lost
    lag = (reached - torch.arange(T)[:, None]).double()
    return torch.where(reached < T, lag, torch.inf)


def frozen_horizon(log_decay: Tensor, left: float) -> Tensor:
    """(H,) tokens at the mean decay along the text: log(left) / mean of g."""
    return math.log(left) / log_decay.double().mean(0)


def _root(W: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(W)
    return (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT
