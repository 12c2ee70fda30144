"""Functions compiled by numba (the extra `cpu`), kept on disk where there is a folder for it, and on how many threads."""

import threading
from functools import cache

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


@compiled(parallel=True)
def _each(n):
    total = 0
    for i in prange(n):
        total += i
    return total


@cache
def _parallel() -> bool:
    """Whether parallel loops may be called from several threads at once: numba's "workqueue" may not."""
    with _first:
        _each(2)
        return numba.threading_layer() != "workqueue"


def threads() -> int:
    """In how many parts to cut what numba is to do at once: as many as torch has threads."""
    wanted = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if wanted == 1 or not _parallel():
        return 1
    if numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)
    return wanted
