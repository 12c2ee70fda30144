"""Functions compiled by numba (the extra `cpu`), kept on disk where there is a folder for it, in one part or in several."""

import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from types import FunctionType
from zlib import crc32

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .._utils.progress import watch_numba

watch_numba()
F = np.float32
FAST = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
LANES = 16
_first = threading.Lock()
_edition = f"{crc32(Path(__file__).read_bytes()):08x}"


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
        alone, together = (
            compiled(**options, **how)(_named(function, f"{function.__name__}_{what}_{_edition}"))
            for what, how in (("alone", {}), ("together", {"parallel": True}))
        )

        def call(parts: int, *given):
            if parts == 1:
                return alone(parts, *given)
            if numba.get_num_threads() != parts:
                numba.set_num_threads(parts)
            return together(parts, *given)

        return update_wrapper(call, function)

    return decorate


def _named(function: Callable, name: str) -> Callable:
    """A copy that is kept on disk under a name of its own, with the edition of this file.

    numba looks at the file of a function to see whether what it kept is still good, not at those of what it calls.
    """
    copy = FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__, copy.__module__ = name, function.__module__
    return copy


def numbers(*shape: int) -> torch.Tensor:
    """Uninitialised float32 on the CPU, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


class _Memory:
    """A tensor as numpy reads memory, which it keeps."""

    def __init__(self, x: torch.Tensor):
        self.tensor = x
        kind = np.dtype(KINDS[x.dtype]).str
        self.__array_interface__ = {
            "data": (x.data_ptr(), False),
            "shape": tuple(x.shape),
            "typestr": kind,
            "version": 3,
        }


KINDS = {torch.float32: "f4", torch.float64: "f8", torch.int64: "i8", torch.int32: "i4", torch.bool: "b1"}


def array(x: torch.Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor where they lie.

    Not `Tensor.numpy`, which forbids the storage to be resized ever after: FSDP frees gathered weights in that way.
    """
    x = x.detach()
    return np.asarray(_Memory(x)) if x.numel() and x.dtype in KINDS else x.numpy()


def arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    """The numbers of contiguous tensors where they lie, of others copied."""
    return [array(x.contiguous()) for x in tensors]


def whole_numbers(x: torch.Tensor | None) -> torch.Tensor:
    """x (B, T) int64, or (0, 0) for None."""
    return torch.zeros(0, 0, dtype=torch.int64, device="cpu") if x is None else x


def require(holds: bool, expected: str, *tensors: torch.Tensor) -> None:
    """ValueError unless `holds`: a compiled loop does not look where it reads."""
    if not holds:
        raise ValueError(f"expected {expected}, got shapes {', '.join(str(tuple(x.shape)) for x in tensors)}")
    if any(x.dtype != torch.float32 for x in tensors):
        raise ValueError(f"expected float32, got {', '.join(str(x.dtype) for x in tensors)}")


@intrinsic
def _power(context, exponent):
    """2 to a whole number, by its bits."""

    def generate(context, builder, signature, arguments):
        whole = ir.IntType(32)
        bits = builder.shl(builder.add(builder.fptosi(arguments[0], whole), whole(127)), whole(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def _whole(context, x):
    """Towards zero."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(builder.fptosi(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def dot(context, a, b):
    """The inner product of two arrays, LANES sums side by side.

    By itself LLVM does so only where it may reorder sums, and then it chooses the order anew each time that it compiles.
    """
    if any(x.layout != "C" for x in (a, b)):
        raise TypeError(f"expected contiguous arrays, got {a} and {b}")

    def generate(context, builder, signature, arguments):
        x, y = (context.make_array(t)(context, builder, v) for t, v in zip(signature.args, arguments))
        vector, fused = ir.VectorType(ir.FloatType(), LANES), {"flags": ("contract",)}
        count = cgutils.unpack_tuple(builder, x.shape)[0]
        whole = builder.and_(count, count.type(-LANES))
        lanes = cgutils.alloca_once_value(builder, vector([0.0] * LANES))
        with cgutils.for_range_slice(builder, count.type(0), whole, count.type(LANES)) as (i, _):
            at = (builder.bitcast(builder.gep(z.data, [i]), vector.as_pointer()) for z in (x, y))
            product = builder.fmul(*(builder.load(z, align=4) for z in at), **fused)
            builder.store(builder.fadd(builder.load(lanes), product, **fused), lanes)
        total, width = builder.load(lanes), LANES
        while width > 1:
            width //= 2
            order = ir.VectorType(ir.IntType(32), width)
            halves = (ir.Constant(order, list(range(k * width, (k + 1) * width))) for k in (0, 1))
            total = builder.fadd(*(builder.shuffle_vector(total, total, half) for half in halves))
        total = cgutils.alloca_once_value(builder, builder.extract_element(total, ir.IntType(32)(0)))
        with cgutils.for_range_slice(builder, whole, count, count.type(1)) as (i, _):
            product = builder.fmul(*(builder.load(builder.gep(z.data, [i])) for z in (x, y)), **fused)
            builder.store(builder.fadd(builder.load(total), product, **fused), total)
        return builder.load(total)

    return types.float32(a, b), generate


@compiled(**FAST)
def exp(x):
    """To the last bit or two of float32, by Cephes' polynomial; NaN stays NaN."""
    x = F(-87) if x < F(-87) else x
    x = F(88) if x > F(88) else x
    turns = x * F(1.44269504)
    turns = _whole(turns + (F(0.5) if turns > F(0) else F(-0.5)))
    x = (x - turns * F(0.693359375)) + turns * F(2.12194440e-4)
    y = F(1.9875691500e-4)
    y = y * x + F(1.3981999507e-3)
    y = y * x + F(8.3334519073e-3)
    y = y * x + F(4.1665795894e-2)
    y = y * x + F(1.6666665459e-1)
    y = y * x + F(5.0000001201e-1)
    return (y * x * x + x + F(1)) * _power(turns)


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
