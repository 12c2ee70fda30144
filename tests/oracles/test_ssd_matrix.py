"""State-space duality against the semiseparable matrix of the Mamba-2 paper (arXiv 2405.21060, section 3), in float64.

    Y = (L o C B^T) X,   L_ts = a_t a_{t-1} ... a_{s+1} for s <= t, else 0,   a_t = exp(g_t)

L is written out, product by product. Documents packed into a row make L block diagonal.
"""

import numpy as np
import pytest
import torch

from solomonic.ops.sequence import fresh
from solomonic.ops.ssd import ssd

from ..laws.cases import assert_close
from ..ops.sequences import packed

SHAPES = [(4, 5, 2, 6), (3, 8, 3, 4), (2, 3, 1, 1)]  # heads, value dim, groups, state size


def decay_matrix(a: np.ndarray) -> np.ndarray:
    T = len(a)
    return np.array([[np.prod(a[s + 1 : t + 1]) if s <= t else 0.0 for s in range(T)] for t in range(T)])


def literal(x, B, C, g, state):
    """x (T, H, P); B, C (T, G, N); g (T, H); state (H, P, N) -> y (T, H, P), state (H, P, N)."""
    T, H, _ = x.shape
    share = H // B.shape[1]
    y, final = np.zeros_like(x), np.zeros_like(state)
    for h in range(H):
        b, c, a = B[:, h // share], C[:, h // share], np.exp(g[:, h])
        L = decay_matrix(a)
        since_start = np.array([np.prod(a[: t + 1]) for t in range(T)])
        y[:, h] = (L * (c @ b.T)) @ x[:, h] + since_start[:, None] * (c @ state[h].T)
        final[h] = (L[-1][:, None] * x[:, h]).T @ b + since_start[-1] * state[h]
    return y, final


def inputs(batch, length, shape, decay=0.5):
    H, P, G, N = shape
    sizes = [(H, P), (G, N), (G, N)]
    x, B, C = (torch.randn(batch, length, *size, dtype=torch.float64) for size in sizes)
    g = -decay * torch.rand(batch, length, H, dtype=torch.float64)
    return x, B, C, g, torch.randn(batch, H, P, N, dtype=torch.float64)


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("length", [1, 7, 32, 75])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_one_document(backend, shape, length, initial):
    *arguments, state = inputs(2, length, shape)
    state = state if initial else torch.zeros_like(state)
    y, final = ssd(*arguments, state.float() if initial else None, fresh(2, length), backend=backend)
    for b in range(2):
        expected = literal(*(x[b].numpy() for x in (*arguments, state)))
        assert_close(y[b].double(), torch.from_numpy(expected[0]), "y", 1e-5)
        assert_close(final[b].double(), torch.from_numpy(expected[1]), "state", 1e-5)


def assert_literal(arguments, state, backend, bound):
    y, final = ssd(*arguments, state.float(), fresh(1, arguments[0].shape[1]), backend=backend)
    expected = literal(*(x[0].numpy() for x in (*arguments, state)))
    assert_close(y[0].double(), torch.from_numpy(expected[0]), "y", bound)
    assert_close(final[0].double(), torch.from_numpy(expected[1]), "state", bound)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_strong_decay(backend):
    """Products of decays far below the smallest float32 are zeros, not NaN."""
    *arguments, state = inputs(1, 70, SHAPES[0], decay=60)
    assert_literal(arguments, state, backend, 1e-4)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_weak_decay_after_strong(backend):
    """What a stream did long ago leaves no trace in the precision of its present."""
    *arguments, state = inputs(1, 256, (1, 4, 1, 4), decay=300)
    arguments[3][:, 128:] = -1e-3
    assert_literal(arguments, state, backend, 1e-4)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_packed_documents(backend):
    """The first document continues one of 9 tokens; the others start from nothing."""
    lengths = [20, 1, 33, 16]
    *arguments, state = inputs(1, sum(lengths), SHAPES[0])
    sequences = packed(lengths, before=9)
    y, final = ssd(*arguments, state.float(), sequences, backend=backend)
    expected, carried = [], state[0].numpy()
    for document in zip(*(x[0].split(lengths) for x in arguments)):
        part, last = literal(*(x.numpy() for x in document), carried)
        expected.append(torch.from_numpy(part))
        carried = np.zeros_like(carried)
    assert_close(y[0].double(), torch.cat(expected), "y", 1e-5)
    assert_close(final[0].double(), torch.from_numpy(last), "state", 1e-5)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gradients(backend):
    """d(w . y + u . state) / dx is the transposed matrix applied to w, and the state's part."""
    T, (H, P, G, N) = 45, SHAPES[0]
    x, B, C, g, _ = inputs(1, T, SHAPES[0])
    w, u = torch.randn(T, H, P, dtype=torch.float64), torch.randn(H, P, N, dtype=torch.float64)
    leaf = x.float().requires_grad_()
    y, final = ssd(leaf, B, C, g, None, fresh(1, T), backend=backend)
    ((y[0] * w).sum() + (final[0] * u).sum()).backward()
    expected = np.zeros((T, H, P))
    for h in range(H):
        b, c = B[0, :, h // (H // G)].numpy(), C[0, :, h // (H // G)].numpy()
        L = decay_matrix(np.exp(g[0, :, h].numpy()))
        expected[:, h] = (L * (c @ b.T)).T @ w[:, h].numpy() + L[-1][:, None] * (b @ u[h].numpy().T)
    assert_close(leaf.grad[0].double(), torch.from_numpy(expected), "gradient of x", 1e-5)
