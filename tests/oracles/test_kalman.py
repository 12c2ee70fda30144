"""Test-time ridge regression against linear solvers in float64, and the recursion of arXiv 2511.21016 in NumPy."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from solomonic import LanguageModel, ModelConfig
from solomonic.mixers.gated_kalmanet import GatedKalmaNet, GatedKalmaNetConfig
from solomonic.ops.kalman import BACKENDS, kalman
from solomonic.ops.kalman.call import KalmanCall
from solomonic.ops.kalman.chebyshev import solve
from solomonic.ops.sequence import Sequences, fresh

from ..laws.cases import assert_close, tokens
from ..ops.sequences import KINDS, sequences_of

SHAPES = [(2, 6, 5), (1, 3, 8), (1, 1, 1)]  # heads, key dim, value dim


def inputs(length, shape=SHAPES[0], batch=2, decay=0.5, dtype=torch.float64):
    H, K, V = shape
    q, k = (normalize(torch.randn(batch, length, H, K, dtype=dtype), dim=-1) for _ in "qk")
    v, (w, a, g) = torch.randn(batch, length, H, V, dtype=dtype), torch.rand(3, batch, length, H, dtype=dtype)
    past = torch.randn(batch, H, K, 7, dtype=dtype)
    h, u = past @ past.mT, torch.randn(batch, H, V, 7, dtype=dtype) @ past.mT
    return q, k, v, 0.1 + w, a, -decay * g, h, u


def solved(q, k, v, w, a, g, h, u, start):
    """y, innovations, h, u, the last two lists over time, by torch.linalg.solve; documents begin where `start`."""
    one = torch.eye(k.shape[-1], dtype=q.dtype)
    out, errors = [], []
    for t in range(q.shape[1]):
        keep = g[:, t, :, None, None].exp() * ~start[:, t, None, None, None]
        h, u = keep * h, keep * u
        written = w[:, t, :, None, None] * k[:, t, :, None]
        after = h + k[:, t, ..., None] * written
        ridge = 0.02 * after.norm(dim=(-2, -1))[..., None, None] * one
        predicted = u @ torch.linalg.solve(h + ridge, k[:, t, ..., None])
        h, u = after, u + v[:, t, ..., None] * written
        x = torch.linalg.solve(h + ridge, q[:, t, ..., None])[..., 0]
        out.append((u @ (q[:, t] + a[:, t, :, None] * (x - q[:, t]))[..., None])[..., 0])
        errors.append(v[:, t] - predicted[..., 0])
    return torch.stack(out, 1), torch.stack(errors, 1), h, u


@pytest.mark.parametrize("kind", ["fresh", "continued", "packed"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_linear_solver(backend, shape, kind):
    """With 100 iterations, output, innovation, state and gradients are those of a direct solution."""
    arguments = [x.requires_grad_() for x in inputs(40, shape)]
    sequences = sequences_of(kind, 2, 40)
    if kind == "fresh":
        arguments[6:] = [torch.zeros_like(x) for x in arguments[6:]]
    expected = solved(*arguments, (sequences.position == 0).expand(2, -1) & (sequences.packed | (kind == "fresh")))
    got = BACKENDS[backend](KalmanCall(*arguments, sequences, 100, True))
    direction = [torch.randn_like(x) for x in expected]
    leaves = [x for x in arguments if x.requires_grad]
    for name, a, b in zip(("y", "innovation", "h", "u"), got, expected):
        assert_close(a, b, name, 1e-8)
    gradients = (torch.autograd.grad(sum((x * d).sum() for x, d in zip(o, direction)), leaves) for o in (got, expected))
    for name, a, b in zip(["q", "k", "v", "w", "a", "g", "h", "u"], *gradients):
        assert_close(a, b, f"gradient of {name}", 1e-6)
    for name, a, b in zip(("y", "innovation", "h", "u"), kalman(*arguments, sequences, 100, True, backend), expected):
        assert_close(a.double(), b, f"float32 {name}")


def literal(H, q, iterations):
    """The paper's recursion for one row: (K, K), (K,)."""
    F = np.sqrt((H**2).sum())
    lam = 0.02 * F
    s, rho = 2 / (2 * lam + F), F / (2 * lam + F)
    before, x, w = np.zeros_like(q), s * q, 2.0
    for _ in range(iterations):
        w = 1 / (1 - rho**2 * w / 4)
        before, x = x, w * x - s * w * ((H + lam * np.eye(len(q))) @ x - q) - (w - 1) * before
    return x


