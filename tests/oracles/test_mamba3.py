"""Mamba-3 against its continuous system (arXiv 2603.15569), written in complex numbers and float64, and composition.

    h'(t) = (A(t) + i theta(t)) h(t) + B(t) x(t),    y(t) = Re(conj(C(t)) h(t))                 B, C of pairs of numbers

Over a step dt the solution is exp(dt (A + i theta)) h_{t-1} plus the integral of exp((t - s)(A + i theta)) B x ds,
which the exponential-trapezoidal rule takes from its ends: (1 - lambda) dt of the left one, lambda dt of the right one.
"""

import pytest
import torch

from solomonic.mixers import build
from solomonic.mixers.mamba3 import Mamba3Config
from solomonic.ops.composition import METHODS
from solomonic.ops.composition import reference as composition
from solomonic.ops.sequence import fresh
from solomonic.ops.trapezoid import BACKENDS, compose, trapezoid

from ..laws.cases import assert_close, assert_same_state, leaves, shake

WIDTH = 32


def literal(x, B, C, A, theta, dt, part):
    """x (T, R, H, P); B, C (T, R, H, M) complex; A, dt, part (T, H); theta (T, H, M) -> y (T, R, H, P), h (H, P, M)."""
    h, before, out = torch.zeros(*x.shape[2:], B.shape[-1], dtype=B.dtype), 0, []
    for t in range(len(x)):
        left = (dt[t, :, None] * torch.complex(A[t, :, None].expand_as(theta[t]), theta[t])).exp()[:, None]
        now = torch.einsum("rhp,rhm->hpm", x[t].to(B.dtype), B[t])
        alpha, gamma = left, (part[t] * dt[t])[:, None, None]
        beta = ((1 - part[t]) * dt[t])[:, None, None] * left
        h, before = alpha * h + beta * before + gamma * now, now
        out.append(torch.einsum("hpm,rhm->rhp", h, C[t].conj()).real)
    return torch.stack(out), h


def pairs(z):
    return torch.cat([z.real, z.imag], -1)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_complex_system(backend, rank):
    T, H, P, M = 50, 2, 3, 4
    real, whole = torch.float64, torch.complex128
    x, B, C = (torch.randn(T, rank, H, n, dtype=kind) for n, kind in ((P, real), (M, whole), (M, whole)))
    A, dt, part = -torch.rand(T, H, dtype=real), torch.rand(T, H, dtype=real), torch.rand(T, H, dtype=real)
    theta = 3 * torch.randn(T, H, M, dtype=real)
    expected, h = literal(x, B, C, A, theta, dt, part)
    inputs = [torch.cat([0 * y[:1], y]) for y in (x, pairs(B))] + [pairs(C), dt * A, dt, part, dt[..., None] * theta]
    y, state = trapezoid(*(z[None].float() for z in inputs), None, fresh(1, T), backend)
    assert_close(y[0].double(), expected, "y")
    assert_close(state[0].double(), pairs(h), "state")


def test_the_rule_is_of_second_order():
    """Half the step has a quarter of the error with lambda = 1/2 and half of it with lambda = 1, for a smooth input."""
    A, theta, end = -0.7, 2.0, 3.0
    errors = {}
    for part in (0.5, 1.0):
        for T in (100, 200):
            dt = torch.tensor(end / T, dtype=torch.float64)
            t = torch.arange(T + 1, dtype=torch.float64) * dt
            x, one = t.cos().view(1, -1, 1, 1, 1), torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)
            flat = torch.ones(1, T, 1)
            inputs = [
                x,
                one.expand(1, T + 1, 1, 1, 2),
                one.expand(1, T, 1, 1, 2),
                flat * A * dt,
                flat * dt,
                flat * part,
            ]
            y, _ = trapezoid(*inputs, (flat * theta * dt)[..., None], None, fresh(1, T), "reference")
            rate = torch.complex(torch.tensor(A), torch.tensor(theta)).to(torch.complex128)
            # the integral of exp(rate (end - s)) cos(s), by parts
            exact = ((rate * end).exp() * rate - rate * t[-1].cos() + t[-1].sin()) / (rate * rate + 1)
            errors[part, T] = (y[0, -1, 0, 0, 0] - exact.real).abs().item()
    assert 3.5 < errors[0.5, 100] / errors[0.5, 200] < 4.5 and 1.8 < errors[1.0, 100] / errors[1.0, 200] < 2.2, errors


def randomised(config):
    mixer = build(config, WIDTH)
    shake(mixer, 0.1)
    return mixer


