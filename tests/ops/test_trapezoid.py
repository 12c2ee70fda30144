"""The scan of Mamba-3: the fast path equals the definition, gradients included; special cases; long streams."""

import pytest
import torch

from solomonic.ops.sequence import Sequences, fresh
from solomonic.ops.ssd import ssd
from solomonic.ops.trapezoid import BACKENDS, phase, trapezoid

from ..laws.cases import assert_close
from .sequences import KINDS, sequences_of
from .test_backends import compare

BATCH = 3
SHAPES = [(1, 4, 5, 6, 3), (1, 2, 3, 7, 2), (2, 3, 4, 6, 3), (3, 1, 2, 1, 0)]  # R, H, P, N, M


def inputs(length, shape, initial, batch=BATCH):
    R, H, P, N, M = shape
    x, B = torch.randn(batch, 1 + length, R, H, P), torch.randn(batch, 1 + length, R, H, N)
    if not initial:
        x[:, 0] = 0
    decay, step, mix = (
        -torch.rand(batch, length, H) * 0.5,
        2 * torch.rand(batch, length, H),
        torch.rand(batch, length, H),
    )
    angle = 4 * torch.randn(batch, length, H, M)
    state = torch.randn(batch, H, P, N) if initial else None
    return [x, B, torch.randn(batch, length, R, H, N), decay, step, mix, angle, state]


