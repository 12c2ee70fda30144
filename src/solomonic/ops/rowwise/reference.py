"""Rows by their definitions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm(x * silu(gate), weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


def convolve(extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
    width = weight.shape[1]
    T = extended.shape[1] - width + 1
    y = extended[:, width - 1 :] * weight[:, width - 1]
    for n in reversed(range(width - 1)):
        y = torch.addcmul(y, extended[:, n : n + T], weight[:, n])
    if bias is not None:
        y = y + bias
    return silu(y) if activate else y
