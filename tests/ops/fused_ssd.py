"""The fused scan of Mamba-2 against the definition, in Triton's interpreter.

Not collected by itself: `test_triton.py` runs it in a process whose TRITON_INTERPRET is set before triton is imported.
"""

from dataclasses import replace

import pytest
import torch

from solomonic.ops.ssd import ssd

from ..laws.cases import assert_close
from .sequences import KINDS, sequences_of
from .test_backends import BATCH, compare, outputs_and_gradients, ssd_inputs

BOTH = ["reference", "triton"]


def whole(*arguments, backend):
    *inputs, step, skip, sequences = arguments
    return ssd(*inputs, sequences, backend, step=step, skip=skip)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [2, 31, 70])
def test_scan(length, kind):
    compare(ssd, BOTH, ssd_inputs(length, kind != "fresh"), sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [5, 70])
def test_with_a_step_and_a_skip(length, kind):
    inputs = [*ssd_inputs(length, kind != "fresh"), torch.rand(BATCH, length, 4), torch.randn(4)]
    compare(whole, BOTH, inputs, sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("heads, groups, value, key", [(1, 1, 16, 16), (6, 3, 34, 18), (2, 2, 3, 40)])
def test_sizes(heads, groups, value, key):
    shapes = (heads, value), (groups, key), (groups, key)
    v, k, q = (torch.randn(2, 40, *shape) for shape in shapes)
    inputs = [v, k, q, -torch.rand(2, 40, heads), torch.randn(2, heads, value, key), torch.rand(2, 40, heads)]
    compare(whole, BOTH, [*inputs, torch.randn(heads)], sequences_of("continued", 2, 40))


def test_slices_of_wider_rows():
    """As the layer gives them: values, keys and queries side by side."""
    wide = torch.randn(2, 50, 4 * 8 + 2 * 6)
    decay, sequences = -torch.rand(2, 50, 4), sequences_of("fresh", 2, 50)

    def call(wide, backend):
        v, k, q = wide.split((32, 6, 6), -1)
        return ssd(v.unflatten(-1, (4, 8)), k[:, :, None], q[:, :, None], decay, None, sequences, backend)

    expected, got = (outputs_and_gradients(lambda x, b=b: call(x, b), [wide]) for b in BOTH)
    for a, b in zip((*got[0], *got[1]), (*expected[0], *expected[1])):
        assert_close(a, b, "output or gradient", floor=0.1)


def test_bfloat16():
    """Products of numbers of 8 bits, sums of 24: a few roundings of 2^-9 of the largest."""
    sequences, inputs = sequences_of("packed", BATCH, 70), ssd_inputs(70, True)
    arguments = [x.bfloat16() for x in inputs[:3]] + inputs[3:]
    expected = outputs_and_gradients(lambda *x: ssd(*x, sequences, "reference"), [x.float() for x in arguments])
    got = outputs_and_gradients(lambda *x: ssd(*x, sequences, "triton"), arguments)
    for i, (a, b) in enumerate(zip((*got[0], *got[1]), (*expected[0], *expected[1]))):
        assert_close(a.float(), b, f"tensor {i}", 2**-6, floor=0.1)
    assert got[0][0].dtype == got[0][1].dtype == torch.float32 and got[1][0].dtype == torch.bfloat16


def test_compiles_in_one_graph():
    sequences, inputs = sequences_of("packed", BATCH, 40), [x.requires_grad_() for x in ssd_inputs(40, True)]

    def loss(*inputs):
        y, state = ssd(*inputs, sequences, "triton")
        return y.square().sum() + state.sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    got = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(*inputs), inputs)
    for i, (a, b) in enumerate(zip(got, expected)):
        assert_close(a, b, f"gradient {i}")


@pytest.mark.parametrize("which", [0, 1])
def test_only_one_of_both_is_differentiated(which):
    sequences, inputs = sequences_of("continued", BATCH, 20), [x.requires_grad_() for x in ssd_inputs(20, True)]
    expected, got = (
        torch.autograd.grad(ssd(*inputs, sequences, b)[which].square().sum(), inputs, allow_unused=True) for b in BOTH
    )
    for i, (a, b) in enumerate(zip(got, expected)):
        assert_close(a, torch.zeros_like(a) if b is None else b, f"gradient {i}", floor=0.1)


def test_decays_of_a_document_that_has_ended():
    """What comes after it has no part in them: nothing is added that is to cancel."""
    inputs = [x.requires_grad_() for x in ssd_inputs(40, False)[:4]]
    sequences = sequences_of("fresh", BATCH, 40)
    sequences = replace(
        sequences, position=(sequences.position - 20 * (sequences.position >= 20)), aligned=False, packed=True
    )
    y, _ = ssd(*inputs, None, sequences, "triton")
    decay = torch.autograd.grad(y[:, 20:].square().sum(), inputs)[3]
    assert decay[:, :21].abs().max() < 1e-5 * decay.abs().max()


def test_a_half_that_would_overflow():
    """States and products of float16 leave its range."""
    v = torch.full((1, 70, 1, 16), 16.0).half()
    decay, sequences = torch.zeros(1, 70, 1), sequences_of("fresh", 1, 70)
    got, expected = (ssd(v, v, v, decay, None, sequences, b) for b in ("triton", "reference"))
    assert expected[0].max() > 66000
    for a, b in zip(got, expected):
        assert_close(a, b, "output or state")


def test_a_state_of_another_type():
    inputs, sequences = ssd_inputs(20, True), sequences_of("continued", BATCH, 20)
    inputs[4] = inputs[4].bfloat16()
    got, expected = (ssd(*inputs, sequences, b) for b in ("triton", "reference"))
    assert_close(got[1], expected[1].float(), "state")


def test_no_rows():
    inputs = [x.requires_grad_() for x in ssd_inputs(0, True)]
    y, state = ssd(*inputs, sequences_of("fresh", BATCH, 0), "triton")
    (y.sum() + (2 * state).sum()).backward()
    assert torch.equal(state, inputs[4]) and (inputs[4].grad == 2).all()


@pytest.mark.parametrize("wrong", range(5))
def test_shapes_that_do_not_fit(wrong):
    arguments = ssd_inputs(40, True)
    arguments[wrong] = arguments[wrong][:, :-1]
    with pytest.raises(ValueError, match="expected .*, got shapes .*"):
        ssd(*arguments, sequences_of("fresh", BATCH, 40), "triton")


def test_what_it_cannot_serve():
    sequences = sequences_of("fresh", 1, 9)
    v, k, decay = torch.randn(1, 9, 1, 140), torch.randn(1, 9, 1, 8), torch.zeros(1, 9, 1)
    with pytest.raises(
        ValueError, match="expected values and keys of 128 dims at most, got 140 and 8; backend 'chunked'"
    ):
        ssd(v, k, k, decay, None, sequences, "triton")
    with pytest.raises(ValueError, match="got torch.float64"):
        ssd(*(x.double() for x in (v[..., :8], k, k)), decay, None, sequences, "triton")
