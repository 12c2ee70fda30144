"""Chebyshev's method for (A + RIDGE I) x = q, where A is symmetric with eigenvalues in [0, 1] (arXiv 2511.21016).

    s = 2 / (2 RIDGE + 1), rho = 1 / (2 RIDGE + 1), x_0 = s q, w = 2
    w <- 1 / (1 - rho^2 w / 4),   x <- w x - s w ((A + RIDGE I) x - q) - (w - 1) x_prev

After n steps what is left of q, q - (A + RIDGE I) x, is at most 2 c^(n + 1) of it, c = 0.755.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RIDGE = 0.02
STEP, RHO = 2 / (2 * RIDGE + 1), 1 / (2 * RIDGE + 1)


def solve(product: Callable[..., Tensor], iterations: int, q: Tensor, *operands: Tensor) -> Tensor:
    """x in the shape of q; `product(x, *operands)` is A x.

    The gradient is that of the solution, by a second one: z = (A + RIDGE I)^-1 dL/dx, dL/dq = z, dL/dA = -z x^T. It
    keeps no steps, and it is as near to the exact one as x to the solution.
    """
    return _Solve.apply(product, iterations, q, *operands)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, product, iterations, q, *operands):
        ctx.product, ctx.iterations = product, iterations
        x = _chebyshev(product, iterations, q, operands)
        ctx.save_for_backward(x, *operands)
        return x

    @staticmethod
    def backward(ctx, gradient):
        x, *operands = ctx.saved_tensors
        z = _chebyshev(ctx.product, ctx.iterations, gradient, operands)
        with torch.enable_grad():
            operands = [t.detach().requires_grad_() for t in operands]
            y = ctx.product(x, *operands)
        return None, None, z, *torch.autograd.grad(y, operands, -z)


def _chebyshev(product: Callable[..., Tensor], iterations: int, q: Tensor, operands: list[Tensor]) -> Tensor:
    """The method, written for its steps d and what is left of q.

    Where A is of low rank, as early in a document, x is up to 1 / RIDGE = 50 times as long as the part of it that lies
    in A's range. A product with x would round that part away; products with the steps shrink as they do. For the same
    reason x is summed with what its roundings lost (Kahan): ten times less error in a model's gradients.
    """
    x = d = STEP * q
    left, lost, w = q, 0, 2.0
    for _ in range(iterations):
        left = left - (product(d, *operands) + RIDGE * d)
        w = 1 / (1 - RHO**2 * w / 4)
        d = (w - 1) * d + STEP * w * left
        more = d - lost
        grown = x + more
        lost = (grown - x) - more
        x = grown
    return x
