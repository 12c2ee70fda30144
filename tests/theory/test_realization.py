"""Exact statements about linear models: realization, duality in time, canonical forms, the split, files."""

import numpy as np
import pytest

from solomonic.theory.realization import Bilinear, Linear, canonical, covariance
from solomonic.theory.realization.backward import backward
from solomonic.theory.realization.file import load, save
from solomonic.theory.realization.linear import spectral_radius
from solomonic.theory.realization.prediction_error import errors, sensitivities
from solomonic.theory.realization.split import split
from solomonic.theory.realization.stable import nearest_stable


def rotation(radius, angle):
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def blocks(*parts):
    n, at = sum(len(part) for part in parts), 0
    A = np.zeros((n, n))
    for part in parts:
        A[at : at + len(part), at : at + len(part)] = part
        at += len(part)
    return A


def system(name):
    draw = np.random.default_rng(1).standard_normal
    match name:
        case "one output":
            return Linear([[1.5, -0.8], [1, 0]], None, [[1, 0]], None, [[1.2], [0.6]], [[2.0]])
        case "input":
            return Linear([[1.5, -0.7], [1, 0]], [[1], [0]], [[1, 0.5]], [[0.3]], [[0.6], [0.3]], [[1.0]])
        case "two and two":
            A = blocks(rotation(0.9, 0.4), rotation(0.8, 1.2))
            return Linear(A, draw((4, 2)), draw((2, 4)), None, 0.3 * draw((4, 2)), [[1, 0.3], [0.3, 0.5]])
        case "real poles":
            return Linear(np.diag([0.9, 0.5, -0.6]), None, np.ones((1, 3)), None, [[0.5], [0.8], [-0.7]], [[1.0]])


NAMES = ["one output", "input", "two and two", "real poles"]


@pytest.fixture(params=NAMES)
def model(request):
    return system(request.param)


def test_covariances_give_the_model_back(model):
    L = model.noise.covariances(40)
    found = covariance.realize_covariances(L, model.order)
    np.testing.assert_allclose(found.noise.covariances(40), L, atol=1e-10)
    np.testing.assert_allclose(np.sort_complex(found.poles), np.sort_complex(model.poles), atol=1e-9)
    np.testing.assert_allclose(found.R, model.R, atol=1e-9)


def test_covariances_of_no_model_are_refused():
    one = np.ones((1, 1))
    assert covariance.from_lags(0.9 * one, one, 0.8 * one, one).R[0, 0] > 0
    with pytest.raises(ValueError, match="expected covariances"):  # E y_{t+1} y_t above E y_t^2
        covariance.from_lags(0.9 * one, one, 5.0 * one, one)


def test_covariances_are_those_of_samples():
    model = system("two and two")
    y = model.noise.sample(60_000, np.random.default_rng(0))
    L = model.noise.covariances(3)
    np.testing.assert_allclose(covariance.sample_covariances(y, 3), L, atol=0.06 * np.abs(L).max())


def test_forward_and_backward_models_have_the_same_covariances(model):
    forward, reverse = model.noise.covariances(50), backward(model.noise).covariances(50)
    np.testing.assert_allclose(reverse, forward.transpose(0, 2, 1), atol=1e-8)
    twice = backward(backward(model.noise))
    for name in "ACQSR":
        np.testing.assert_allclose(getattr(twice, name), getattr(model.noise, name), atol=1e-8)


def test_backward_samples_run_backwards():
    """A skew cycle of two outputs turns one way; sampled from the backward model, the other."""
    model = Linear(rotation(0.95, 0.5), None, np.eye(2), None, 0.9 * rotation(0.95, 0.5), np.eye(2))
    for one, sign in ((model.noise, 1), (backward(model.noise), -1)):
        L1 = covariance.sample_covariances(one.sample(5000, np.random.default_rng(0)), 1)[1]
        assert sign * (L1[1, 0] - L1[0, 1]) > 1


def test_backward_needs_noise_and_stability():
    with pytest.raises(ValueError, match="stable"):
        backward(Linear([[1.1]], None, [[1.0]], None, [[0.5]], [[1.0]]).noise)
    with pytest.raises(ValueError, match="noise that reaches"):
        backward(Linear(np.diag([0.5, 0.4]), None, [[1.0, 1]], None, [[1.0], [0]], [[1.0]]).noise)


