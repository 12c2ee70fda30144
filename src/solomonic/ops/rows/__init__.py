"""What layers do to each row by itself, or to a row and the few before it: norms, gates, short convolutions."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ...spelling import choose
from . import reference, written

LEAST = 1 << 14
"""Numbers from which compiling pays: below it the way there takes longer than the operations of torch."""
BEHIND = 3
"""How many threads of torch a compiled one is worth. numba may have but one, where it finds no OpenMP or TBB."""
NO_TRITON = "the package triton is not installed"


@cache
def _compiled() -> ModuleType | None:
    try:
        return import_module(".compiled", __package__)
    except ImportError:
        return None


def need_compiled(name: str = "compiled") -> ModuleType:
    """ValueError where there is no numba, for the backend of that name."""
    if (found := _compiled()) is None:
        raise ValueError(f"backend {name!r}: numba is not installed; pip install 'solomonic[cpu]'")
    return found


@cache
def fused() -> ModuleType | None:
    """The fused kernels of rows, where there is a Triton."""
    try:
        return import_module(".triton", __package__)
    except ImportError:
        return None


def need_triton() -> ModuleType:
    """ValueError where there is no Triton."""
    if (found := fused()) is None:
        raise ValueError(f"backend 'triton': {NO_TRITON}; pip install triton, or use backend 'reference'")
    return found


def compiled_in(package: str, name: str, module: str = "compiled") -> Callable:
    """The function of that name in a module of a package that needs numba, which is imported when it is called."""

    def call(*given):
        need_compiled(module)
        return getattr(import_module(f".{module}", package), name)(*given)

    return call


BACKENDS: dict[str, Callable[[], ModuleType]] = {
    "reference": lambda: reference,
    "written": lambda: written,
    "compiled": need_compiled,
    "triton": need_triton,
}


def compiles(x: Tensor) -> bool:
    """Whether numba is there, can be given x as it is, and has threads enough to be worth it."""
    if not x.is_cpu or torch.compiler.is_compiling() or (found := _compiled()) is None:
        return False
    return torch.get_num_threads() <= BEHIND * found.threads()


def fastest(x: Tensor) -> str:
    """The backend for rows like x: on a CPU "compiled" where it is float32 and numba is there, else "written".

    What is small and wants no gradient is done by the definition, which has the values of "written", and less to say.
    On an accelerator "triton", where it can serve them. The definition where `torch.compile` compiles, and elsewhere.
    """
    if torch.compiler.is_compiling() or x.is_meta:
        return "reference"
    if not x.is_cpu:
        return "triton" if (found := fused()) is not None and found.refusal(x) is None else "reference"
    if x.numel() >= LEAST:
        return "compiled" if x.dtype == torch.float32 and compiles(x) else "written"
    return "written" if torch.is_grad_enabled() else "reference"


def _fused(backend: str | None, *tensors: Tensor | None) -> ModuleType | None:
    """The fused kernels, where they are asked for, or the fastest and can be given all of the tensors."""
    if backend == "triton":
        return need_triton()
    if backend is not None or fastest(tensors[0]) != "triton":
        return None
    return None if any(x is not None and fused().refusal(x) for x in tensors) else fused()


def _backend(name: str | None, x: Tensor, *others: Tensor | None) -> ModuleType:
    """The fastest that is not Triton, if no name is given; the definition for tensors of several types."""
    if name is None:
        alike = all(other is None or other.dtype == x.dtype for other in others)
        name = fastest(x) if x.is_cpu and alike else "reference"
    return choose("backend", name, BACKENDS)()


def rms_norm(x: Tensor, weight: Tensor, eps: float, backend: str | None = None) -> Tensor:
    """x (..., D) / rms(x) * weight (D,), rms(x)^2 = mean(x^2) + eps, in float32, given in x's type (arXiv 1910.07467)."""
    if found := _fused(backend, x, weight):
        return found.rms_norm(x, weight, eps)
    rows, weight = x.float(), weight.float()
    return _backend(backend, rows).rms_norm(rows, weight, eps).to(x.dtype)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float, backend: str | None = None) -> Tensor:
    """The norm of x * silu(gate), all (..., D), in float32, given in the gate's type (Mamba-2, arXiv 2405.21060)."""
    if found := _fused(backend, x, gate, weight):
        return found.gated_norm(x, gate, weight, eps)
    x, opening, weight = x.float(), gate.float(), weight.float()
    return _backend(backend, x).gated_norm(x, opening, weight, eps).to(gate.dtype)


def swiglu(gate: Tensor, up: Tensor, backend: str | None = None) -> Tensor:
    """silu(gate) * up, all (..., D) (arXiv 2002.05202)."""
    way = _fused(backend, gate, up) or _backend(backend, gate, up)
    return way.swiglu(gate, up)


def convolve(
    extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool = False, backend: str | None = None
) -> Tensor:
    """y_t = sum_n weight_n x_{t - W + 1 + n} + bias, a channel by itself, and where `activate` its silu.

    extended (B, W - 1 + T, D): the rows before, and T new ones; weight (D, W); bias (D,) -> (B, T, D).
    """
    way = _fused(backend, extended, weight, bias) or _backend(backend, extended, weight, bias)
    return way.convolve(extended, weight, bias, activate)
