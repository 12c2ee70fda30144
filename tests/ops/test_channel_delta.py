"""The delta rule with a decay for each key channel: every backend equals the reference, gradients included.

With one decay for all channels of a head and one gate it is the gated delta rule, exactly.
"""

import pytest
import torch
from torch.nn.functional import normalize

from solomonic.ops import dispatch
from solomonic.ops.channel_delta import BACKENDS, channel_delta, fastest
from solomonic.ops.channel_delta.chunked import left
from solomonic.ops.clock import clock
from solomonic.ops.composition import compose
from solomonic.ops.gated_delta import gated_delta
from solomonic.ops.sequence import LEAST_LOG_DECAY, fresh

from ..laws.cases import assert_close
from .sequences import KINDS, sequences_of
from .test_backends import BATCH, compare, outputs_and_gradients

LENGTHS = [1, 2, 33, 63, 100]
H, K, V = 2, 6, 5
FAST = [name for name in BACKENDS if name != "reference"]
RULES = {
    "kda": lambda k, v, gates: (gates[..., :1] * k, k, v),
    "gated_deltanet2": lambda k, v, gates: (k, gates[..., :K] * k, gates[..., K:] * v),
}


def inputs(length, initial, rule="gated_deltanet2", decay=0.5):
    q, k = torch.randn(BATCH, length, H, K), normalize(torch.randn(BATCH, length, H, K), dim=-1)
    k, erase, v = RULES[rule](k, torch.randn(BATCH, length, H, V), torch.rand(BATCH, length, H, K + V))
    g = -decay * torch.rand(BATCH, length, H, K)
    return [q, k, erase, v, g, torch.randn(BATCH, H, V, K) if initial else None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("rule", RULES)
def test_backends(rule, length, kind):
    compare(channel_delta, BACKENDS, inputs(length, kind != "fresh", rule), sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [1, 16, 40])
def test_of_other_sizes(values, kind):
    """Values that fill no vector, one, and more; as many channels as rows of a chunk."""
    arguments = inputs(70, True)
    arguments[3], arguments[5] = torch.randn(BATCH, 70, H, values), torch.randn(BATCH, H, values, K)
    compare(channel_delta, BACKENDS, arguments, sequences_of(kind, BATCH, 70))


@pytest.mark.parametrize("kind", ["continued", "packed, continued and padded"])
def test_decays_of_every_size(kind):
    """From nothing to more than there is, side by side in the channels of a row and in the rows of a channel."""
    arguments = inputs(100, True)
    arguments[4] = -torch.exp(12 * torch.rand(BATCH, 100, H, K) - 8)
    compare(channel_delta, BACKENDS, arguments, sequences_of(kind, BATCH, 100))


@pytest.mark.parametrize("backend", FAST)
def test_what_is_all_forgotten(backend):
    """A decay of 20 a step, the most there is: each row is read back as it was written, and no NaN."""
    q, k, erase, v, g, _ = inputs(100, False)
    y, errors, state = channel_delta(q, k, erase, v, torch.full_like(g, -1e4), None, fresh(BATCH, 100), backend)
    assert_close(y, v * (q * k).sum(-1, keepdim=True), "y")
    assert_close(errors, v, "innovations")
    assert_close(state, v[:, -1, :, :, None] * k[:, -1, :, None], "state")


@pytest.mark.parametrize("backend", BACKENDS)
def test_channels_forget_apart(backend):
    """What a channel alone forgets at once, the others keep."""
    length, g = 80, torch.zeros(1, 80, 1, K)
    g[..., 0] = -1e4
    none = torch.zeros(1, length, 1, K)
    old = torch.randn(1, 1, V, K)
    _, _, state = channel_delta(none, none, none, torch.randn(1, length, 1, V), g, old, fresh(1, length), backend)
    assert state[..., 0].abs().max() < 1e-8
    assert_close(state[..., 1:], old[..., 1:], "what is kept")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_decay_and_one_gate_is_the_gated_delta_rule(backend, length, kind):
    q, k, _, v, _, state = inputs(length, kind != "fresh")
    k, sequences = normalize(k, dim=-1), sequences_of(kind, BATCH, length)
    real = sequences.real()
    beta, g = 0.1 + 0.9 * torch.rand(BATCH, length, H), -torch.rand(BATCH, length, H)

    def rows_of(y, errors, last):
        return [y if real is None else y[real], errors if real is None else errors[real], last]

    def theirs(q, k, v, beta, g, state):
        return rows_of(*gated_delta(q, k, v, beta, g, state, sequences, "reference"))

    def ours(q, k, v, beta, g, state):
        written, g = beta[..., None] * k, g[..., None].expand(*g.shape, K)
        return rows_of(*channel_delta(q, written, k, v, g, state, sequences, backend))

    def gates(q, k, v, beta, g, state):  # Gated DeltaNet-2's, whose errors are what is written
        erase, write = beta[..., None].expand(*beta.shape, K), beta[..., None].expand(*beta.shape, V)
        g = g[..., None].expand(*g.shape, K)
        y, errors, last = channel_delta(q, k, erase * k, write * v, g, state, sequences, backend)
        return rows_of(y, errors / beta[..., None], last)

    arguments = [q, k, v, beta, g, state]
    expected, gradients = outputs_and_gradients(theirs, arguments)
    for call in (ours, gates):
        got, dgot = outputs_and_gradients(call, arguments)
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_close(a, b, f"{call.__name__}: output {i}", floor=0.1)
        for i, (a, b) in enumerate(zip(dgot, gradients, strict=True)):
            assert_close(a, b, f"{call.__name__}: gradient {i}", floor=0.1)


@pytest.mark.parametrize("strength", [0.1, 3.0, LEAST_LOG_DECAY * -1.0])
@pytest.mark.parametrize("Q", [1, 2, 3, 16, 33, 64])
def test_what_is_left_between_rows(Q, strength):
    at, k, g = torch.randn(2, Q, K), torch.randn(2, Q, K), -strength * torch.rand(2, Q, K)
    total = g.double().cumsum(1)
    between = (total[:, :, None] - total[:, None]).masked_fill(~torch.ones(Q, Q).tril().bool()[..., None], -torch.inf)
    expected = (at[:, :, None].double() * k[:, None].double() * between.exp()).sum(-1)
    assert_close(left(at, k, g).double(), expected, "left", bound=3e-6)


@pytest.mark.parametrize("wrong", range(6))
def test_shapes_that_do_not_fit(wrong):
    arguments = inputs(40, True)
    arguments[wrong] = arguments[wrong][:, :-1]
    with pytest.raises(ValueError, match="expected .*, got shapes .*"):
        channel_delta(*arguments, sequences_of("fresh", BATCH, 40), backend="compiled")


def test_the_gradient_leaves_what_it_is_given():
    arguments = inputs(40, True)
    *_, state = channel_delta(*(x.requires_grad_() for x in arguments), fresh(BATCH, 40), "compiled")
    for up in (torch.ones(BATCH, H, V, K), torch.ones(BATCH, H, K, V).mT):
        before = up.clone()
        torch.autograd.grad(state, arguments, up, retain_graph=True, allow_unused=True)
        assert torch.equal(up, before)


def test_the_fastest():
    assert fastest(torch.empty(1, 1, 2, 4)) == fastest(torch.empty(1, 4096, 2, 64, device="meta")) == "chunked"
    assert fastest(torch.empty(2, 9, 2, 4)) == "chunked"
    if dispatch.numba_jit() is not None:
        assert fastest(torch.empty(1, 4096, 2, 64)) == "compiled"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 31])
