"""Kimi Delta Attention and Gated DeltaNet-2 against their formulas as literal matrices, and other people's loops.

    S_t = (I - b_t k_t k_t^T) Diag(a_t) S_{t-1} + b_t k_t v_t^T,                    o_t = S_t^T q_t  (arXiv 2510.26692)
    S_t = (I - k_t (b_t * k_t)^T) Diag(a_t) S_{t-1} + k_t (w_t * v_t)^T,            o_t = S_t^T q_t  (arXiv 2605.22791)

Their states are (K, V), ours are transposed.
"""

import numpy as np
import pytest
import torch

from solomonic.ops.channel_delta import BACKENDS, channel_delta
from solomonic.ops.sequence import fresh

from ..laws.cases import assert_close

SHAPES = [(2, 6, 5), (3, 4, 8), (1, 1, 1)]  # heads, key dim, value dim
LENGTHS = [1, 7, 32, 75]


def inputs(batch, length, shape, decay=0.5):
    """q, k, v, g, b (B, T, H, K), w (B, T, H, V) and a state (B, H, V, K), float64."""
    H, K, V = shape
    q, k = (torch.randn(batch, length, H, K, dtype=torch.float64) for _ in "qk")
    v, w = torch.randn(batch, length, H, V, dtype=torch.float64), torch.rand(batch, length, H, V, dtype=torch.float64)
    g, b = (torch.rand(batch, length, H, K, dtype=torch.float64) for _ in "gb")
    return q, k / k.norm(dim=-1, keepdim=True), v, -decay * g, b, w, torch.randn(batch, H, V, K, dtype=torch.float64)


def kda(q, k, v, g, b, w, state, backend=None):
    return channel_delta(q, b[..., :1] * k, k, v, g, state, fresh(*q.shape[:2]), backend)


def gated_deltanet2(q, k, v, g, b, w, state, backend=None):
    return channel_delta(q, k, b * k, w * v, g, state, fresh(*q.shape[:2]), backend)


def literal(rule, q, k, v, g, b, w, state):
    """(T, H, .) each, state (H, V, K) -> o (T, H, V), innovations (T, H, V), state, by explicit matrices."""
    T, H, K = k.shape
    o, innovation, state = np.zeros_like(v), np.zeros_like(v), state.copy()
    for h in range(H):
        S = state[h].T
        for t in range(T):
            key, value, a = k[t, h][:, None], v[t, h][:, None], np.diag(np.exp(g[t, h]))
            if rule is kda:
                beta = b[t, h, 0]
                innovation[t, h] = (value - (a @ S).T @ key)[:, 0]
                S = (np.eye(K) - beta * key @ key.T) @ a @ S + beta * key @ value.T
            else:
                erase, write = b[t, h][:, None], w[t, h][:, None]
                innovation[t, h] = (write * value - (a @ S).T @ (erase * key))[:, 0]
                S = (np.eye(K) - key @ (erase * key).T) @ a @ S + key @ (write * value).T
            o[t, h] = S.T @ q[t, h]
        state[h] = S.T
    return o, innovation, state


def assert_literal(rule, arguments, backend, initial=True, bound=1e-5):
    *arguments, state = arguments
    state = state if initial else torch.zeros_like(state)
    got = rule(*arguments, state.float() if initial else None, backend)
    for b in range(len(state)):
        expected = literal(rule, *(x[b].numpy() for x in (*arguments, state)))
        for name, ours, theirs in zip(("y", "innovation", "state"), got, expected, strict=True):
            assert_close(ours[b].double(), torch.from_numpy(theirs), name, bound)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [kda, gated_deltanet2])
def test_literal_matrices(rule, backend, shape, length, initial):
    assert_literal(rule, inputs(2, length, shape), backend, initial)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [kda, gated_deltanet2])
def test_strong_decay(rule, backend):
    assert_literal(rule, inputs(1, 70, SHAPES[0], decay=60), backend, bound=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_erased_alone_and_written_alone(backend):
    """Shut the write gate and a key's value goes; shut the erase gate and values of one key add up."""
    keys, values = torch.linalg.qr(torch.randn(6, 6))[0], torch.randn(6, 5)
    k, v = torch.cat([keys, keys])[None, :, None], torch.cat([values, values])[None, :, None]
    g, second = torch.zeros_like(k), (torch.arange(12) >= 6).float()[None, :, None, None]
    *_, state = channel_delta(k, k, k, v * (1 - second), g, None, fresh(1, 12), backend)
    assert state.abs().max() < 1e-5
    *_, state = channel_delta(k, k, 0 * k, v, g, None, fresh(1, 12), backend)
    assert_close(state[0, 0], 2 * values.T @ keys, "state", 1e-5)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
@pytest.mark.parametrize("rule", [kda, gated_deltanet2])
def test_flash_linear_attention(rule, form, length, initial):
    """Theirs scale q by K^-1/2 and keep the state as (B, H, K, V)."""
    name = "kda" if rule is kda else "gdn2"
    theirs = getattr(pytest.importorskip(f"fla.ops.{name}.naive"), f"naive_{form}_{name}")
    if form == "chunk" and length % 64:
        theirs = padded(theirs, length)
    shape = SHAPES[0]
    arguments = [x.float() for x in inputs(2, length, shape)]
    wanted = [x.clone().requires_grad_() for x in arguments]
    q, k, v, g, b, w, state = wanted
    gates = {"beta": b[..., 0]} if rule is kda else {"b": b, "w": w}
    start = state.mT if initial else None
    y, final = theirs(q=q, k=k, v=v, g=g, **gates, initial_state=start, output_final_state=True)
    mine = [x.clone().requires_grad_() for x in arguments]
    ours, _, last = rule(mine[0] * shape[1] ** -0.5, *mine[1:6], mine[6] if initial else None)
    assert_close(ours, y, "y")
    assert_close(last, final.mT, "state")
    up, along = torch.randn_like(ours), torch.randn_like(last)
    expected = torch.autograd.grad((y * up).sum() + (final.mT * along).sum(), wanted, allow_unused=True)
    got = torch.autograd.grad((ours * up).sum() + (last * along).sum(), mine, allow_unused=True)
    for name, x, z in zip(["q", "k", "v", "g", "b", "w", "state"], got, expected, strict=True):
        assert (x is None) == (z is None)
        if x is not None:
            assert_close(x, z, f"gradient of {name}", floor=0.1)


def padded(theirs, length):
    """Their chunks are whole: rows that write nothing and forget nothing fill the last."""

    def call(initial_state, output_final_state, **rows):
        fill = -length % 64
        rows = {name: torch.cat([x, x.new_zeros(x.shape[0], fill, *x.shape[2:])], 1) for name, x in rows.items()}
        y, final = theirs(**rows, initial_state=initial_state, output_final_state=output_final_state)
        return y[:, :length], final

    return call
