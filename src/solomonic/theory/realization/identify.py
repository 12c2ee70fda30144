"""From a series to a model: order and first estimate from the past's canonical correlations, then prediction errors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..._utils.spelling import choose
from . import subspace, whiteness
from .bilinear import Bilinear
from .dependent import check_inputs, outputs_by_others
from .linear import Linear, columns, spectral_radius, spread
from .prediction_error import errors, refine
from .series import check
from .stable import nearest_stable

Array = np.ndarray
LAGS, ORDERS = 20, 10  # the most that are tried by default
CRITERIA = {"fit": 0, "likelihood": 3}  # rounds of weighting
FOCUS = ("prediction", "simulation")
SIMULATORS = 4
ALIKE = 2 * np.log(1.05)  # of the logarithms of mean squared errors: a third of the rows does not tell such fits apart
MOVED = 0.5  # of an input's spread: what differs less from its first row is at rest
EVERYTHING = ("A", "B", "C", "D", "K", "x0", "c")
QUIET = ("A", "B", "C", "D", "x0", "c")  # what a simulation uses
FIRST = 20  # steps from each start, before the best is followed to its end


@dataclass(frozen=True, eq=False)
class Identified:
    """A model and the diagnostics of its fit. Arrays are over the rows that it was fitted to."""

    model: Linear
    x0: Array  # its first state
    innovations: Array  # (T, p)
    correlations: Array  # canonical, of past and future (given the inputs), largest first
    scores: Array  # BIC of the orders 0, 1, ...; the order is where it is least, unless `order` set it
    lags: int
    white: whiteness.Test
    unexplained: whiteness.Test | None  # do past inputs still say something? None without inputs
    stable: Linear | None  # the nearest stable model where `model` is not stable
    bilinear: Bilinear | None
    dependent: tuple[str, ...] = ()  # outputs that are combinations of others and of inputs, as equations

    @property
    def information(self) -> float:
        """-1/2 sum log(1 - s_i^2) in nats, over the states: what the past says about the future (given the inputs)."""
        s = np.minimum(self.correlations[: self.model.order], 1 - 1e-12)
        return float((-0.5 * np.log1p(-(s**2))).sum())


def identify(
    y: Array,
    u: Array | None = None,
    order: int | None = None,
    *,
    lags: int | None = None,
    criterion: str = "fit",
    focus: str = "prediction",
    bilinear: bool = False,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    report: Callable[[str], object] = lambda stage: None,
) -> Identified:
    """A model in innovations form of outputs y (T, p), inputs u (T, m).

    Each channel is centred and divided by its spread. The least squared prediction errors are sought from three starts,
    canonical variates, a long and a short autoregression, and the best result is taken. `criterion` "fit" weighs each output
    by its spread, "likelihood" by the noise. `focus` "simulation" chooses A, B, C, D so that the inputs alone predict
    best, and K after it. `bilinear` fits a bilinear model from the linear one. `report` is called with each stage.

    Outputs that are linear combinations of others and of inputs in the same row are left out of the fit and put back: the
    model has all outputs, and an R without noise of their own.

    ValueError for gaps (by row), constant or too short series, inputs that are linear combinations of others, and more
    states than the rows can carry.
    """
    y = columns(y, "y")
    u = np.zeros((len(y), 0)) if u is None else columns(u, "u")
    p, m = y.shape[1], u.shape[1]
    outputs = tuple(outputs) or tuple(f"y{i + 1}" for i in range(p))
    inputs = tuple(inputs) or tuple(f"u{i + 1}" for i in range(m))
    if not p or len(u) != len(y):
        raise ValueError(f"expected outputs, and inputs of as many rows, got {y.shape} and {u.shape}")
    rounds = choose("criterion", criterion, CRITERIA)
    choose("focus", focus, dict.fromkeys(FOCUS))
    if not m and (bilinear or focus == "simulation"):
        raise ValueError("a bilinear model and the focus on simulation need inputs, got none")
    y, u = np.ascontiguousarray(check(y, outputs)), np.ascontiguousarray(check(u, inputs))  # one order of summation
    scale = _Scale(y, u)
    all_y, u = (y - scale.y_mean) / scale.y, (u - scale.u_mean) / scale.u
    check_inputs(u, inputs, scale.u)
    dependence = outputs_by_others(all_y, u)
    y = np.ascontiguousarray(all_y[:, dependence.independent])
    p = y.shape[1]
    lags, most = _lags(y, u, order, lags)

    def model(parts: dict) -> Linear:
        return scale.model(dependence.all_outputs(parts), all_y, u, outputs, inputs)

    report("order")
    hankel = subspace.hankel(y, u, lags)
    scores = subspace.scores(hankel, y, u, most)
    n = int(np.argmin(scores)) if order is None else order
    report(f"prediction errors, order {n}")
    if not n:
        parts = _static(y, u)
    elif focus == "simulation":
        parts = _simulating(y, u, n, lags, rounds)
    else:
        begun = [_closed(parts, y, u, rounds, FIRST) for parts in _starts(hankel.state, y, u, n, lags)]
        parts = refine(_least(begun, y, u, rounds), y, u, EVERYTHING, rounds)
    stable = None
    if spectral_radius(parts["A"]) >= 1:
        report("nearest stable model")
        moved = parts | {"A": nearest_stable(parts["A"], _slowest(y))}
        stable = model(refine(moved, y, u, ("B", "C", "D", "K", "x0", "c"), rounds))
    bilinear_model = None
    if bilinear and n:
        report("bilinear model")
        both = refine(parts | {"N": np.zeros((m, n, n))}, y, u, (*EVERYTHING, "N"), rounds)
        bilinear_model = Bilinear(model(both), both["N"] / scale.u[:, None, None])
    e, _ = errors(parts, y, u)
    tested = max(2 * n // p + 2, min(20, len(y) // 5))
    return Identified(
        model(parts),
        parts["x0"],
        e @ dependence.M.T * scale.y,
        hankel.correlations,
        scores,
        lags,
        whiteness.portmanteau(e, tested, 0 if m else 2 * n * p),  # inputs, not the noise, tell most of the parameters
        whiteness.independence(e, u, min(tested, len(y) // (4 * m))) if m else None,
        stable,
        bilinear_model,
        dependence.equations(outputs, inputs, scale.y, scale.u),
    )


def _lags(y: Array, u: Array, order: int | None, lags: int | None) -> tuple[int, int]:
    """The number of lags, and the highest order to try. ValueError for what the rows cannot carry."""
    (T, p), m = y.shape, u.shape[1]
    longest = (T + 1) // (2 + 2 * (p + 2 * m))  # twice as many rows as columns to regress on
    if longest < 2:
        need = 2 * (2 + 2 * (p + 2 * m)) - 1
        raise ValueError(f"expected at least {need} rows for {p} outputs and {m} inputs, got {T}")
    carried = min(longest * p, int((T * p / 2 - p * m) / (2 * p + m + 1)))  # two numbers for each parameter
    if order is not None and not 0 <= order <= carried:
        raise ValueError(f"order: expected 0 to {carried}, what {T} rows of {p} outputs can carry, got {order}")
    most = max(1, min(carried, ORDERS)) if order is None else max(order, min(carried, ORDERS))
    if lags is None:
        lags = min(longest, max(subspace.lags_of(y, u, min(longest, LAGS)), -(-most // p) + 1))
    if not 2 <= lags <= longest:
        raise ValueError(f"lags: expected 2 to {longest} for {T} rows, got {lags}")
    if order is not None and order > lags * p:
        raise ValueError(f"order: expected at most {lags * p} with {lags} lags of {p} outputs, got {order}")
    return lags, min(most, lags * p)


def _starts(state: Array, y: Array, u: Array, n: int, lags: int) -> list[dict]:
    """Three first estimates: of canonical variates (`state`, of `subspace.hankel`), of a long and of a short autoregression."""
    starts = [subspace.realize(state, lags, y, u, n)[0]]
    for length in sorted({lags, max(2, -(-n // y.shape[1]))}):
        starts.append(subspace.realize(subspace.predictor_state(y, u, length), length, y, u, n)[0])
    return starts


def _simulating(y: Array, u: Array, n: int, lags: int, rounds: int) -> dict:
    """One of `simulators`: of those that are searched the one that, fitted to two thirds of the rows, simulates the last
    third best, or the first, where it is no worse, or `ALIKE`, there and on the two thirds. Fitted to all rows but those at
    rest before the inputs move.

    A model of too low an order reaches the least simulation error with slow poles and gains that fit these rows alone. Then
    a fit with fewer free numbers simulates other rows better. Rows at rest tell a level only, which is not that of the rows
    that follow where the process is not linear; the last 2 `lags` of them are kept, a past and a future.
    """
    moves = int(np.argmax((np.abs(u - u[0]) > MOVED).any(1)))
    first = max(0, min(moves - 2 * lags, len(y) // 2))
    y_mean, u_mean = y[first:].mean(0), u[first:].mean(0)
    y_fit, u_fit = y[first:] - y_mean, u[first:] - u_mean
    held, kind = 2 * len(y_fit) // 3, SIMULATORS - 1
    if np.ptp(y_fit[:held], 0).all() and np.ptp(u_fit[:held], 0).all():
        y_off, u_off = y_fit - y_fit[:held].mean(0), u_fit - u_fit[:held].mean(0)
        fitted = y_off[:held], u_off[:held]
        sizes = np.array(
            [
                (_size_ahead(parts, y_off, u_off, held, rounds), _size(_begun(parts, *fitted), *fitted, rounds))
                for parts in simulators(*fitted, n, lags, rounds)
            ]
        )
        best = 1 + np.argmin(sizes[1:, 0])
        kind = 0 if (sizes[0] <= sizes[best] + ALIKE).all() else int(best)
    parts = next(islice(simulators(y_fit, u_fit, n, lags, rounds), kind, None))
    rest = np.linalg.solve(np.eye(n) - parts["A"], parts["B"] @ u_mean)  # the state that the inputs' means hold
    parts = parts | {"c": parts["c"] + y_mean - parts["C"] @ rest - parts["D"] @ u_mean}
    return parts | {"x0": _begun(parts, y, u)["x0"]}


def simulators(y: Array, u: Array, n: int, lags: int, rounds: int) -> Iterator[dict]:
    """Four fits to centred rows, from the one with the fewest numbers that are searched to the one with the most.

    The first is the regression on the principal components of the future. The second has the least prediction errors. The
    third has its A and C, and B, D, first state and offset of the least simulation errors. The fourth has the least
    simulation errors (output error) that are reached from the third and from each start. Of the last three none simulates
    these rows worse than the one before. K, which a simulation does not use, is fitted last. Poles of the first that are
    not stable are moved, and B, D, first state and offset fitted as in the third; the third replaces a second that is not
    stable.
    """
    hankel = subspace.hankel(y, u, lags)
    plain = subspace.realize(hankel.components, lags, y, u, n)[0]
    yield plain if spectral_radius(plain["A"]) < 1 else refine(_inputs_fitted(plain, y, u), y, u, ("K",), rounds)
    closed = [_closed(parts, y, u, rounds) for parts in _starts(hankel.state, y, u, n, lags)]
    least = refine(_least(closed, y, u, rounds), y, u, EVERYTHING, rounds)
    quiet = _inputs_fitted(least, y, u)
    third = refine(quiet, y, u, ("K",), rounds)
    yield least if spectral_radius(least["A"]) < 1 else third
    yield third
    begun = [quiet, *(_inputs_fitted(parts, y, u) for parts in closed)]
    quiet = _least([refine(parts, y, u, QUIET, rounds) for parts in begun], y, u, rounds)
    yield refine(refine(quiet, y, u, QUIET, rounds, 200), y, u, ("K",), rounds)


def _inputs_fitted(parts: dict, y: Array, u: Array) -> dict:
    A = parts["A"] if spectral_radius(parts["A"]) < 1 else nearest_stable(parts["A"], _slowest(y))
    return refine(parts | {"A": A, "K": np.zeros_like(parts["K"])}, y, u, ("B", "D", "x0", "c"))


def _begun(parts: dict, y: Array, u: Array) -> dict:
    """A simulation of these rows: no gain, and the first state of the least errors."""
    return refine(parts | {"K": np.zeros_like(parts["K"])}, y, u, ("x0",))


def _size_ahead(parts: dict, y: Array, u: Array, row: int, rounds: int) -> float:
    """The size of the errors of a simulation of the rows from `row` on, which begins at the predictor's state there."""
    x0 = errors(parts, y[: row + 1], u[: row + 1])[1][row]
    return _size(parts | {"K": np.zeros_like(parts["K"]), "x0": x0}, y[row:], u[row:], rounds)