def test_information_is_that_of_long_past_and_long_future(model):
    k = 80
    L, p = model.noise.covariances(2 * k), len(model.C)
    whole = np.block([[L[i - j] if i >= j else L[j - i].T for j in range(2 * k)] for i in range(2 * k)])
    half, both = np.linalg.slogdet(whole[: k * p, : k * p])[1], np.linalg.slogdet(whole)[1]
    assert covariance.information(model) == pytest.approx(half - both / 2, abs=1e-4)


def test_innovations_form_of_a_model_with_other_noise():
    A, C = rotation(0.9, 0.3), np.array([[1.0, 0]])
    noise = type(system("input").noise)(A, C, np.diag([1.0, 0.2]), np.zeros((2, 1)), np.array([[0.5]]))
    found = covariance.innovations_form(noise)
    np.testing.assert_allclose(found.noise.covariances(30), noise.covariances(30), atol=1e-8)
    assert spectral_radius(found.A - found.K @ found.C) < 1


def test_stochastically_balanced_form(model):
    found, s = canonical.stochastically_balanced(model)
    for P in covariance.innovation_covariances(found):
        np.testing.assert_allclose(P, np.diag(s), atol=1e-9)
    np.testing.assert_allclose(s, covariance.canonical_correlations(model), atol=1e-9)


def same(a, b):
    u = np.random.default_rng(3).standard_normal((40, a.B.shape[1]))
    np.testing.assert_allclose(a.noise.covariances(20), b.noise.covariances(20), atol=1e-8)
    if u.size:
        np.testing.assert_allclose(a.simulate(u), b.simulate(u), atol=1e-8)


def test_balanced_form(model):
    from scipy.linalg import solve_discrete_lyapunov as lyapunov

    found, s = canonical.balanced(model)
    same(model, found)
    W = lyapunov(found.A, found.B @ found.B.T + found.K @ found.R @ found.K.T)
    np.testing.assert_allclose(W, np.diag(s), atol=1e-8)
    np.testing.assert_allclose(lyapunov(found.A.T, found.C.T @ found.C), np.diag(s), atol=1e-8)


def test_controllable_form(model):
    found = canonical.controllable(model)
    same(model, found)
    drive = found.B if found.B.shape[1] else found.K
    if drive.shape[1] == 1:
        n = model.order
        np.testing.assert_allclose(found.A[0], -np.poly(model.A)[1:], atol=1e-9)
        np.testing.assert_allclose(found.A[1:], np.eye(n)[:-1], atol=1e-9)
        np.testing.assert_allclose(drive[:, 0], np.eye(n)[0], atol=1e-9)


def test_controllable_form_needs_inputs_that_reach():
    with pytest.raises(ValueError, match="reach all 2 states, got 1"):
        canonical.controllable(Linear(np.diag([0.5, 0.4]), [[1.0], [0]], [[1.0, 1]], None, None, [[1.0]]))


def test_split_into_a_delay_line_and_a_fading_part():
    delay = np.eye(3, k=1)
    A = blocks(delay, rotation(0.9, 0.5))
    A[3, 0] = 0.4
    plain = Linear(A, [[0], [0], [1], [1], [0]], np.ones((1, 5)), None, None, [[1.0]])
    T = np.random.default_rng(0).standard_normal((5, 5))
    found = split(plain.transformed(T))
    assert (found.eidetic, found.steps) == (3, 3) and found.moved < 1e-3
    assert np.all(np.linalg.matrix_power(found.N, 3) == 0) and np.any(np.linalg.matrix_power(found.N, 2) != 0)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(found.F)), 0.9, atol=1e-4)
    assert not found.model.A[:3, 3:].any() and not found.model.A[3:, :3].any()
    u = np.random.default_rng(1).standard_normal((30, 1))
    np.testing.assert_allclose(found.model.simulate(u), plain.simulate(u), atol=1e-3)


def test_split_of_what_only_fades_or_only_holds():
    assert split(system("two and two")).eidetic == 0
    held = split(Linear(np.eye(2, k=1), [[0], [1.0]], [[1.0, 0]], None, None, [[1.0]]))
    assert held.eidetic == 2 and held.F.size == 0


