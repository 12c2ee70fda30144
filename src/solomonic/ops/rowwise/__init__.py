"""What layers do to each row by itself, or to a row and the few before it: norms, gates, short convolutions."""

from collections.abc import Callable
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from . import autograd, reference


def load_triton() -> ModuleType:
    from . import triton

    return triton


class Backend(Protocol):
    """What each backend's file defines; the functions below say what they compute."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...
    def gated_norm(self, x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor: ...
    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor: ...
    def convolve(self, extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor: ...


BACKENDS: dict[str, Callable[[], Backend]] = {
    "reference": lambda: reference,
    "autograd": lambda: autograd,
    "compiled": lambda: dispatch.compiled_module(__name__),
    "triton": lambda: dispatch.required_triton(load_triton, "reference"),
}


def fastest(x: Tensor) -> str:
    """The backend for rows like x: on a CPU "compiled" where it is float32 and numba is there, else "autograd".

    What is small and wants no gradient is done by the definition, which has the values of "autograd", at less overhead.
    On an accelerator "triton", where it can serve them. The definition where `torch.compile` compiles, and elsewhere.
    """
    if torch.compiler.is_compiling() or x.is_meta:
        return "reference"
    if not x.is_cpu:
        return "triton" if _serves(x) else "reference"
    if x.numel() >= dispatch.LEAST:
        return "compiled" if dispatch.compiled_pays(x) else "autograd"
    return "autograd" if torch.is_grad_enabled() else "reference"


def _serves(*tensors: Tensor | None) -> bool:
    kernels = dispatch.triton_module(load_triton)
    return kernels is not None and not any(x is not None and kernels.refusal(x) for x in tensors)


def _fused(backend: str | None, x: Tensor, *others: Tensor | None) -> Backend | None:
    """The fused kernels, where they are asked for, or the fastest and can be given all of the tensors."""
    if backend == "triton":
        return dispatch.required_triton(load_triton, "reference")
    if backend is not None or fastest(x) != "triton":
        return None
    return dispatch.triton_module(load_triton) if _serves(x, *others) else None


def _backend(name: str | None, x: Tensor, *others: Tensor | None) -> Backend:
    """The fastest that is not Triton, if no name is given; the definition for tensors of several types."""
    if name is None:
        alike = all(other is None or other.dtype == x.dtype for other in others)
        name = fastest(x) if x.is_cpu and alike else "reference"
    return choose("backend", name, BACKENDS)()


def rms_norm(x: Tensor, weight: Tensor, eps: float, backend: str | None = None) -> Tensor:
    """x (..., D) / rms(x) * weight (D,), rms(x)^2 = mean(x^2) + eps, in float32, given in x's type (arXiv 1910.07467)."""
    if kernels := _fused(backend, x, weight):
        return kernels.rms_norm(x, weight, eps)
    rows, weight = x.float(), weight.float()
    return _backend(backend, rows).rms_norm(rows, weight, eps).to(x.dtype)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float, backend: str | None = None) -> Tensor:
    """The norm of x * silu(gate), all (..., D), in float32, given in the gate's type (Mamba-2, arXiv 2405.21060)."""
    if kernels := _fused(backend, x, gate, weight):
        return kernels.gated_norm(x, gate, weight, eps)
    x, opening, weight = x.float(), gate.float(), weight.float()
    return _backend(backend, x).gated_norm(x, opening, weight, eps).to(gate.dtype)


def swiglu(gate: Tensor, up: Tensor, backend: str | None = None) -> Tensor:
    """silu(gate) * up, all (..., D) (arXiv 2002.05202)."""
    backend_module = _fused(backend, gate, up) or _backend(backend, gate, up)
    return backend_module.swiglu(gate, up)


def convolve(
    extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool = False, backend: str | None = None
) -> Tensor:
    """y_t = sum_n weight_n x_{t - W + 1 + n} + bias, a channel by itself, and where `activate` its silu.

    extended (B, W - 1 + T, D): the rows before, and T new ones; weight (D, W); bias (D,) -> (B, T, D).
    """
    backend_module = _fused(backend, extended, weight, bias) or _backend(backend, extended, weight, bias)
    return backend_module.convolve(extended, weight, bias, activate)
