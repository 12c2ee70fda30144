"""Rows as fused kernels for a GPU: each is read once and written once, in its own type, and computed in float32.

N rows of D numbers, `step` apart. A program does BR rows at a time, all of their BD >= D columns where rows are summed
along. Weights' gradients are sums over rows: each of `PARTS` programs sums its own, so that two runs give the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..triton import load, store, type_refusal

LARGEST = 16384
PARTS = 512
TILE = 4096  # numbers that a program holds at once


def refusal(x: Tensor) -> str | None:
    """Why these kernels cannot serve rows like x (..., D), or None where they can."""
    if not 1 <= x.shape[-1] <= LARGEST:
        return f"expected rows of 1 to {LARGEST} numbers, got {x.shape[-1]}"
    return type_refusal(x)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    _require(weight.shape == x.shape[-1:], "rows (..., D) and weight (D,)", x, weight)
    return _Norm.apply(x, None, weight, eps)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    fits = x.shape == gate.shape and weight.shape == x.shape[-1:]
    _require(fits, "rows and gate (..., D), weight (D,)", x, gate, weight)
    return _Norm.apply(x, gate, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    _require(gate.shape == up.shape, "two tensors of one shape", gate, up)
    return _SwiGLU.apply(gate, up)


def convolve(extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
    fits = extended.dim() == 3 and weight.dim() == 2 and extended.shape[2] == weight.shape[0]
    fits = fits and extended.shape[1] >= weight.shape[1] - 1 and (bias is None or bias.shape == weight.shape[:1])
    tensors = (extended, weight) if bias is None else (extended, weight, bias)
    _require(fits, "rows (B, W - 1 + T, D), weight (D, W), bias (D,)", *tensors)
    return _Convolve.apply(extended, weight, bias, activate)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `ops.rotary.rotate`."""
    fits = x.dim() == 4 and cos.shape == sin.shape and 2 * cos.shape[-1] == x.shape[3]
    fits = fits and len(cos) in (1, len(x)) and cos.shape[1] == x.shape[1]
    _require(fits, "rows (B, T, H, D), cosines and sines (B or 1, T, D / 2)", x, cos, sin)
    return _Rotate.apply(x, cos.contiguous(), sin.contiguous())


