"""Rows with their gradients written out: automatic differentiation would keep, and make, a tensor for each operation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from .reference import swiglu


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    y: Tensor = _Norm.apply(x, weight, eps)
    return y


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(x * silu(gate), weight, eps)


def convolve(extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
    y: Tensor = _Convolve.apply(extended, weight)
    if bias is not None:
        y = y + bias
    return silu(y) if activate else y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        size = x.shape[-1]
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(size).add_(ctx.eps).rsqrt_()
        normed = x * scale
        each = dy * normed
        along = (each @ weight)[..., None] / size
        return (dy * weight).addcmul_(normed, along, value=-1).mul_(scale), each.flatten(0, -2).sum(0), None


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, extended: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(extended, weight)
        past = weight.shape[1] - 1
        y = extended[:, past:] * weight[:, past]
        for lag in range(1, past + 1):
            y.addcmul_(extended[:, past - lag : -lag], weight[:, past - lag])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        extended, weight = ctx.saved_tensors
        width, T = weight.shape[1], dy.shape[1]
        dx = torch.zeros_like(extended)
        for n in range(width):
            dx[:, n : n + T].addcmul_(dy, weight[:, n])
        return dx, torch.stack([(dy * extended[:, n : n + T]).sum((0, 1)) for n in range(width)], -1)


__all__ = ["convolve", "gated_norm", "rms_norm", "swiglu"]
