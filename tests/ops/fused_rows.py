"""The fused rows against the definition, in Triton's interpreter.

Not collected by itself: `test_triton.py` runs it in a process whose TRITON_INTERPRET is set before triton is imported.
"""

import pytest
import torch

from solomonic.ops.rotary import Rotation, rotate
from solomonic.ops.rowwise import convolve, gated_norm, rms_norm, swiglu
from solomonic.ops.rowwise import triton as fused

from ..laws.cases import assert_close
from .test_backends import outputs_and_gradients
from .test_rows import check, check_convolution, slices

TRITON = ["triton"]


def norm(x, weight, backend):
    return rms_norm(x, weight, 1e-5, backend)


def gated(x, gate, weight, backend):
    return gated_norm(x, gate, weight, 1e-5, backend)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 8), (3, 90, 70), (1, 30, 4, 64), (2, 2, 4500)])
def test_norms_and_gates(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape[-1])
    for x in slices(*shape):
        check(norm, x, weight, backends=TRITON)
        for gate in slices(*shape):
            check(gated, x, gate, weight, backends=TRITON)
            check(swiglu, x, gate, backends=TRITON)


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("width", [2, 4, 7])
@pytest.mark.parametrize("batch, length, dim", [(1, 1, 5), (3, 2, 4), (2, 70, 24), (20, 9, 70)])
def test_convolutions(batch, length, dim, width, with_bias, activate):
    check_convolution(batch, length, dim, width, with_bias, activate, backends=TRITON)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("heads, dim", [(1, 2), (3, 10), (2, 64)])
def test_rotations(batch, heads, dim):
    torch.manual_seed(0)
    cos, sin = Rotation().table(torch.arange(batch)[:, None] * 9 + torch.arange(40), dim)
    for x in slices(3, 40, heads, dim):
        expected, gradients = outputs_and_gradients(lambda x: [rotate(x, cos, sin)], [x])
        got, got_gradients = outputs_and_gradients(lambda x: [fused.rotate(x, cos, sin)], [x])
        assert_close(got[0], expected[0], "y")
        assert_close(got_gradients[0], gradients[0], "gradient")


def test_more_rows_than_programs(monkeypatch):
    monkeypatch.setattr("solomonic.ops.rowwise.triton.PARTS", 3)
    torch.manual_seed(0)
    check(norm, torch.randn(2, 300, 64), torch.randn(64), backends=TRITON)
    check(gated, torch.randn(600, 64), torch.randn(600, 64), torch.randn(64), backends=TRITON)

    def call(x, weight, bias, backend):
        return convolve(x, weight, bias, True, backend)

    check(call, torch.randn(2, 150, 6), torch.randn(6, 4), torch.randn(6), backends=TRITON)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30, -1e30, 120.0, -120.0])
def test_numbers_at_the_end_of_the_range(number):
    x, one = torch.zeros(9, 40), torch.ones(9, 40)
    x[3, 5] = number
    got = swiglu(x, one, "triton")
    torch.testing.assert_close(got, swiglu(x, one, "reference"), equal_nan=True)


def test_an_eps_of_nothing():
    check(lambda x, w, backend: rms_norm(x, w, 0.0, backend), torch.ones(5, 64), torch.ones(64), backends=TRITON)


def test_types():
    """Computed in float32 from what is given; norms are given in the type of the rows or the gate, others in the wider."""
    torch.manual_seed(0)
    x, gate, weight = torch.randn(40, 24), torch.randn(40, 24).bfloat16(), torch.randn(24)
    for inputs, function in (((gate, weight), norm), ((gate, weight.bfloat16()), norm), ((x, gate, weight), gated)):
        got, expected = function(*inputs, "triton"), function(*inputs, "reference")
        assert got.dtype == expected.dtype == torch.bfloat16
        assert_close(got.float(), expected.float(), "y", 2**-7)
    extended, taps = gate.view(2, 20, 24), torch.randn(24, 4)
    narrow = taps.bfloat16()
    for inputs in ((extended, taps, None), (extended, narrow, None), (extended, narrow, weight)):
        got, expected = convolve(*inputs, True, "triton"), convolve(*inputs, True, "reference")
        assert got.dtype == expected.dtype
        assert_close(got.float(), expected.float(), "y", 2**-6)


def test_no_rows():
    x, weight = torch.empty(0, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    for y in (rms_norm(x, weight, 1e-5, "triton"), swiglu(x, x, "triton"), gated_norm(x, x, weight, 1e-5, "triton")):
        y.sum().backward()
    taps = torch.ones(8, 4, requires_grad=True)
    for shape in ((2, 3, 8), (0, 9, 8)):
        convolve(torch.empty(shape, requires_grad=True), taps, weight, True, "triton").sum().backward()
    assert x.grad.shape == x.shape and not weight.grad.any() and not taps.grad.any()


def test_what_they_cannot_serve_is_done_by_the_definition(monkeypatch):
    monkeypatch.setattr("solomonic.ops.rowwise.fastest", lambda x: "triton")
    x, weight = torch.randn(4, 8), torch.randn(8)
    assert rms_norm(x, weight.double(), 1e-5).dtype == torch.float32
    assert swiglu(x, x.double()).dtype == convolve(x[None], torch.ones(8, 2).double(), None).dtype == torch.float64


def test_what_they_cannot_serve():
    x, weight = torch.randn(2, 9, 8), torch.ones(8)
    with pytest.raises(
        ValueError, match="backend 'triton': expected float32, .*, got torch.float64; backend 'reference'"
    ):
        swiglu(x.double(), x.double(), "triton")
    with pytest.raises(ValueError, match="expected rows of 1 to 16384 numbers, got 20000"):
        swiglu(torch.zeros(1, 20000), torch.zeros(1, 20000), "triton")
    for call in (
        lambda: rms_norm(x, weight[:7], 1e-5, "triton"),
        lambda: gated_norm(x, x[:, :5], weight, 1e-5, "triton"),
        lambda: swiglu(x, x[..., :1], "triton"),
        lambda: convolve(x, torch.ones(7, 4), None, backend="triton"),
        lambda: convolve(x[:, :2], torch.ones(8, 4), None, backend="triton"),
        lambda: convolve(x, torch.ones(8, 4), weight[:7], backend="triton"),
    ):
        with pytest.raises(ValueError, match="expected .*, got shapes .*"):
            call()