def test_the_clock_of_channels_is_a_clock_each(length, kind):
    sequences, g = sequences_of(kind, BATCH, length), -30 * torch.rand(BATCH, length, H, K) ** 4
    before = None if kind == "fresh" else -torch.rand(BATCH, H, K)
    apart = [clock(g[..., n], None if before is None else before[..., n], sequences) for n in range(K)]
    assert torch.equal(clock(g, before, sequences), torch.stack(apart, -1))


def test_chunks_that_write_at_channels_of_their_own_compose_exactly():
    """Erased and written at other channels than another chunk's, where the transition is Diag(exp(g))."""
    q, k, erase, v, g, _ = inputs(30, False)
    own = torch.arange(30)[:, None, None] // 10 == torch.arange(K) // 2
    k, erase = k * own, erase * own
    *_, expected = channel_delta(q, k, erase, v, g, None, fresh(BATCH, 30))
    states, totals = [], []
    for part in zip(*(x.split(10, 1) for x in (q, k, erase, v, g)), strict=True):
        states.append(channel_delta(*part, None, fresh(BATCH, 10))[2])
        totals.append(clock(part[-1], None, fresh(BATCH, 10)))
    got = compose(torch.stack(states), torch.stack(totals), "sequence")
    assert_close(got, expected, "state", bound=1e-5)