@pytest.mark.parametrize("radius", [0.99, 0.9])
def test_nearest_stable_moves_only_what_is_outside(radius):
    A = blocks(rotation(1.2, 0.7), np.array([[-1.05]]), np.array([[0.4]]))
    A[0, 3] = 2.0
    T = np.random.default_rng(0).standard_normal((4, 4))
    found = np.linalg.eigvals(nearest_stable(np.linalg.solve(T, A @ T), radius))
    expected = [radius * np.exp(0.7j), radius * np.exp(-0.7j), -radius, 0.4]
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(np.array(expected)), atol=1e-9)


def test_sensitivities_are_derivatives():
    rng = np.random.default_rng(0)
    n, m, p, T = 3, 2, 2, 30
    parts = {"A": 0.3 * rng.standard_normal((n, n)), "x0": rng.standard_normal(n), "c": rng.standard_normal(p)}
    for name, shape in {"B": (n, m), "C": (p, n), "D": (p, m), "K": (n, p), "N": (m, n, n)}.items():
        parts[name] = 0.2 * rng.standard_normal(shape)
    y, u = rng.standard_normal((T, p)), rng.standard_normal((T, m))
    free = ("N", "K", "c", "A", "x0", "D", "B", "C")
    found, column = sensitivities(parts, free, *errors(parts, y, u), u), 0
    for name in free:
        for index in np.ndindex(parts[name].shape):
            step = np.zeros_like(parts[name])
            step[index] = 1e-6
            up, down = (errors(parts | {name: parts[name] + sign * step}, y, u)[0] for sign in (1, -1))
            np.testing.assert_allclose(found[:, :, column], (up - down) / 2e-6, atol=1e-7)
            column += 1


def test_predictions_by_their_definition(model):
    rng, m = np.random.default_rng(0), model.B.shape[1]
    u = rng.standard_normal((50, m))
    y = model.simulate(u if m else 50, rng=rng)
    predicted, states = model.predict(y, u, np.zeros(model.order))
    x = np.zeros(model.order)
    for t in range(50):
        expected = model.C @ x + model.D @ u[t]
        np.testing.assert_allclose(predicted[t], expected)
        x = model.A @ x + model.B @ u[t] + model.K @ (y[t] - expected)
    np.testing.assert_allclose(states[-1], x)
    np.testing.assert_allclose(model.ahead(y, u, 1, np.zeros(model.order)), predicted, atol=1e-12)
    third = model.ahead(y, u, 3, np.zeros(model.order))
    for t in (1, 10, 49):
        held = max(t - 2, 0)
        alone = model.simulate(u[held:], states[held]) if m else model.simulate(50 - held, states[held])
        np.testing.assert_allclose(third[t], alone[t - held], atol=1e-10)


def test_the_first_state_is_found(model):
    rng, m = np.random.default_rng(0), model.B.shape[1]
    u, x0 = rng.standard_normal((60, m)), 5 * rng.standard_normal(model.order)
    y = model.simulate(u if m else 60, x0)
    np.testing.assert_allclose(model.initial_state(y, u), x0, atol=1e-6)
    np.testing.assert_allclose(model.innovations(y, u), 0, atol=1e-6)


def test_a_file_gives_the_same_numbers(model, tmp_path):
    save(model, tmp_path / "m.json")
    found = load(tmp_path / "m.json")
    for name in ("A", "B", "C", "D", "K", "R", "y_mean", "u_mean"):
        assert np.array_equal(getattr(found, name), getattr(model, name))
    if model.inputs:
        both = Bilinear(model, np.ones((len(model.inputs), model.order, model.order)) / 3)
        save(both, tmp_path / "b.json")
        assert np.array_equal(load(tmp_path / "b.json").N, both.N)


@pytest.mark.parametrize(
    "content, says",
    [
        ("{", "expected a JSON object, got what is no JSON"),
        ("{}", "expected a file of format"),
        ('{"format": "solomonic linear model 1", "AA": []}', "did you mean"),
        ('{"format": "solomonic linear model 1", "A": [[1]]}', "missing"),
    ],
)
def test_a_file_that_is_no_model(content, says, tmp_path):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        load(tmp_path / "m.json")


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"K: expected shape \(2, 1\), got \(1, 2\)"):
        Linear(np.eye(2), None, np.ones((1, 2)), None, np.ones((1, 2)), np.eye(1))
    with pytest.raises(ValueError, match="expected y with 1 columns and u with 1"):
        system("input").predict(np.zeros((5, 1)))