@pytest.mark.parametrize(
    "config", [Mamba3Config(), Mamba3Config(state_size=5, head_dim=8, rank=3, rotary_fraction=0.9)], ids=str
)
@torch.no_grad()
def test_mixer_is_the_paper_s_block(config):
    """Norm and bias of B and C, gate and skip, by the letters of the paper, a token at a time."""
    mixer, T = randomised(config), 30
    u, H, R, M = torch.randn(T, WIDTH), mixer.heads, config.rank, mixer.pairs
    z, x, B, C, dt, A, part, theta = (mixer.project.weight @ u.T).T.split(
        [2 * WIDTH, 2 * WIDTH, *[R * config.state_size] * 2, H, H, H, M], -1
    )
    normed = []
    for y, norm, bias in ((B, mixer.B_norm, mixer.B_bias), (C, mixer.C_norm, mixer.C_bias)):
        y = y.view(T, R, 1, -1)
        normed.append(y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * norm.weight + bias)
    B, C = normed
    x, z = (y.view(T, 1, H, -1).expand(T, R, H, -1) for y in (x, z))
    down = torch.ones(())
    if R > 1:
        x, z, down = x * mixer.x_up, z * mixer.z_up, mixer.y_down
    dt, A, part, theta = (dt + mixer.dt_bias).exp().log1p(), -A.exp().log1p(), part.sigmoid(), torch.pi * theta.tanh()
    a, b = (torch.complex(y[..., :M], y[..., M : 2 * M]) for y in (B, C))
    y, _ = literal(x, a, b, A, theta[:, None].expand(T, H, M), dt, part)
    if config.state_size > 2 * M:
        still = [torch.complex(y[..., 2 * M :], 0 * y[..., 2 * M :]) for y in (B, C)]
        y = y + literal(x, *still, A, torch.zeros(T, H, still[0].shape[-1]), dt, part)[0]
    y = (y + mixer.D[:, None] * x) * z * z.sigmoid() * down
    got, _ = mixer(u[None], None, fresh(1, T))
    assert_close(got[0], y.sum(1).flatten(1) @ mixer.out.weight.T, "output")


@pytest.mark.parametrize("how", METHODS)
def test_composition_is_reading_in_every_order(how):
    """`ops.composition` by its definition, on complex states: it takes any numbers."""
    log_decay, phase = -torch.rand(4, 2, 3, dtype=torch.float64), 3 * torch.randn(4, 2, 3, 2, dtype=torch.float64)
    states = torch.randn(4, 2, 3, 5, 5, dtype=torch.float64)
    got = compose(states, log_decay, phase, how)
    z = torch.complex(states[..., :2], states[..., 2:4])
    rotated = composition.compose(z, torch.complex(log_decay[..., None].expand_as(phase), phase), how)
    rest = composition.compose(states[..., 4:], log_decay, how)
    assert_close(got.double(), torch.cat([rotated.real, rotated.imag, rest], -1), how)


@pytest.mark.parametrize("lengths", [[9, 1, 22, 6], [1, 2, 1, 1], [40, 40]], ids=str)
@pytest.mark.parametrize("rank", [1, 2])
@torch.no_grad()
def test_sequence_is_reading_in_a_row_where_there_are_no_seams(lengths, rank):
    """With lambda 1 a row takes nothing of the row before: states compose exactly, rotations and all."""
    mixer = randomised(Mamba3Config(rank=rank))
    at = sum(mixer.sizes[:5])
    mixer.project.weight[at : at + mixer.heads] = 0
    mixer.project.weight[at : at + mixer.heads, 0] = 1000
    mixer.project.weight[sum(mixer.sizes[:6]) :] *= 5
    parts = [torch.randn(2, n, WIDTH) for n in lengths]
    for part in parts:
        part[..., 0] = 1
    states = [mixer(part, None, fresh(*part.shape[:2]))[1] for part in parts]
    y, expected = mixer(torch.cat(parts, 1), None, fresh(2, sum(lengths)))
    got = mixer.compose(states, torch.tensor(lengths)[:, None].expand(-1, 2), "sequence")
    for state in (got, expected):
        state["phase"] = torch.stack([state["phase"].cos(), state["phase"].sin()], -1)
    assert expected["phase"].std() > 0.3 and len(list(leaves(got))) == 4
    assert_same_state(got, expected, "state")


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"expand": 0}, {"rotary_fraction": 1.5}, {"norm_eps": -1}, {"state_size": 1.5}]
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(ValueError, match="mamba3: expected"):
        Mamba3Config(**settings)


def test_width_that_is_no_number_of_heads():
    with pytest.raises(
        ValueError, match="expected expand x d_model = 64 to be head_dim x a whole number, got head_dim=24"
    ):
        build(Mamba3Config(head_dim=24), WIDTH)