def _require(fits: bool, expected: str, *tensors: Tensor) -> None:
    """ValueError unless `fits`: a kernel does not look where it reads."""
    if not fits:
        raise ValueError(f"expected {expected}, got shapes {', '.join(str(list(x.shape)) for x in tensors)}")
    for x in tensors:
        if reason := refusal(x):
            raise ValueError(f"backend 'triton': {reason}; backend 'reference' serves every call")


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gate: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, gate, weight)
        ctx.eps = eps
        y = _like(x if gate is None else gate)
        _normed(x, gate, weight.contiguous(), eps, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None]:
        x, gate, weight = ctx.saved_tensors
        dx, dgate = _like(x), None if gate is None else _like(gate)
        return dx, dgate, _normed_back(x, gate, weight, ctx.eps, dy, dx, dgate), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        y = _like(gate)
        _gated(gate, up, None, y, None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dgate, dup = _like(gate), _like(up)
        _gated(gate, up, dy, dgate, dup)
        return dgate, dup


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
        extended = extended.contiguous()
        ctx.save_for_backward(extended, weight, bias)
        ctx.activate = activate
        (B, length, D), W = extended.shape, weight.shape[1]
        kind = torch.result_type(extended, weight)
        kind = kind if bias is None else torch.promote_types(kind, bias.dtype)
        y = extended.new_empty(B, length - W + 1, D, dtype=kind)
        _convolved(extended, weight, bias, activate, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        extended, weight, bias = ctx.saved_tensors
        dy = dy.contiguous()
        change = torch.empty_like(dy) if ctx.activate else dy
        sums = _convolved(extended, weight, bias, ctx.activate, change, dy)
        dx = torch.empty_like(extended)
        _spread(change, weight, dx)
        dbias = None if bias is None else sums[-1].to(bias.dtype)
        return dx, sums[:-1].t().to(weight.dtype), dbias, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None]:
        return _rotate(dy, *ctx.saved_tensors, back=True), None, None


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """(N, D) whose rows are each contiguous, and how far apart they are."""
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    return rows, rows.stride(0)


def _tile(D: int, most: int = TILE) -> dict[str, int]:
    width = triton.next_power_of_2(D)
    return {"BR": max(1, most // width), "BD": width, "num_warps": 8 if width > most else 4}


def _normed(x: Tensor, gate: Tensor | None, weight: Tensor, eps: float, y: Tensor) -> None:
    (x, step), (z, z_step) = _rows(x), (None, 0) if gate is None else _rows(gate)
    (N, D), tile = x.shape, _tile(x.shape[1])
    if N:
        with torch.cuda.device_of(x):
            _norm_kernel[(triton.cdiv(N, tile["BR"]),)](x, z, weight, y, N, step, z_step, eps, D=D, **tile)


def _normed_back(x, gate, weight, eps, dy, dx, dgate) -> Tensor:
    """Writes dx and dgate; returns the gradient of the weight."""
    (x, step), (z, z_step), (dy, dy_step) = _rows(x), (None, 0) if gate is None else _rows(gate), _rows(dy)
    (N, D), tile = x.shape, _tile(x.shape[1], TILE // 2)
    parts = max(1, min(PARTS, triton.cdiv(N, tile["BR"])))
    dweight = x.new_empty(parts, D, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _norm_back_kernel[(parts,)](
            *(x, z, weight.contiguous(), dy, dx, dgate, dweight, N, step, z_step, dy_step, eps),
            D=D,
            PARTS=parts,
            **tile,
        )
    return dweight.sum(0).to(weight.dtype)


def _gated(gate: Tensor, up: Tensor, dy: Tensor | None, y: Tensor, dup: Tensor | None) -> None:
    """Writes y; given dy, the gradients: of the gate to y, and dup."""
    (gate, step), (up, up_step), (dy, dy_step) = _rows(gate), _rows(up), (None, 0) if dy is None else _rows(dy)
    N, D = gate.shape
    width = min(triton.next_power_of_2(D), 1024)
    if N:
        rows = max(1, TILE // 2 // width)
        with torch.cuda.device_of(gate):
            _swiglu_kernel[(triton.cdiv(N, rows), triton.cdiv(D, width))](
                *(gate, up, dy, y, dup, N, step, up_step, dy_step), D=D, BR=rows, BD=width, num_warps=4
            )


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, activate: bool, y: Tensor, dy=None) -> Tensor | None:
    """Writes y; given dy, the gradient before `activate` to y, and returns those of weight and bias, (W + 1, D) float32."""
    (B, T, D), W = y.shape, weight.shape[1]
    rows, width = 32, min(triton.next_power_of_2(D), 128)
    tiles, blocks = B * triton.cdiv(T, rows), triton.cdiv(D, width)
    parts = tiles if dy is None else max(1, min(PARTS, tiles))
    sums = None if dy is None else x.new_zeros(parts, W + 1, D, dtype=torch.float32)
    if tiles:
        with torch.cuda.device_of(x):
            _convolve_kernel[(parts, blocks)](
                *(x, weight.contiguous(), bias, dy, y, sums, B, T, D),
                ACTIVATE=activate,
                W=W,
                BW=triton.next_power_of_2(W + 1),
                PARTS=parts,
                BR=rows,
                BD=width,
                num_warps=4,
            )
    return None if sums is None else sums.sum(0)


def _spread(change: Tensor, weight: Tensor, dx: Tensor) -> None:
    (B, length, D), W = dx.shape, weight.shape[1]
    rows, width = 32, min(triton.next_power_of_2(D), 128)
    if dx.numel():
        with torch.cuda.device_of(dx):
            _spread_kernel[(B * triton.cdiv(length, rows), triton.cdiv(D, width))](
                *(change, weight.contiguous(), dx, length, D), W=W, BR=rows, BD=width, num_warps=4
            )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    y, heads = _like(x), x.shape[2]
    rows, step = _rows(x)
    (N, D), width = rows.shape, triton.next_power_of_2(x.shape[3] // 2)
    if N:
        count = max(1, TILE // 2 // width)
        with torch.cuda.device_of(x):
            _rotate_kernel[(triton.cdiv(N, count),)](
                *(rows, cos, sin, y, N, step, heads, cos.shape[0] * cos.shape[1]),
                D=D,
                BACK=back,
                BR=count,
                BD=width,
                num_warps=4,
            )
    return y


@triton.jit
def _load(x, row, step, inside, D: tl.constexpr, BD: tl.constexpr):
    return load(x, row, step, inside, D, BD).to(tl.float32)


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _norm_kernel(x, z, weight, y, N, step, z_step, eps, D: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr):
    """y = norm of x, or of x silu(z)."""
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    inside, d = row < N, tl.arange(0, BD)
    a = _load(x, row, step, inside, D, BD)
    if z is not None:
        gate = _load(z, row, z_step, inside, D, BD)
        a *= gate * _sigmoid(gate)
    scale = tl.rsqrt(tl.sum(a * a, 1) / D + eps)
    w = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    store(y, row, D, inside, a * scale[:, None] * w[None, :], D, BD)


@triton.jit
def _norm_back_kernel(
    x,
    z,
    weight,
    dy,
    dx,
    dz,
    dweight,
    N,
    step,
    z_step,
    dy_step,
    eps,
    D: tl.constexpr,
    PARTS: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
):
    d = tl.arange(0, BD)
    w = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    sum_ = tl.zeros([BR, BD], tl.float32)
    for first in range(tl.program_id(0) * BR, N, PARTS * BR):
        row = first + tl.arange(0, BR).to(tl.int64)
        inside = row < N
        a, g = _load(x, row, step, inside, D, BD), _load(dy, row, dy_step, inside, D, BD)
        u = a
        if z is not None:
            gate = _load(z, row, z_step, inside, D, BD)
            open_ = _sigmoid(gate)
            u = a * gate * open_
        scale = tl.where(inside, tl.rsqrt(tl.sum(u * u, 1) / D + eps), 0.0)[:, None]
        u *= scale
        sum_ += g * u
        g *= w[None, :]
        du = scale * (g - u * (tl.sum(g * u, 1) / D)[:, None])
        if z is not None:
            store(dx, row, D, inside, du * gate * open_, D, BD)
            store(dz, row, D, inside, du * a * open_ * (1 + gate * (1 - open_)), D, BD)
        else:
            store(dx, row, D, inside, du, D, BD)
    tl.store(dweight + tl.program_id(0) * D + d, tl.sum(sum_, 0), mask=d < D)


@triton.jit
def _swiglu_kernel(
    gate, up, dy, y, dup, N, step, up_step, dy_step, D: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    mask = (row < N)[:, None] & (d < D)[None, :]
    a = tl.load(gate + row[:, None] * step + d[None, :], mask=mask, other=0.0).to(tl.float32)
    b = tl.load(up + row[:, None] * up_step + d[None, :], mask=mask, other=0.0).to(tl.float32)
    open_, out = _sigmoid(a), row[:, None] * D + d[None, :]
    if dy is None:
        tl.store(y + out, (a * open_ * b).to(y.dtype.element_ty), mask=mask)
    else:
        g = tl.load(dy + row[:, None] * dy_step + d[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(y + out, (g * b * open_ * (1 + a * (1 - open_))).to(y.dtype.element_ty), mask=mask)
        tl.store(dup + out, (g * a * open_).to(dup.dtype.element_ty), mask=mask)


@triton.jit
def _rotate_kernel(
    x, cos, sin, y, N, step, heads, angles, D: tl.constexpr, BACK: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr
):
    """Rows of `heads` heads; the `angles` of the first rows are those of all others in turn."""
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    inside, half = row < N, D // 2
    a, b = _load(x, row, step, inside, half, BD), _load(x + half, row, step, inside, half, BD)
    angle = row // heads % angles
    c, s = _load(cos, angle, half, inside, half, BD), _load(sin, angle, half, inside, half, BD)
    if BACK:
        s = -s
    store(y, row, D, inside, a * c - b * s, half, BD)
    store(y + half, row, D, inside, b * c + a * s, half, BD)


@triton.jit
def _convolve_kernel(
    x,
    weight,
    bias,
    dy,
    y,
    sums,
    B,
    T,
    D,
    ACTIVATE: tl.constexpr,
    W: tl.constexpr,
    BW: tl.constexpr,
    PARTS: tl.constexpr,
    BR: tl.constexpr,
    BD: tl.constexpr,
):
    """BR rows and BD channels at a time. Given dy: y is the gradient before the activation; sums, of weight and bias."""
    d, tap = tl.program_id(1) * BD + tl.arange(0, BD), tl.arange(0, BW)
    there = d < D
    tiles = tl.cdiv(T, BR)
    sum_ = tl.zeros([BW, BD], tl.float32)
    for tile in range(tl.program_id(0), B * tiles, PARTS):
        batch, t = (tile // tiles).to(tl.int64), tile % tiles * BR + tl.arange(0, BR)
        mask = (t < T)[:, None] & there[None, :]
        row = batch * (T + W - 1) + t
        pre = tl.zeros([BR, BD], tl.float32)
        if bias is not None:
            pre += tl.load(bias + d, mask=there, other=0.0).to(tl.float32)[None, :]
        if ACTIVATE or dy is None:
            for n in tl.static_range(W):
                a = tl.load(x + (row + n)[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
                pre += a * tl.load(weight + d * W + n, mask=there, other=0.0).to(tl.float32)[None, :]
        out = (batch * T + t)[:, None] * D + d[None, :]
        if dy is None:
            if ACTIVATE:
                pre *= _sigmoid(pre)
            tl.store(y + out, pre.to(y.dtype.element_ty), mask=mask)
        else:
            change = tl.load(dy + out, mask=mask, other=0.0).to(tl.float32)
            if ACTIVATE:
                open_ = _sigmoid(pre)
                change *= open_ * (1 + pre * (1 - open_))
                tl.store(y + out, change.to(y.dtype.element_ty), mask=mask)
            sum_ += tl.where(tap[:, None] == W, tl.sum(change, 0)[None, :], 0.0)
            for n in tl.static_range(W):
                a = tl.load(x + (row + n)[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
                sum_ += tl.where(tap[:, None] == n, tl.sum(change * a, 0)[None, :], 0.0)
    if dy is not None:
        at = (tl.program_id(0) * (W + 1) + tap)[:, None] * D + d[None, :]
        tl.store(sums + at, sum_, mask=(tap <= W)[:, None] & there[None, :])


@triton.jit
def _spread_kernel(change, weight, dx, length, D, W: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr):
    """dx_e = sum_n weight_n change_{e - n}."""
    d, tiles = tl.program_id(1) * BD + tl.arange(0, BD), tl.cdiv(length, BR)
    batch, e = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * BR + tl.arange(0, BR)
    T, there = length - W + 1, d < D
    sum_ = tl.zeros([BR, BD], tl.float32)
    for n in tl.static_range(W):
        t = e - n
        mask = ((t >= 0) & (t < T))[:, None] & there[None, :]
        g = tl.load(change + (batch * T + t)[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32)
        sum_ += g * tl.load(weight + d * W + n, mask=there, other=0.0).to(tl.float32)[None, :]
    mask = (e < length)[:, None] & there[None, :]
    tl.store(dx + (batch * length + e)[:, None] * D + d[None, :], sum_.to(dx.dtype.element_ty), mask=mask)


__all__ = ["convolve", "gated_norm", "refusal", "rms_norm", "rotate", "swiglu"]