@pytest.mark.parametrize("iterations", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("backend", BACKENDS)
def test_literal_recursion(backend, iterations):
    q, k, v, w, a, g, h, u = inputs(37, batch=1)
    got = BACKENDS[backend](KalmanCall(q, k, v, w, a, g, h, u, fresh(1, 37), iterations, False))[0]
    q, k, v, w, a, g, h, u = (x[0].numpy() for x in (q, k, v, w, a, g, h, u))
    expected = np.empty_like(v)
    for head in range(v.shape[1]):
        H, U = h[head], u[head]
        for t in range(len(v)):
            key = k[t, head]
            H = np.exp(g[t, head]) * H + w[t, head] * np.outer(key, key)
            U = np.exp(g[t, head]) * U + w[t, head] * np.outer(v[t, head], key)
            x = literal(H, q[t, head], iterations)
            expected[t, head] = U @ (q[t, head] + a[t, head] * (x - q[t, head]))
    assert_close(got[0], torch.from_numpy(expected), "y", 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_equal_the_reference_in_float64(kind):
    """Nothing but rounding lies between the two, also for weights and decays that are hard on float32."""
    arguments = [x.requires_grad_() for x in inputs(70, decay=15)]
    with torch.no_grad():
        arguments[3].mul_(torch.rand_like(arguments[3]) ** 8)
    sequences = sequences_of(kind, 2, 70)
    real = sequences.real() if sequences.real() is not None else torch.ones(2, 70, dtype=torch.bool)
    results = []
    for backend in ("chunked", "reference"):
        y, errors, h, u = BACKENDS[backend](KalmanCall(*arguments, sequences, 30, True))
        out = [y[real], errors[real], h, u]
        total = sum((x * torch.linspace(1, 2, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in out)
        results.append([*out, *torch.autograd.grad(total, arguments)])
    for i, (a, b) in enumerate(zip(*results)):
        assert_close(a, b, f"result {i}", 1e-9)


def test_error_falls_with_iterations():
    q, k, v, w, a, g, h, u = inputs(50)
    exact = solved(q, k, v, w, a, g, h, u, torch.zeros(2, 50, dtype=torch.bool))[0]
    errors = []
    for iterations in (0, 2, 5, 10, 20, 30, 60):
        y = BACKENDS["chunked"](KalmanCall(q, k, v, w, a, g, h, u, fresh(2, 50), iterations, False))[0]
        errors.append(((y - exact).norm() / exact.norm()).item())
    assert all(later < 0.75 * sooner for sooner, later in itertools.pairwise(errors)), errors
    assert errors[0] > 0.1 and errors[-2] < 1e-3 and errors[-1] < 1e-7


def test_gradient_of_the_solver_keeps_no_steps():
    """What a call keeps for the way back does not grow with the iterations."""
    kept = {}
    for iterations in (1, 40):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            kalman(*(x.detach().requires_grad_() for x in inputs(64)), fresh(2, 64), iterations)
        kept[iterations] = sum(sizes)
    assert kept[1] == kept[40]


@pytest.mark.parametrize("backend", BACKENDS)
def test_regression_recalls_what_the_average_blurs(backend):
    """Keys that are far from orthogonal: with a = 1 the last value written comes back, with a = 0 a blend does."""
    k = normalize(1 + 0.5 * torch.randn(1, 6, 1, 8), dim=-1)
    v, one = torch.randn(1, 6, 1, 4), torch.ones(1, 6, 1)
    ask, nothing = [k.repeat(1, 2, 1, 1)] * 2, torch.zeros(1, 6, 1)
    weight = torch.cat([one, nothing], 1)
    similarity = []
    for a in (1.0, 0.0):
        y = kalman(*ask, v.repeat(1, 2, 1, 1), weight, a + 0 * weight, 0 * weight, None, None, fresh(1, 12))[0]
        similarity.append(torch.cosine_similarity(y[:, 6:], v, -1).mean())
    assert similarity[0] > 0.8 and similarity[1] < similarity[0] - 0.2, similarity


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["nothing written", "zeros", "all forgotten"])
def test_an_empty_memory_has_finite_outputs_and_gradients(backend, empty):
    q, k, v, w, a, g, h, u = (x.float() for x in inputs(5))
    h, u = 0 * h, 0 * u
    if empty == "nothing written":
        w = 0 * w
    elif empty == "zeros":
        q, k, v = 0 * q, 0 * k, 0 * v
    else:
        w, g = torch.cat([w[:, :1], 0 * w[:, 1:]], 1), g - 1000
    arguments = [x.detach().requires_grad_() for x in (q, k, v, w, a, g, h, u)]
    out = kalman(*arguments, fresh(2, 5), innovate=True, backend=backend)
    assert all(x.isfinite().all() for x in out)
    assert all(x.isfinite().all() for x in torch.autograd.grad(sum(x.sum() for x in out), arguments))


@pytest.mark.parametrize("iterations", [-1, 2.5, True, "30"])
def test_iterations_that_cannot_be(iterations):
    with pytest.raises(ValueError, match="expected iterations to be a whole number >= 0, got"):
        kalman(*inputs(3), fresh(2, 3), iterations)


def test_iterations_of_a_trained_model_are_an_attribute():
    config = ModelConfig(50, 32, [GatedKalmaNetConfig()] * 2, d_ff=16)
    model, x = LanguageModel(config), tokens(2, 40)
    with torch.no_grad():
        exact, _ = model(x)
        errors = []
        for iterations in (2, 5, 20):
            for module in model.modules():
                if isinstance(module, GatedKalmaNet):
                    module.iterations = iterations
            logits, _ = model(x)
            errors.append((logits - exact).norm().item())
    assert errors[0] > 1.5 * errors[1] > 4 * errors[2] > 0
    other = LanguageModel(ModelConfig(50, 32, [GatedKalmaNetConfig(iterations=20)] * 2, d_ff=16))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x)[0], logits)


def test_autocast_leaves_the_scan_in_float32():
    """Forward and backward under autocast equal those without it."""
    arguments = inputs(40, dtype=torch.float32)
    results = []
    for lowered in (False, True):
        leaves = [x.detach().requires_grad_() for x in arguments]
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            out = kalman(*leaves, fresh(2, 40), innovate=True)
        results.append([*out, *torch.autograd.grad(sum(x.sum() for x in out), leaves)])
    for a, b in zip(*results):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_compiles_without_a_graph_break():
    model, x = LanguageModel(ModelConfig(50, 32, [GatedKalmaNetConfig(iterations=3)], d_ff=16)), tokens(2, 40)
    results = []
    for run in (model, torch.compile(model, backend="eager", fullgraph=True)):
        model.zero_grad()
        logits, _ = run(x)
        logits.square().sum().backward()
        results.append([logits, model.blocks[0].mixer.qkv.weight.grad.clone()])
    for a, b in zip(*results):
        assert_close(a, b, "compiled")


def test_solver_at_a_matrix():
    """x and gradients against the matrix written out."""
    a = torch.randn(4, 5, 9, dtype=torch.float64)
    a = a @ a.mT
    a = (a / a.norm(dim=(-2, -1), keepdim=True)).requires_grad_()
    q = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def by_method(q, a):
        return solve(lambda x, a: (a @ x[..., None])[..., 0], 120, q, 0.5 * (a + a.mT))

    assert_close(by_method(q, a), torch.linalg.solve(a + 0.02 * torch.eye(5, dtype=a.dtype), q), "x", 1e-9)
    assert torch.autograd.gradcheck(by_method, (q, a))


def test_packed_documents_continue_the_first():
    """The first document is the state's; the second begins from nothing."""
    arguments = inputs(9, batch=1)
    sequences = Sequences(torch.tensor([[3, 4, 5, 6, 0, 1, 2, 3, 4]]), torch.tensor([5]), aligned=False, packed=True)
    y, _, h, _ = kalman(*arguments, sequences)
    first = kalman(*(x[:, :4] for x in arguments[:6]), *arguments[6:], fresh(1, 4))[0]
    second, _, last, _ = kalman(*(x[:, 4:] for x in arguments[:6]), None, None, fresh(1, 5))
    assert_close(y, torch.cat([first, second], 1), "y")
    assert_close(h, last, "h")