def _slowest(y: Array) -> float:
    """The largest modulus of a pole that T rows can tell from 1: 1 - 1 / T."""
    return 1 - 1 / len(y)


def _closed(parts: dict, y: Array, u: Array, rounds: int, steps: int = 60) -> dict:
    if spectral_radius(parts["A"] - parts["K"] @ parts["C"]) >= 1:
        parts = parts | {"A": nearest_stable(parts["A"], 0.99), "K": np.zeros_like(parts["K"])}
    return refine(parts, y, u, EVERYTHING, rounds, steps)


def _least(candidates: list[dict], y: Array, u: Array, rounds: int) -> dict:
    return min(candidates, key=lambda parts: _size(parts, y, u, rounds))


def _size(parts: dict, y: Array, u: Array, rounds: int) -> float:
    """The logarithm of the mean square of the errors: of all outputs, or, of their likelihood, the geometric mean."""
    e, _ = errors(parts, y, u)
    R = e.T @ e / len(e) + subspace.least(y)
    size = np.linalg.slogdet(R)[1] / len(R) if rounds else np.log(np.trace(R))
    return float(size) if np.isfinite(size) else np.inf


def _static(y: Array, u: Array) -> dict:
    """The model of order 0: outputs from the inputs of the same row."""
    p, m = y.shape[1], u.shape[1]
    D = np.linalg.lstsq(u, y, rcond=None)[0].T if m else np.zeros((p, 0))
    empty = {"A": (0, 0), "B": (0, m), "C": (p, 0), "K": (0, p), "N": (0, 0, 0), "x0": (0,)}
    return {name: np.zeros(shape) for name, shape in empty.items()} | {"D": D, "c": np.zeros(p)}


class _Scale:
    """Means and spreads of the channels, and models in their units."""

    def __init__(self, y: Array, u: Array):
        self.y_mean, self.u_mean, self.y, self.u = y.mean(0), u.mean(0), spread(y), spread(u)

    def model(self, parts: dict, y: Array, u: Array, outputs: tuple, inputs: tuple) -> Linear:
        e, _ = errors(parts, y, u)
        A, B, C, D, K = (parts[name] for name in "ABCDK")
        return Linear(
            A,
            B / self.u,
            self.y[:, None] * C,
            self.y[:, None] * D / self.u,
            K / self.y,
            np.outer(self.y, self.y) * (e.T @ e / len(e)),
            self.y_mean + self.y * parts["c"],
            self.u_mean,
            outputs=outputs,
            inputs=inputs,
        )


__all__ = ["CRITERIA", "FOCUS", "Identified", "identify"]
