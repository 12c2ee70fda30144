"""Functions compiled by numba (the extra `cpu`), kept on disk where there is a folder for it, in one part or in several."""

import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from types import FunctionType

import numba
import torch
from numba import njit, prange

_first = threading.Lock()


def compiled(**options):
    """The decorator: compiled at the first call, which other Python threads need not wait for."""

    def decorate(function):
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # there is no folder to keep it in
            return njit(nogil=True, **options)(function)

    return decorate


def in_parts(**options):
    """The same for a function whose first argument is the number of parts that its `prange` runs over.

    One part is done without any pool of threads: a process that was forked from one with a pool may not have one.
    """

    def decorate(function: Callable) -> Callable:
        name = f"{function.__name__}_alone"
        alone = FunctionType(function.__code__, function.__globals__, name)
        alone.__qualname__, alone.__module__ = name, function.__module__  # kept on disk under a name of its own
        alone, together = compiled(**options)(alone), compiled(parallel=True, **options)(function)

        def call(parts: int, *given):
            if parts == 1:
                return alone(parts, *given)
            if numba.get_num_threads() != parts:
                numba.set_num_threads(parts)
            return together(parts, *given)

        return update_wrapper(call, function)

    return decorate


def require(holds: bool, expected: str, *tensors: torch.Tensor) -> None:
    """ValueError unless `holds`: a compiled loop does not look where it reads."""
    if not holds:
        raise ValueError(f"expected {expected}, got shapes {', '.join(str(tuple(x.shape)) for x in tensors)}")


@compiled(parallel=True)
def _each(n):
    total = 0
    for i in prange(n):
        total += i
    return total


@cache
def _parallel() -> bool:
    """Whether parallel loops may be called from several threads at once: numba's "workqueue" may not.

    Numba's first loop tells OpenMP, which torch may share, to use every core: what torch was told is said again.
    """
    with _first:
        before = torch.get_num_threads()
        _each(2)
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
        return numba.threading_layer() != "workqueue"


def threads() -> int:
    """In how many parts to do something: as many as torch has threads."""
    wanted = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    return wanted if wanted > 1 and _parallel() else 1
