"""Rows: every way to do them gives what the definition does, gradients included, whatever the strides."""

import pytest
import torch

from solomonic.ops import dispatch
from solomonic.ops.rowwise import BACKENDS, convolve, fastest, gated_norm, rms_norm, swiglu

from ..laws.cases import assert_close
from .test_backends import outputs_and_gradients

SHAPES = [(1, 1, 3), (2, 5, 8), (3, 700, 20), (1, 300, 4, 64)]
"""The larger ones are done in parts."""


def slices(*shape):
    """A slice of wider rows, and one whose last axis is not contiguous."""
    wide = torch.randn(*shape[:-1], shape[-1] + 5)[..., 2:-3]
    return [torch.randn(shape), wide, torch.randn(*shape[:-2], shape[-1], shape[-2]).mT]


ON_A_CPU = [name for name in BACKENDS if name != "triton"]  # that one: `fused_rows.py`


def check(function, *inputs, backends=ON_A_CPU):
    expected, gradients = outputs_and_gradients(lambda *x: [function(*x, backend="reference")], inputs)
    for backend in backends:
        got, got_gradients = outputs_and_gradients(lambda *x, b=backend: [function(*x, backend=b)], inputs)
        assert_close(got[0], expected[0], backend)
        for i, (a, b) in enumerate(zip(got_gradients, gradients, strict=True)):
            assert_close(a, b, f"{backend} gradient {i}")


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_and_gates(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape[-1])
    for x in slices(*shape):
        check(lambda x, w, backend: rms_norm(x, w, 1e-5, backend), x, weight)
        for gate in slices(*shape):
            check(lambda x, z, w, backend: gated_norm(x, z, w, 1e-5, backend), x, gate, weight)
            check(swiglu, x, gate)


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("width", [2, 4, 7])
@pytest.mark.parametrize("batch, length, dim", [(1, 1, 5), (3, 2, 4), (2, 700, 24), (40, 9, 70)])
def test_convolutions(batch, length, dim, width, with_bias, activate):
    check_convolution(batch, length, dim, width, with_bias, activate)


def check_convolution(batch, length, dim, width, with_bias, activate, **options):
    torch.manual_seed(0)
    x, weight = torch.randn(batch, width - 1 + length, dim), torch.randn(dim, width)
    bias = [torch.randn(dim)] if with_bias else []

    def call(x, weight, bias=None, *, backend):
        return convolve(x, weight, bias, activate, backend)

    check(call, x, weight, *bias, **options)


def test_gradients_that_are_expanded():
    """What `sum` gives has one number, of stride 0."""
    torch.manual_seed(0)
    x, weight = torch.randn(3, 900, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    expected = torch.autograd.grad(rms_norm(x, weight, 1e-5, "reference").sum(), (x, weight))
    for got, wanted in zip(torch.autograd.grad(rms_norm(x, weight, 1e-5, "compiled").sum(), (x, weight)), expected):
        assert_close(got, wanted, "gradient")


def test_many_rows_are_summed_to_the_last_digits():
    """The weight's gradient of 400,000 equal rows: one sum after the other would lose a part in ten thousand."""
    x = torch.full((400_000, 8), 0.1)
    weight = torch.ones(8, requires_grad=True)
    rms_norm(x, weight, 0.0, "compiled").backward(torch.full_like(x, 0.1))
    torch.testing.assert_close(weight.grad, torch.full((8,), 4e4), rtol=1e-5, atol=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30, -1e30, 120.0, -120.0])
def test_numbers_at_the_end_of_the_range(number):
    x = torch.zeros(9, 40)
    x[3, 5] = number
    one = torch.ones(9, 40)
    torch.testing.assert_close(swiglu(x, one, "compiled"), swiglu(x, one, "reference"), equal_nan=True)
    for a, b in zip(
        *(
            torch.autograd.grad(swiglu(y := x.clone().requires_grad_(), one, n).sum(), y)
            for n in ("compiled", "reference")
        )
    ):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_shapes_that_do_not_fit():
    """A compiled loop would read on behind the last number."""
    x, short = torch.randn(2, 9, 8), torch.randn(7)
    for call in (
        lambda: rms_norm(x, short, 1e-5, "compiled"),
        lambda: gated_norm(x, x[:, :5], torch.ones(8), 1e-5, "compiled"),
        lambda: swiglu(x, x[..., :1], "compiled"),
        lambda: convolve(x, torch.ones(7, 4), None, backend="compiled"),
        lambda: convolve(x[:, :2], torch.ones(8, 4), None, backend="compiled"),
        lambda: convolve(x, torch.ones(8, 4), short, backend="compiled"),
    ):
        with pytest.raises(ValueError, match="expected .*, got shapes .*"):
            call()


def test_which_is_the_fastest(monkeypatch):
    large = torch.zeros(dispatch.LEAST)
    assert fastest(large) == "compiled"
    assert fastest(large[:-1]) == fastest(large.double()) == "autograd"
    assert fastest(large.to("meta")) == "reference"
    with torch.no_grad():
        assert fastest(large) == "compiled" and fastest(large[:-1]) == "reference"
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 64)
        patched.setattr(dispatch.numba_jit(), "threads", lambda: 1)
        assert fastest(large) == "autograd"
    monkeypatch.setattr(dispatch, "numba_jit", lambda: None)
    assert fastest(large) == "autograd"
    with pytest.raises(ValueError, match=r"numba is not installed; pip install 'solomonic\[cpu\]'"):
        rms_norm(large, large, 1e-5, "compiled")
    with pytest.raises(ValueError, match="backend"):
        rms_norm(large, large, 1e-5, "compield")


def test_rows_of_another_type_than_the_weights():
    """Under autocast the rows may be bfloat16, and the weights are not."""
    x, weight = torch.randn(2, 3000, 8), torch.randn(8, 4)
    for inputs in ((x.bfloat16(), weight), (x, weight.bfloat16())):
        expected = convolve(*inputs, None, backend="reference")
        assert torch.equal(convolve(*inputs, None), expected)


def test_whether_gradients_are_wanted_changes_nothing():
    torch.manual_seed(0)
    x, weight = torch.randn(50, 400), torch.randn(400)
    inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.no_grad():
        alone = rms_norm(*inputs, 1e-5)
    assert torch.equal(rms_norm(*inputs, 1e-5), alone)
    assert torch.equal(rms_norm(x, weight, 1e-5), alone)


def test_defaults_of_torch_change_nothing():
    x = torch.randn(300, 64, requires_grad=True)
    expected = swiglu(x, x, "reference")
    expected_gradient = torch.autograd.grad(expected.sum(), x)[0]
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        got = swiglu(x, x, "compiled")
        gradient = torch.autograd.grad(got, x, torch.ones_like(expected))[0]
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_types_that_are_not_compiled():
    x = torch.randn(300, 64)
    with pytest.raises(ValueError, match="expected float32, got torch.float64"):
        swiglu(x.double(), x.double(), "compiled")
    assert torch.equal(swiglu(x, x.double()), swiglu(x, x.double(), "reference"))
