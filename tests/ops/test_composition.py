"""Composition: the weighted sum equals the mean over orders, at decays from none to all, gradients included."""

from itertools import combinations
from math import comb, log, prod

import pytest
import torch
from torch.nn.functional import normalize

from solomonic.ops.clock import clock
from solomonic.ops.composition import BACKENDS, METHODS, compose
from solomonic.ops.composition.weighted import picaso
from solomonic.ops.gated_delta import gated_delta
from solomonic.ops.sequence import fresh

from ..laws.cases import assert_close

LEAST = log(1e-30)
DECAYS = {
    "none": torch.zeros,
    "mild": lambda *shape: -torch.rand(*shape),
    "all": lambda *shape: torch.full(shape, LEAST),
    "mixed": lambda *shape: LEAST * torch.rand(*shape) ** 6,
    "some": lambda *shape: LEAST * (torch.rand(*shape) < 0.5),
    "beyond float32": lambda *shape: -300 * torch.rand(*shape).round(),
}


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("chunks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("how", METHODS)
def test_weights_equal_the_mean_over_orders(how, chunks, decay):
    """The definition in float64, where a sum over 40,320 orders has no rounding to speak of; the weights in float32."""
    given = [torch.randn(chunks, 2, 3, 2, 2), DECAYS[decay](chunks, 2, 3)]
    direction = torch.randn(2, 3, 2, 2)

    def run(call, precision):
        inputs = [x.to(precision).requires_grad_() for x in given]
        state = call(*inputs, how)
        gradients = torch.autograd.grad((state * direction).sum(), inputs, materialize_grads=True)
        return [x.float() for x in (state, *gradients)]

    got, expected = run(compose, torch.float32), run(BACKENDS["reference"], torch.float64)
    for name, a, b in zip(("state", "gradient by the states", "gradient by the decays"), got, expected):
        assert_close(a, b, name, bound=3e-6)


@pytest.mark.parametrize("chunks", [1, 3, 8])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", METHODS)
def test_channels_with_decays_of_their_own_compose_apart(how, backend, chunks):
    states, g = torch.randn(chunks, 2, 3, 5, 4), DECAYS["mixed"](chunks, 2, 3, 4)
    apart = [compose(states[..., n], g[..., n], how, backend) for n in range(4)]
    assert_close(compose(states, g, how, backend), torch.stack(apart, -1), "state", bound=1e-6)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("chunks", [1, 2, 7, 12])
def test_picaso_is_the_published_sum_of_elementary_symmetric_polynomials(chunks, decay):
    g = DECAYS[decay](chunks, 1, 1).double()
    P = g.exp().flatten().tolist()
    expected = []
    for k in range(chunks):
        others = P[:k] + P[k + 1 :]
        e = [sum(prod(chosen) for chosen in combinations(others, i)) for i in range(chunks)]
        expected.append(sum(e[i] / comb(chunks - 1, i) for i in range(chunks)) / chunks)
    for precision, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        got = picaso(g.to(precision)).flatten().double()
        assert_close(got, torch.tensor(expected, dtype=torch.float64), "weights", bound=bound)


def test_picaso_of_very_many_chunks():
    """Without decay every weight is 1; with all of it, 1/N."""
    for g, expected in ((0.0, 1.0), (LEAST, 1 / 500)):
        assert_close(picaso(torch.full((500, 1, 1), g)), torch.full((500, 1, 1), expected), "weights", bound=1e-5)


@pytest.mark.parametrize("overlap", [False, True])
def test_the_delta_rule_composes_exactly_where_chunks_write_at_orthogonal_keys(overlap):
    """Its transition, exp(g) (I - b k k^T), takes from a state only what stands at k."""
    B, T, H, K, V, N = 2, 10, 2, 6, 5, 3
    q, v = torch.randn(B, N * T, H, K), torch.randn(B, N * T, H, V)
    beta, g = torch.rand(B, N * T, H), -torch.rand(B, N * T, H) * 0.1
    k = torch.zeros(B, N, T, H, K)
    for n in range(N):
        k[:, n, :, :, 2 * n : 2 * n + (3 if overlap else 2)] = torch.randn(B, T, H, min(3 if overlap else 2, K - 2 * n))
    inputs = [q, normalize(k, dim=-1).flatten(1, 2), v, beta, g]
    _, _, expected = gated_delta(*inputs, None, fresh(B, N * T))
    states, totals = [], []
    for part in zip(*(x.split(T, 1) for x in inputs)):
        states.append(gated_delta(*part, None, fresh(B, T))[2])
        totals.append(clock(part[-1], None, fresh(B, T)))
    got = compose(torch.stack(states), torch.stack(totals), "sequence")
    error = (got - expected).abs().max() / expected.abs().max()
    assert error > 0.01 if overlap else error < 1e-5
