"""What the fused kernels have in common: what they can serve, how they read and write rows, and their products."""

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = triton.knobs.runtime.interpret
"""Whether kernels run in Triton's interpreter, on the CPU (TRITON_INTERPRET=1 before the first import of triton)."""


def type_refusal(x: Tensor) -> str | None:
    """Why kernels cannot be given x, or None where they can."""
    if x.dtype not in DTYPES:
        return f"expected float32, bfloat16 or float16, got {x.dtype}"
    if x.device.type != "cuda" and not INTERPRETED:
        return f"expected tensors on a CUDA device, got {x.device.type} (TRITON_INTERPRET=1 interprets it there)"
    return None


def products_refusal(x: Tensor) -> str | None:
    """Why kernels with products of matrices cannot be given x, or None where they can."""
    if (reason := type_refusal(x)) or INTERPRETED:
        return reason
    major = torch.cuda.get_device_properties(x.device).major
    return None if major >= 8 else f"expected a device of compute capability 8.0 or more, got one of {major}"


@triton.jit
def load(x, row, step, inside, D: tl.constexpr, BD: tl.constexpr):
    """Rows of D numbers, `step` apart -> (rows, BD), zeros where not `inside`."""
    d = tl.arange(0, BD)
    return tl.load(x + row[:, None] * step + d[None, :], mask=inside[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def store(x, row, step, inside, value, D: tl.constexpr, BD: tl.constexpr):
    """Writes (rows, BD) as rows of D numbers, `step` apart, where `inside`."""
    d = tl.arange(0, BD)
    mask = inside[:, None] & (d[None, :] < D)
    tl.store(x + row[:, None] * step + d[None, :], value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def product(a, b, WIDE: tl.constexpr):
    """a b in float32. `WIDE`: the interpreter multiplies no bfloat16, so that it is made float32 first.

    Of float32, three products of tf32 keep the digits: plain tf32 loses 13 of 24 bits.
    """
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="tf32x3")


def wide(dtype: torch.dtype) -> bool:
    """`WIDE` of products of numbers of this type."""
    return INTERPRETED and dtype != torch.float32
