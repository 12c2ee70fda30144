"""Layers that mixers and blocks are made of."""

import torch
from torch import Tensor, nn
from torch.types import Device

from .ops import rowwise
from .ops.sequence import Sequences, advance, extend


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rowwise.rms_norm(x, self.weight, self.eps)


class GatedRMSNorm(nn.Module):
    """RMSNorm of x * silu(gate), each of `groups` parts by itself, as in Mamba-2.

    `norm_first` norms x alone and gates after, as in Gated DeltaNet. Takes and gives (..., dim), in the gate's type.
    """

    def __init__(self, dim: int, groups: int = 1, norm_first: bool = False, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps, self.groups, self.norm_first = eps, groups, norm_first

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        if self.groups == 1 and not self.norm_first:
            return rowwise.gated_norm(x, gate, self.weight, self.eps)
        kind, x, gate, weight = gate.dtype, x.float(), gate.float(), self.weight.float()
        gate = nn.functional.silu(gate)
        y = x if self.norm_first else x * gate
        if self.groups == 1:
            y = rowwise.rms_norm(y, weight, self.eps)
        else:
            parts = y.unflatten(-1, (self.groups, -1))
            y = nn.functional.rms_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * weight
        return (y * gate if self.norm_first else y).to(kind)


class ShortConvolution(nn.Module):
    """Depthwise causal convolution y_t = sum_l w_l x_{t-l} + bias over `width` rows of one document; `activate`: its silu.

    `weight` (D, 1, width) is laid out as in `torch.nn.Conv1d`: its last column weighs the present row.
    """

    def __init__(self, dim: int, width: int = 4, bias: bool = False, activate: bool = False):
        super().__init__()
        self.dim, self.width, self.activate = dim, width, activate
        self.weight = nn.Parameter(torch.empty(dim, 1, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def init_state(self, batch: int, device: Device = None, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(batch, self.width - 1, self.dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Tensor | None, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """(B, T, D), the (B, width - 1, D) rows before -> (B, T, D), rows."""
        T, past = x.shape[1], self.width - 1
        extended = extend(state, x, past)
        after = advance(extended, sequences, past)
        weight = self.weight[:, 0]
        if not sequences.packed:
            return rowwise.convolve(extended, weight, self.bias, self.activate), after
        y = x * weight[:, past]
        for lag in range(1, self.width):
            row = extended[:, past - lag : past - lag + T]
            y = y + torch.where((sequences.position >= lag)[..., None], row, 0) * weight[:, past - lag]
        if self.bias is not None:
            y = y + self.bias
        return nn.functional.silu(y) if self.activate else y, after


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x) (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(rowwise.swiglu(self.gate(x), self.up(x)))
        return y
