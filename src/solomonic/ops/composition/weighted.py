"""State composition as one weighted sum: S = sum_k c_k S_k, c_k the mean over orders of what the chunks after k leave.

Every weight is a sum of products of numbers in [0, 1], without a difference or a quotient: nothing cancels, nothing
overflows, and what underflows stood beside a term of 1/N. g = log P, (N, B, H) or (N, B, H, K) like the weights.
"""

import torch
from torch import Tensor


def picaso(g: Tensor) -> Tensor:
    """c_k = integral over u in [0, 1] of  prod_{j != k} (1 - u + u P_j)

    In a random order chunk k comes at a uniform time 1 - u, each other chunk after it with probability u. Expanded in
    u this is the published (1/N) sum_i e_i(P without k) / C(N-1, i), e_i the elementary symmetric polynomials. The
    integrand has degree N - 1, for which ceil(N / 2) nodes of Gauss and Legendre are exact.
    """
    N = len(g)
    u, weight = (x.to(g).view(-1, *[1] * g.dim()) for x in _gauss_legendre((N + 1) // 2))
    left = u.flip(0) + u * g.exp()  # (nodes, N, B, H, ...); the nodes are symmetric: 1 - u is u from its other end
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1).cumprod(1)
    after = torch.cat([left[:, 1:], torch.ones_like(left[:, :1])], 1).flip(1).cumprod(1).flip(1)
    return (weight * before * after).sum(0)


def cyclic(g: Tensor) -> Tensor:
    """c_k = (1/N) sum_{i < N} P_{k+1} ... P_{k+i}, chunks counted modulo N."""
    k = torch.arange(len(g), device=g.device)
    following = g[(k[:, None] + k) % len(g)] * (k > 0).view(1, -1, *[1] * (g.dim() - 1))
    return following.cumsum(1).exp().mean(1)


def sequence(g: Tensor) -> Tensor:
    """c_k = P_{k+1} ... P_N."""
    return torch.cat([g[1:], torch.zeros_like(g[:1])]).flip(0).cumsum(0).flip(0).exp()


def soup(g: Tensor) -> Tensor:
    """c_k = 1/N."""
    return torch.full_like(g, 1 / len(g))


METHODS = {"picaso": picaso, "cyclic": cyclic, "sequence": sequence, "soup": soup}


def compose(states: Tensor, log_decay: Tensor, how: str) -> Tensor:
    c = METHODS[how](log_decay)
    return (c.view(*c.shape[:3], *[1] * (states.dim() - c.dim()), *c.shape[3:]) * states).sum(0)


def _gauss_legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes on [0, 1], ascending, and their weights, float64 (Golub and Welsch, 1969)."""
    n = torch.arange(1, nodes, dtype=torch.float64)
    beside = n / (4 * n * n - 1).sqrt()
    x, vectors = torch.linalg.eigh(beside.diag(1) + beside.diag(-1))
    return (1 + x) / 2, vectors[0].square()
