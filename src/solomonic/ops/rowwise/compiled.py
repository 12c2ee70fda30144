"""Rows as numba compiles them: each is read once and written once, in as many parts as torch has threads.

Loops write to one array each, and division follows numpy: else they are not vectorised. Rows lie `step` numbers apart in
an array without axes.
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..jit import FAST, array, arrays, compiled, dot, exp, in_parts, numbers, require, threads

F = np.float32
LEAST = 1 << 14  # numbers a part


@compiled(**FAST)
def _sigmoid(x):
    return F(1) / (F(1) + exp(-x))


@compiled(**FAST)
def _settle(r, hi, partial, total):
    """Adds the `partial` sum to the `total` (float64), after 256 rows and at the last: a long sum loses digits."""
    if r % 256 == 255 or r == hi - 1:
        for c in range(partial.size):
            total.flat[c] += partial.flat[c]
            partial.flat[c] = F(0)


@in_parts(**FAST)
def _norm(parts, rows, x, step, weight, eps, y):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        D = len(weight)
        for r in range(lo, hi):
            a, out = x[r * step : r * step + D], y[r * D : r * D + D]
            scale = F(1) / np.sqrt(dot(a, a) / F(D) + eps)
            for c in range(D):
                out[c] = a[c] * scale * weight[c]


@in_parts(**FAST)
def _norm_back(parts, rows, x, step, weight, eps, dy, dy_step, dx, dweight):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        D, partial, weighed = len(weight), np.zeros(len(weight), F), np.empty(len(weight), F)
        for r in range(lo, hi):
            a, g, out = x[r * step : r * step + D], dy[r * dy_step : r * dy_step + D], dx[r * D : r * D + D]
            for c in range(D):
                weighed[c] = g[c] * weight[c]
            scale = F(1) / np.sqrt(dot(a, a) / F(D) + eps)
            along = dot(weighed, a) * scale * scale / F(D)
            for c in range(D):
                out[c] = scale * (weighed[c] - along * a[c])
            for c in range(D):
                partial[c] += g[c] * a[c] * scale
            _settle(r, hi, partial, dweight[part])


@in_parts(**FAST)
def _gated(parts, rows, x, step, z, z_step, weight, eps, y):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        D = len(weight)
        for r in range(lo, hi):
            a, gate, out = x[r * step : r * step + D], z[r * z_step : r * z_step + D], y[r * D : r * D + D]
            for c in range(D):
                out[c] = a[c] * gate[c] * _sigmoid(gate[c])
            scale = F(1) / np.sqrt(dot(out, out) / F(D) + eps)
            for c in range(D):
                out[c] *= scale * weight[c]


@in_parts(**FAST)
def _gated_back(parts, rows, x, step, z, z_step, weight, eps, dy, dy_step, dx, dz, dweight):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        D = len(weight)
        open_, u, du, partial = np.empty(D, F), np.empty(D, F), np.empty(D, F), np.zeros(D, F)
        for r in range(lo, hi):
            a, gate, g = x[r * step : r * step + D], z[r * z_step : r * z_step + D], dy[r * dy_step : r * dy_step + D]
            for c in range(D):
                open_[c] = _sigmoid(gate[c])
            for c in range(D):
                u[c] = a[c] * gate[c] * open_[c]
            for c in range(D):
                du[c] = g[c] * weight[c]
            scale = F(1) / np.sqrt(dot(u, u) / F(D) + eps)
            along = dot(du, u) * scale * scale / F(D)
            for c in range(D):
                du[c] = scale * (du[c] - along * u[c])
            for c in range(D):
                partial[c] += g[c] * u[c] * scale
            _settle(r, hi, partial, dweight[part])
            out = dx[r * D : r * D + D]
            for c in range(D):
                out[c] = du[c] * gate[c] * open_[c]
            out = dz[r * D : r * D + D]
            for c in range(D):
                out[c] = du[c] * a[c] * open_[c] * (F(1) + gate[c] * (F(1) - open_[c]))


@in_parts(**FAST)
def _swiglu(parts, rows, D, gate, gate_step, up, up_step, y):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        for r in range(lo, hi):
            a, b = gate[r * gate_step : r * gate_step + D], up[r * up_step : r * up_step + D]
            out = y[r * D : r * D + D]
            for c in range(D):
                out[c] = a[c] * _sigmoid(a[c]) * b[c]


@in_parts(**FAST)
def _swiglu_back(parts, rows, D, gate, gate_step, up, up_step, dy, dy_step, dgate, dup):
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        open_ = np.empty(D, F)
        for r in range(lo, hi):
            a, b = gate[r * gate_step : r * gate_step + D], up[r * up_step : r * up_step + D]
            g = dy[r * dy_step : r * dy_step + D]
            for c in range(D):
                open_[c] = _sigmoid(a[c])
            out = dup[r * D : r * D + D]
            for c in range(D):
                out[c] = g[c] * a[c] * open_[c]
            out = dgate[r * D : r * D + D]
            for c in range(D):
                out[c] = g[c] * b[c] * open_[c] * (F(1) + a[c] * (F(1) - open_[c]))


@compiled(**FAST)
def _convolved(x, first, weight, bias, out):
    """Of the rows of x from `first` on."""
    W, D = weight.shape
    for c in range(D):
        out[c] = bias[c]
    for n in range(W):
        a, w = x[first + n], weight[n]
        for c in range(D):
            out[c] += w[c] * a[c]


@in_parts(**FAST)
def _convolve(parts, T, x, weight, bias, activate, y):
    rows = len(y)
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        past = len(weight) - 1
        for r in range(lo, hi):
            out = y[r]
            _convolved(x, r // T * (T + past) + r % T, weight, bias, out)
            if activate:
                for c in range(len(out)):
                    out[c] *= _sigmoid(out[c])


@in_parts(**FAST)
def _convolve_back(parts, T, x, weight, bias, activate, dy, dy_step, dx, dweight):
    """Rows lo .. hi of dx. A row of x is seen by W rows of y, whose gradients go round in `ring`."""
    rows = len(dx)
    for part in prange(parts):
        lo, hi = rows * part // parts, rows * (part + 1) // parts
        W, D = weight.shape
        length = T + W - 1
        ring, y = np.zeros((W, D), F), np.empty(D, F)
        partial = np.zeros((W + 1, D), F)  # the last of the bias
        for at in range(lo, hi):
            batch, e = at // length, at % length
            if e == 0:
                ring[:] = F(0)
            for t in range(max(e - W + 1, 0) if at == lo else e, e + 1):
                change = ring[t % W]
                if t >= T:
                    change[:] = F(0)
                    continue
                r = (batch * T + t) * dy_step
                g = dy[r : r + D]
                if activate:
                    _convolved(x, batch * length + t, weight, bias, y)
                    for c in range(D):
                        open_ = _sigmoid(y[c])
                        change[c] = g[c] * open_ * (F(1) + y[c] * (F(1) - open_))
                else:
                    for c in range(D):
                        change[c] = g[c]
            if e < T:
                change, out = ring[e % W], partial[W]
                for c in range(D):
                    out[c] += change[c]
                for n in range(W):
                    a, out = x[at + n], partial[n]
                    for c in range(D):
                        out[c] += change[c] * a[c]
            _settle(at, hi, partial, dweight[part])
            out = dx[at]
            for c in range(D):
                out[c] = F(0)
            for n in range(W):
                change, w = ring[(e - n) % W], weight[n]
                for c in range(D):
                    out[c] += change[c] * w[c]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    require(weight.shape == x.shape[-1:], "rows (..., D) and weight (D,)", x, weight)
    return _Norm.apply(x, weight, eps)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    require(
        x.shape == gate.shape and weight.shape == x.shape[-1:], "rows and gate (..., D), weight (D,)", x, gate, weight
    )
    return _Gated.apply(x, gate, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    require(gate.shape == up.shape, "two tensors of one shape", gate, up)
    return _SwiGLU.apply(gate, up)


def convolve(extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
    fits = extended.dim() == 3 and weight.dim() == 2 and extended.shape[2] == weight.shape[0]
    fits = fits and extended.shape[1] >= weight.shape[1] and (bias is None or bias.shape == weight.shape[:1])
    require(
        fits, "rows (B, W - 1 + T, D), weight (D, W), bias (D,)", extended, weight, *([] if bias is None else [bias])
    )
    return _Convolve.apply(extended, weight, bias, activate)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        y = _like(x)
        _norm(_parts(x), y[..., 0].numel(), *_rows(x), _numbers(weight), F(eps), _numbers(y).ravel())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        parts, dx = _parts(x), _like(x)
        dweight = np.zeros((parts, *weight.shape))
        inputs = (*_rows(x), _numbers(weight), F(ctx.eps), *_rows(dy), _numbers(dx).ravel(), dweight)
        _norm_back(parts, dx[..., 0].numel(), *inputs)
        return dx, _sum(dweight), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, gate, weight)
        ctx.eps = eps
        y = _like(x)
        inputs = (*_rows(x), *_rows(gate), _numbers(weight), F(eps), _numbers(y).ravel())
        _gated(_parts(x), y[..., 0].numel(), *inputs)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gate, weight = ctx.saved_tensors
        parts, dx, dgate = _parts(x), _like(x), _like(gate)
        dweight = np.zeros((parts, *weight.shape))
        inputs = (*_rows(x), *_rows(gate), _numbers(weight), F(ctx.eps), *_rows(dy))
        out = (_numbers(dx).ravel(), _numbers(dgate).ravel(), dweight)
        _gated_back(parts, dx[..., 0].numel(), *inputs, *out)
        return dx, dgate, _sum(dweight), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        y = _like(gate)
        inputs = (gate.shape[-1], *_rows(gate), *_rows(up), _numbers(y).ravel())
        _swiglu(_parts(gate), y[..., 0].numel(), *inputs)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        dgate, dup = _like(gate), _like(up)
        inputs = (gate.shape[-1], *_rows(gate), *_rows(up), *_rows(dy), _numbers(dgate).ravel(), _numbers(dup).ravel())
        _swiglu_back(_parts(gate), dup[..., 0].numel(), *inputs)
        return dgate, dup


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, extended: Tensor, weight: Tensor, bias: Tensor | None, activate: bool) -> Tensor:
        ctx.save_for_backward(extended, weight, bias)
        ctx.activate = activate
        B, length, D = extended.shape
        T = length - weight.shape[1] + 1
        y = extended.new_empty(B, T, D)
        inputs = (_flat(extended), _by_lag(weight), _bias(bias, D), activate)
        _convolve(_parts(y), T, *inputs, _flat(y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        extended, weight, bias = ctx.saved_tensors
        (_, T, D), parts, dx = dy.shape, _parts(dy), _like(extended)
        dweight = np.zeros((parts, weight.shape[1] + 1, D))
        inputs = (_flat(extended), _by_lag(weight), _bias(bias, D), ctx.activate, *_rows(dy))
        _convolve_back(parts, T, *inputs, _flat(dx), dweight)
        dweight = _sum(dweight)
        return dx, dweight[:-1].t(), None if bias is None else dweight[-1], None


def _parts(x: Tensor) -> int:
    return max(1, min(threads(), x.numel() // LEAST))


def _like(x: Tensor) -> Tensor:
    return numbers(*x.shape)


def _numbers(x: Tensor) -> np.ndarray:
    return arrays(x)[0]


def _flat(x: Tensor) -> np.ndarray:
    """(rows, D) of (..., D)."""
    return _numbers(x).reshape(-1, x.shape[-1])


def _rows(x: Tensor) -> tuple[np.ndarray, int]:
    """The numbers of (..., D) where they lie, and how far apart two rows are."""
    x = x.detach().reshape(-1, x.shape[-1])
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, D = x.shape
    return array(x.as_strided(((rows - 1) * x.stride(0) + D,), (1,))), x.stride(0)


def _sum(parts: np.ndarray) -> Tensor:
    return torch.from_numpy(parts.sum(0)).float()


def _by_lag(weight: Tensor) -> np.ndarray:
    return _numbers(weight.detach().t())


def _bias(bias: Tensor | None, D: int) -> np.ndarray:
    return np.zeros(D, F) if bias is None else _numbers(bias)


__all__ = ["convolve", "gated_norm", "rms_norm", "swiglu"]
