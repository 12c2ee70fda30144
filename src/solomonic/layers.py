"""Layers that mixers and blocks are made of."""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .ops.place import Place, advance, extend


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        kind, weight = x.dtype, self.weight.float()
        x = x.float()
        if x.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _Norm.apply(x, weight, self.eps).to(kind)
        return nn.functional.rms_norm(x, x.shape[-1:], weight, self.eps).to(kind)


class _Norm(torch.autograd.Function):
    """The same with its gradient written out: torch's, on a CPU, is of every operation that its norm is made of."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        size = x.shape[-1]
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(size).add_(ctx.eps).rsqrt_()
        normed = x * scale
        each = dy * normed
        along = (each @ weight)[..., None] / size
        return (dy * weight).addcmul_(normed, along, value=-1).mul_(scale), each.flatten(0, -2).sum(0), None


class GatedRMSNorm(RMSNorm):
    """RMSNorm of x * silu(gate), each of `groups` parts by itself, as in Mamba-2.

    `norm_first` norms x alone and gates after, as in Gated DeltaNet. Takes and gives (..., dim), in x's type.
    """

    def __init__(self, dim: int, groups: int = 1, norm_first: bool = False, eps: float = 1e-5):
        super().__init__(dim, eps)
        self.groups, self.norm_first = groups, norm_first

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        gate = nn.functional.silu(gate.float())
        y = x.float() if self.norm_first else x.float() * gate
        if self.groups == 1:
            y = super().forward(y)
        else:
            parts = y.unflatten(-1, (self.groups, -1))
            y = nn.functional.rms_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * self.weight.float()
        return (y * gate if self.norm_first else y).to(x.dtype)


class ShortConvolution(nn.Module):
    """Depthwise causal convolution y_t = sum_l w_l x_{t-l} + bias over `width` rows of one document.

    `weight` (D, 1, width) is laid out as in `torch.nn.Conv1d`: its last column weighs the present row.
    """

    def __init__(self, dim: int, width: int = 4, bias: bool = False):
        super().__init__()
        self.dim, self.width = dim, width
        self.weight = nn.Parameter(torch.empty(dim, 1, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def init_state(self, batch: int, device=None, dtype=None) -> Tensor:
        return torch.zeros(batch, self.width - 1, self.dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Tensor | None, place: Place) -> tuple[Tensor, Tensor]:
        """(B, T, D), the (B, width - 1, D) rows before -> (B, T, D), rows."""
        T, past = x.shape[1], self.width - 1
        extended = extend(state, x, past)
        if place.packed or T == 1 or not extended.is_cpu or extended.dtype != self.weight.dtype:
            y = x * self.weight[:, 0, past]
            for lag in range(1, self.width):
                row = extended[:, past - lag : past - lag + T]
                if place.packed:
                    row = torch.where((place.position >= lag)[..., None], row, 0)
                y = y + row * self.weight[:, 0, past - lag]
        else:
            y = _Convolve.apply(extended, self.weight[:, 0])
        return y if self.bias is None else y + self.bias, advance(extended, place, past)


class _Convolve(torch.autograd.Function):
    """The same without its intermediate results: `extended` (B, width - 1 + T, D), `weight` (D, width) -> (B, T, D)."""

    @staticmethod
    def forward(ctx, extended: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(extended, weight)
        past = weight.shape[1] - 1
        y = extended[:, past:] * weight[:, past]
        for lag in range(1, past + 1):
            y.addcmul_(extended[:, past - lag : -lag], weight[:, past - lag])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        extended, weight = ctx.saved_tensors
        width, T = weight.shape[1], dy.shape[1]
        dx = torch.zeros_like(extended)
        for n in range(width):
            dx[:, n : n + T].addcmul_(dy, weight[:, n])
        return dx, torch.stack([(dy * extended[:, n : n + T]).sum((0, 1)) for n in range(width)], -1)


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x) (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))