def direction(angle):
    return torch.stack([angle.cos(), angle.sin()], -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 33, 63, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_scan_is_the_definition(shape, length, kind):
    compare(trapezoid, BACKENDS, inputs(length, shape, kind != "fresh"), sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_step_for_the_present_row_and_no_rotation_is_mamba2(kind, backend):
    """lambda = 1 and rank 1: the step of the exponential Euler rule."""
    x, B, C, decay, step, mix, angle, state = inputs(63, SHAPES[0], kind != "fresh")
    sequences = sequences_of(kind, BATCH, 63)
    got = trapezoid(x, B, C, decay, step, torch.ones_like(mix), 0 * angle, state, sequences, backend)
    expected = ssd(x[:, 1:, 0], B[:, 1:, 0], C[:, :, 0], decay, state, sequences, step=step)
    real = sequences.real() if sequences.real() is not None else slice(None)
    assert_close(got[0][:, :, 0][real], expected[0][real], "y")
    assert_close(got[1], expected[1], "state")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equal_ranks_are_one_rank(shape):
    """R times the same input, each 1/R of it, is that input."""
    x, B, C, *rest = inputs(40, shape, True)
    R = x.shape[2]
    x, B, C = (y[:, :, :1] for y in (x, B, C))
    sequences = sequences_of("continued", BATCH, 40)
    expected = trapezoid(x, B, C, *rest, sequences)
    got = trapezoid(*(y.expand(-1, -1, R, -1, -1) for y in (x / R, B, C)), *rest, sequences)
    for r in range(R):
        assert_close(got[0][:, :, r], expected[0][:, :, 0], f"rank {r}")
    assert_close(got[1], expected[1], "state")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_do_not_depend_on_later_rows(shape, backend):
    """Exactly, although the next row's step weighs the present row's input."""
    arguments = inputs(40, shape, True)
    expected, _ = trapezoid(*arguments, fresh(BATCH, 40), backend)
    changed = [y.clone() for y in arguments]
    for y in changed[:2]:
        y[:, 32:] += 1
    for y in changed[2:7]:
        y[:, 31:] = y[:, 31:] / 3
    got, _ = trapezoid(*changed, fresh(BATCH, 40), backend)
    assert torch.equal(got[:, :31], expected[:, :31])
    assert not torch.allclose(got[:, 31:], expected[:, 31:])


def test_a_long_stream_keeps_its_digits():
    """After thousands of revolutions output and state are those of float64, and the phase is the sum of all angles."""
    T, shape = 20_000, (1, 1, 2, 4, 2)
    arguments = inputs(T, shape, False, batch=1)
    arguments[3] = arguments[3] * 0.02
    arguments[6] = arguments[6].abs()
    with torch.no_grad():
        y, state = trapezoid(*arguments, fresh(1, T))
        z = torch.polar(
            torch.ones_like(arguments[6][0, :, 0], dtype=torch.float64), arguments[6][0, :, 0].double().cumsum(0)
        )
        u = [torch.complex(*x[0, :, 0, 0].double().chunk(2, -1)) for x in (arguments[1][:, 1:], arguments[2])]
        x = arguments[0][0, 1:, 0, 0].double()
        first, last = T - 3000, T - 1  # what is before the first of these is forgotten
        g = arguments[3][0, :, 0].double().cumsum(0)
        step, mix = (arguments[i][0, :, 0].double() for i in (4, 5))
        weight = step * mix + torch.cat([((1 - mix) * step)[1:], step.new_zeros(1)])
        left = weight * (g[last] - g).exp()
        h = torch.einsum("tp,tm->pm", x[first:].to(z.dtype), (left[:, None] * u[0] * z[last] / z)[first:])
        expected = (h * u[1][last].conj()).real.sum(-1)
    assert_close(state[0, 0].double(), torch.cat([h.real, h.imag], -1), "state")
    assert_close(y[0, last, 0, 0].double(), expected, "y")
    assert_close(direction(phase(arguments[6], None, fresh(1, T))[0, 0]).double(), torch.view_as_real(z[-1]), "phase")


@pytest.mark.parametrize("kind", KINDS)
def test_phase_of_pieces(kind):
    """Over any cut of one document into calls; of packed ones, the last."""
    angle, sequences = 4 * torch.randn(BATCH, 40, 2, 3), sequences_of(kind, BATCH, 40)
    before = torch.rand(BATCH, 2, 3) if kind != "fresh" else None
    got = phase(angle, before, sequences)
    for b in range(BATCH):
        row = 40 if sequences.length is None else int(sequences.length[b])
        begin = row - int(sequences.end[b])
        expected = angle[b, max(begin, 0) : row].double().sum(0) + (0 if begin >= 0 or before is None else before[b])
        assert_close(direction(got[b]).float(), direction(expected).float(), f"row {b}")


@pytest.mark.parametrize("wrong", range(8))
def test_shapes_that_do_not_fit(wrong):
    arguments = inputs(9, SHAPES[0], True)
    arguments[wrong] = arguments[wrong][:, :-1]
    with pytest.raises(ValueError, match="expected .*, got shapes .*"):
        trapezoid(*arguments, fresh(BATCH, 9))


def test_more_pairs_than_the_state_has():
    arguments = inputs(9, (1, 2, 3, 5, 3), True)
    with pytest.raises(ValueError, match="2 M <= N"):
        trapezoid(*arguments, fresh(BATCH, 9))


def test_packed_documents_continue_the_first():
    arguments = inputs(9, SHAPES[2], True, batch=1)
    sequences = Sequences(torch.tensor([[3, 4, 5, 6, 0, 1, 2, 3, 4]]), torch.tensor([5]), aligned=False, packed=True)
    y, state = trapezoid(*arguments, sequences)
    head = [x[:, :5] for x in arguments[:2]] + [x[:, :4] for x in arguments[2:7]]
    tail = [x[:, 4:].clone() for x in arguments[:2]] + [x[:, 4:] for x in arguments[2:7]]
    tail[0][:, 0] = 0
    first, _ = trapezoid(*head, arguments[7], fresh(1, 4))
    second, last = trapezoid(*tail, None, fresh(1, 5))
    assert_close(y, torch.cat([first, second], 1), "y")
    assert_close(state, last, "state")


def test_autocast_leaves_the_scan_in_float32():
    arguments = inputs(40, SHAPES[2], True)
    expected = trapezoid(*arguments, fresh(BATCH, 40))
    with torch.autocast("cpu", torch.bfloat16):
        got = trapezoid(*arguments, fresh(BATCH, 40))
    for a, b in zip(got, expected):
        assert a.dtype == torch.float32 and torch.equal(a, b)
