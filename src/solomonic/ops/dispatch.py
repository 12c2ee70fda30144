"""Which backends this machine has. Files that need numba or Triton are imported when they are first used."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

LEAST = 1 << 14
"""Numbers from which compiling pays: below it the call takes longer than the operations of torch."""
BEHIND = 3
"""How many threads of torch one compiled thread is worth. numba has only one where it finds no OpenMP or TBB."""
NO_TRITON = "the package triton is not installed"


@cache
def numba_jit() -> ModuleType | None:
    """`ops.jit`, or None where numba is not installed."""
    try:
        return import_module(".jit", __package__)
    except ImportError:
        return None


def compiled_module(package: str, backend: str = "compiled") -> ModuleType:
    """The file of that name in `package`, which numba compiles. ValueError where numba is not installed."""
    if numba_jit() is None:
        raise ValueError(f"backend {backend!r}: numba is not installed; pip install 'solomonic[cpu]'")
    return import_module(f".{backend}", package)


def compiled_function(package: str, name: str, backend: str = "compiled") -> Callable[..., Any]:
    """A function of that file, which is imported when it is called."""

    def call(*args: Any) -> Any:
        return getattr(compiled_module(package, backend), name)(*args)

    return call


def numba_serves(x: Tensor) -> bool:
    """Whether numba is installed, can be given x as it is, and has threads enough to be worth it."""
    if not x.is_cpu or torch.compiler.is_compiling() or (jit := numba_jit()) is None:
        return False
    return bool(torch.get_num_threads() <= BEHIND * jit.threads())


def compiled_pays(x: Tensor) -> bool:
    """Whether a compiled function is faster for tensors like x: float32 on a CPU, and not few."""
    return not x.is_meta and x.numel() >= LEAST and x.dtype == torch.float32 and numba_serves(x)


def triton_module(load: Callable[[], ModuleType]) -> ModuleType | None:
    """What `load` imports, a file of fused kernels, or None where Triton is not installed.

    An import statement is all that `torch.compile` follows in one graph; `import_module` is not.
    """
    try:
        return load()
    except ImportError:
        return None


def required_triton(load: Callable[[], ModuleType], instead: str) -> ModuleType:
    """As `triton_module`; ValueError, which names the backend to use instead, where Triton is not installed."""
    if (kernels := triton_module(load)) is None:
        raise ValueError(f"backend 'triton': {NO_TRITON}; pip install triton, or use backend {instead!r}")
    return kernels


__all__ = [
    "NO_TRITON",
    "compiled_function",
    "compiled_module",
    "compiled_pays",
    "numba_jit",
    "numba_serves",
    "required_triton",
    "triton_module",
]
