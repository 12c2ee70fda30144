"""The gated delta rule against its formula as literal matrix products, and against other people's plain loops.

    S_t = exp(g_t) S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T,   y_t = S_t q_t   (arXiv 2412.06464, equation 10)

The innovation is v_t - exp(g_t) S_{t-1} k_t.
"""

import inspect

import numpy as np
import pytest
import torch

from solomonic.ops.gated_delta import gated_delta
from solomonic.ops.sequence import fresh

from ..laws.cases import assert_close
from ..ops.sequences import packed

SHAPES = [(2, 6, 5), (3, 4, 8), (1, 1, 1)]  # heads, key dim, value dim
LENGTHS = [1, 7, 32, 75]


def literal(q, k, v, beta, g, state):
    """(T, H, .) each, state (H, V, K) -> y (T, H, V), innovations (T, H, V), state, by explicit matrices."""
    T, H, K = k.shape
    y, innovation, state = np.zeros_like(v), np.zeros_like(v), state.copy()
    for h in range(H):
        for t in range(T):
            key, a, b = k[t, h][:, None], np.exp(g[t, h]), beta[t, h]
            innovation[t, h] = v[t, h] - (a * state[h] @ key)[:, 0]
            state[h] = a * state[h] @ (np.eye(K) - b * key @ key.T) + b * v[t, h][:, None] @ key.T
            y[t, h] = state[h] @ q[t, h]
    return y, innovation, state


def inputs(batch, length, shape, decay=0.5):
    H, K, V = shape
    q, k = (torch.randn(batch, length, H, K, dtype=torch.float64) for _ in "qk")
    v = torch.randn(batch, length, H, V, dtype=torch.float64)
    beta, g = (torch.rand(batch, length, H, dtype=torch.float64) for _ in "bg")
    return q, k / k.norm(dim=-1, keepdim=True), v, beta, -decay * g, torch.randn(batch, H, V, K, dtype=torch.float64)


def assert_literal(got, arguments, state, b=0, bound=1e-5):
    expected = literal(*(x[b].numpy() for x in (*arguments, state)))
    for name, ours, theirs in zip(("y", "innovation", "state"), got, expected):
        assert_close(ours[b].double(), torch.from_numpy(theirs), name, bound)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_literal_matrices(backend, shape, length, initial):
    *arguments, state = inputs(2, length, shape)
    got = gated_delta(*arguments, state.float() if initial else None, fresh(2, length), backend=backend)
    for b in range(2):
        assert_literal(got, arguments, state if initial else torch.zeros_like(state), b)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_strong_decay(backend):
    *arguments, state = inputs(1, 70, SHAPES[0], decay=60)
    assert_literal(gated_delta(*arguments, state.float(), fresh(1, 70), backend=backend), arguments, state, bound=1e-4)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_delta_rule_recalls(backend):
    """With b = 1, no decay and orthonormal keys, every value written is read back, and rewriting it is no surprise."""
    keys, values = torch.linalg.qr(torch.randn(6, 6))[0], torch.randn(6, 5)
    k, v = torch.cat([keys, keys])[None, :, None], torch.cat([values, values])[None, :, None]
    one = torch.ones(1, 12, 1)
    y, innovation, state = gated_delta(k, k, v, one, 0 * one, None, fresh(1, 12), backend=backend)
    assert_close(y, v, "y", 1e-5)
    assert_close(innovation[:, :6], v[:, :6], "new", 1e-5)
    assert_close(innovation[:, 6:], torch.zeros_like(v[:, 6:]), "old", 1e-5, floor=1.0)
    assert_close(state[0, 0], values.T @ keys, "state", 1e-5)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_packed_documents(backend):
    """The first document continues one of 9 tokens; the others start from nothing."""
    lengths = [20, 1, 33, 16]
    *arguments, state = inputs(1, sum(lengths), SHAPES[0])
    sequences = packed(lengths, before=9)
    y, innovation, final = gated_delta(*arguments, state.float(), sequences, backend=backend)
    carried, parts = state[0].numpy(), []
    for document in zip(*(x[0].split(lengths) for x in arguments)):
        *part, last = literal(*(x.numpy() for x in document), carried)
        parts.append([torch.from_numpy(x) for x in part])
        carried = np.zeros_like(carried)
    for name, ours, theirs in zip(("y", "innovation"), (y, innovation), zip(*parts)):
        assert_close(ours[0].double(), torch.cat(theirs), name, 1e-5)
    assert_close(final[0].double(), torch.from_numpy(last), "state", 1e-5)


def assert_same_as(theirs, length, shape, initial, names):
    """`theirs` scales q by K^-1/2 and keeps the state as (B, H, K, V)."""
    *arguments, state = [x.float() for x in inputs(2, length, shape)]
    q, k, v, beta, g = arguments
    leaves = [x.clone().requires_grad_() for x in (q, k, v, beta, g, state)]
    start = leaves[5].mT if initial else None
    y, final = theirs(**dict(zip(names, leaves)), initial_state=start, output_final_state=True)
    mine = [x.clone().requires_grad_() for x in (q, k, v, beta, g, state)]
    scaled = [mine[0] * shape[1] ** -0.5, *mine[1:5]]
    ours, _, last = gated_delta(*scaled, mine[5] if initial else None, fresh(2, length))
    assert_close(ours, y, "y")
    assert_close(last, final.mT, "state")
    w, u = torch.randn_like(ours), torch.randn_like(last)
    used = 6 if initial else 5
    expected = torch.autograd.grad((y * w).sum() + (final.mT * u).sum(), leaves[:used], allow_unused=True)
    got = torch.autograd.grad((ours * w).sum() + (last * u).sum(), mine[:used], allow_unused=True)
    for name, a, b in zip(["q", "k", "v", "beta", "g", "state"], got, expected):
        assert_close(a, b, f"gradient of {name}", floor=0.1)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_flash_linear_attention(form, length, initial):
    naive = pytest.importorskip("fla.ops.gated_delta_rule.naive")
    theirs = getattr(naive, f"naive_{form}_gated_delta_rule")
    assert_same_as(theirs, length, SHAPES[0], initial, ["q", "k", "v", "beta", "g"])


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_transformers(form, length, initial):
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    theirs = inspect.unwrap(getattr(qwen, f"torch_{form}_gated_delta_rule"))  # it calls fla's kernels where it can
    assert_same_as(theirs, length, SHAPES[0], initial, ["query", "key", "value", "beta", "g"])
