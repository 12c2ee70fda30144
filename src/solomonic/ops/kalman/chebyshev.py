"""Chebyshev's method for (A + RIDGE I) x = q, where A is symmetric with eigenvalues in [0, 1] (arXiv 2511.21016).

    s = 2 / (2 RIDGE + 1), rho = 1 / (2 RIDGE + 1), x_0 = s q, w = 2
    w <- 1 / (1 - rho^2 w / 4),   x <- w x - s w ((A + RIDGE I) x - q) - (w - 1) x_prev

After n steps what is left of q, q - (A + RIDGE I) x, is at most 2 c^(n + 1) of it, c = 0.755.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import widest

RIDGE = 0.02
STEP, RHO = 2 / (2 * RIDGE + 1), 1 / (2 * RIDGE + 1)


def solve(product: Callable[..., Tensor], iterations: int, q: Tensor, *operands: Tensor) -> Tensor:
    """x in the shape of q; `product(x, *operands)` is A x.

    The gradient is that of the solution, (A + RIDGE I) dx = dq - dA x, by the method once more on the way back. It keeps
    no steps, and it is as near to the exact one as x to the solution. Inside, all is float64 where the device has it: a
    gradient of the memory is a product of two solutions, and each may be 1 / RIDGE = 50 times as long as what it solves.
    """
    kind, wide = q.dtype, widest(q.device)
    q, operands = q.to(wide), tuple(x.to(wide) for x in operands)
    with torch.no_grad():
        x = _chebyshev(product, iterations, q, operands)
    if not torch.is_grad_enabled():
        return x.to(kind)
    solution: Tensor = _Solution.apply(q - product(x, *operands), x, product, iterations, *operands)
    return solution.to(kind)


class _Solution(torch.autograd.Function):
    """x, as a function of what its equation is moved by."""

    @staticmethod
    def forward(
        ctx: Any, moved: Tensor, x: Tensor, product: Callable[..., Tensor], iterations: int, *operands: Tensor
    ) -> Tensor:
        ctx.product, ctx.iterations = product, iterations
        ctx.save_for_backward(*operands)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        operands = ctx.saved_tensors  # once: a checkpoint gives them no second time
        z = _chebyshev(ctx.product, ctx.iterations, gradient, operands)
        return z, None, None, None, *(None for _ in operands)


def _chebyshev(product: Callable[..., Tensor], iterations: int, q: Tensor, operands: tuple[Tensor, ...]) -> Tensor:
    """The method, written for its steps d and what is left of q.

    Where A is of low rank, as early in a document, x is up to 1 / RIDGE = 50 times as long as the part of it that lies
    in A's range. A product with x would round that part away; products with the steps shrink as they do. For the same
    reason x is summed with what its roundings lost (Kahan): ten times less error in a model's gradients.
    """
    x = d = STEP * q
    lost: Tensor | int = 0
    left, w = q, 2.0
    for _ in range(iterations):
        left = left - (product(d, *operands) + RIDGE * d)
        w = 1 / (1 - RHO**2 * w / 4)
        d = (w - 1) * d + STEP * w * left
        more = d - lost
        grown = x + more
        lost = (grown - x) - more
        x = grown
    return x
