"""Gramians and horizons against closed forms and the state itself."""

import math

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.probe.gramian import frozen_horizon, gramians, horizon
from solomonic.probe.study import fading
from solomonic.probe.watch import Scan, watch

T, H, N, P = 400, 2, 3, 4
A = torch.tensor([0.9, 0.5])


def scan(k=None, q=None, beta=None, seed=0):
    noise = torch.Generator().manual_seed(seed)

    def drawn(n):
        return torch.randn(T, H, n, generator=noise)

    v = torch.ones(T, H, P)
    return Scan(drawn(N) if k is None else k, drawn(N) if q is None else q, v, A.log().expand(T, H), beta)


def test_gramians_of_a_constant_system_are_the_closed_form():
    """W = b b^T / (1 - a^2) written, a^2 q q^T / (1 - a^2) read."""
    b, c = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 1.0, 1.0])
    g = gramians(scan(b.expand(T, H, N), c.expand(T, H, N)), every=100)
    assert g.at.tolist() == [100, 200, 300]
    for h, a in enumerate(A.double().tolist()):
        written = torch.outer(b, b).double() / (1 - a**2)
        read = a**2 * torch.outer(c, c).double() / (1 - a**2)
        torch.testing.assert_close(g.controllability[1, h], written, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(g.observability[1, h], read, rtol=1e-6, atol=1e-9)
        expected = a / (1 - a**2) * abs(float(b @ c))  # of two rank-one Gramians
        torch.testing.assert_close(g.hankel[1, h], torch.tensor([expected, 0, 0]).double(), rtol=1e-6, atol=1e-6)
    assert g.orders().tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("by_channel", [False, True])
def test_gramians_by_their_sums(by_channel):
    beta = torch.rand(T, H, generator=torch.Generator().manual_seed(1))
    inputs = scan(beta=beta, seed=2)
    inputs.k = inputs.k / inputs.k.norm(dim=-1, keepdim=True)
    left = inputs.log_decay[..., None].expand(T, H, N)
    if by_channel:  # k is written, at once with its strength, and something else erased
        inputs.log_decay = left = left * torch.tensor([0.5, 1.0, 2.0])
        inputs.k, inputs.erase, inputs.beta, beta = (
            beta[..., None] * inputs.k,
            inputs.k.roll(1, -1),
            None,
            torch.ones(T, H),
        )
    g = gramians(inputs, every=150)
    t, h = 150, 1
    erase = inputs.k if inputs.erase is None else inputs.erase
    step = [
        left[s, h].double().exp().diag()
        @ (torch.eye(N).double() - beta[s, h].double() * torch.outer(erase[s, h].double(), inputs.k[s, h].double()))
        for s in range(T)
    ]
    control, along = torch.zeros(N, N).double(), torch.eye(N).double()
    for s in range(t, -1, -1):
        b = beta[s, h].double() * inputs.k[s, h].double() @ along
        control += torch.outer(b, b)
        along = step[s] @ along
    observe, along = torch.zeros(N, N).double(), torch.eye(N).double()
    for s in range(t + 1, T):
        along = along @ step[s]
        c = along @ inputs.q[s, h].double()
        observe += torch.outer(c, c)
    torch.testing.assert_close(g.controllability[0, h], control, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(g.observability[0, h], observe, rtol=1e-6, atol=1e-9)
    values = torch.linalg.eigvals(control @ observe).real.clamp_min(0).sqrt().sort(descending=True).values
    torch.testing.assert_close(g.hankel[0, h], values, rtol=1e-5, atol=1e-8)


def test_hankel_values_do_not_depend_on_the_coordinates():
    inputs = scan(seed=3)
    M = torch.tensor([[2.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    transformed = Scan(inputs.k @ M, inputs.q @ torch.linalg.inv(M).mT, inputs.v, inputs.log_decay)
    torch.testing.assert_close(gramians(transformed).hankel, gramians(inputs).hankel, rtol=1e-4, atol=1e-6)


def test_what_is_not_read_has_order_zero():
    inputs = scan()
    inputs.q = torch.zeros_like(inputs.q)
    assert not gramians(inputs).orders().any()


@pytest.mark.parametrize("left", [0.01, math.exp(-1)])
def test_horizon_of_a_constant_decay_is_log_left_over_log_a(left):
    lags = horizon(A.log().double().expand(T, H), left)
    for h, a in enumerate(A.double().tolist()):
        lag = math.ceil(math.log(left) / math.log(a))
        assert (lags[: T - lag, h] == lag).all() and lags[T - lag :, h].isinf().all()
        assert frozen_horizon(A.log().expand(T, H), left)[h] == pytest.approx(math.log(left) / math.log(a), rel=1e-5)


def test_horizon_follows_the_text():
    """A token that forgets everything ends what was written before it, and nothing of what comes after."""
    g = torch.full((20, 1), -0.001)
    g[10] = -20
    lags = horizon(g, 0.01)[:, 0]
    assert lags[:10].tolist() == list(range(10, 0, -1)) and lags[10:].isinf().all()


@pytest.mark.parametrize("name", ["mamba2", "gated_deltanet", "gated_kalmanet", "kda"])
@torch.no_grad()
def test_the_state_forgets_as_the_decays_say(name):
    torch.manual_seed(0)
    made = LanguageModel(preset(name, vocab_size=20, d_model=32, n_layers=1, n_heads=2, state_size=8)).eval()
    text = torch.randint(0, 20, (1, 200))
    (entry,) = fading(made, text)
    left, lags = entry["impulse"]["left"], entry["impulse"]["lags"]
    assert lags == [1, 2, 4, 8, 16, 32, 64, 128]
    with watch(made) as seen:
        made(text)
    g = torch.cat([call.log_decay for call in seen.scans[0]])[64:].double()
    for lag, row in zip(lags, left):
        for head, share in enumerate(row):
            decay = float(g[:lag, head].sum(0).max().exp())
            if name in ("gated_deltanet", "kda"):  # what is overwritten goes sooner
                assert share <= decay + 1e-5
            else:
                assert share == pytest.approx(decay, rel=1e-2, abs=1e-4)


def test_a_text_too_short_is_refused():
    short = scan()
    with pytest.raises(ValueError, match="more than 1001 tokens"):
        gramians(short, every=1000)
