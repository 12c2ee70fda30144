"""How well do identified models predict what they have not seen? Against nfoursid, sippy-unipi and statsmodels.

    python benchmarks/sysid.py PATH [ORDER ...]

PATH is a folder with ballbeam.mat, robotArm.mat, glassfurnace.mat and cstr.dat (DaISy and a simulated reactor), and with
exchanger.dat (DaISy's heat exchanger) if there is one; orders are 2, 4 and 6 unless given. Fitted to the first half of each series, centred and scaled by it; the fit is
100 (1 - ||y - yhat|| / ||y - mean||) over the second half, the mean of the outputs: one step ahead, and simulated from the
state that the model's filter has at the end of the first half. "-" is a fit below -100: the simulation runs away.

The peers are for this benchmark alone: docs/realization.md says how to install them.
"""

import argparse
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from command_common import existing_folder
from scipy.io import loadmat

from solomonic.theory.realization import Linear, fit, identify
from solomonic.theory.realization.linear import Markov
from solomonic.theory.realization.subspace import gain

SERIES = ("ballbeam.mat", "robotArm.mat", "glassfurnace.mat", "cstr.dat")


def series(folder: Path):
    for name, inputs in (("ballbeam", [0]), ("robotArm", [0]), ("glassfurnace", [1, 2, 3])):
        table = loadmat(folder / f"{name}.mat")[name]
        yield name, table[:, inputs], np.delete(table, sorted({0, *inputs}), 1)
    table = np.loadtxt(folder / "cstr.dat")
    yield "cstr", table[:, 1:2], table[:, 2:]
    if (folder / "exchanger.dat").exists():
        table = np.loadtxt(folder / "exchanger.dat")
        yield "exchanger", table[:, 1:2], table[:, 2:]


def scores(model: Linear, y, u, rows):
    predicted, states = model.predict(y, u)
    return fit(y[rows:], predicted[rows:]).mean(), fit(y[rows:], model.simulate(u[rows:], states[rows])).mean()


def ours(y, u, rows, order):
    for focus in ("prediction", "simulation"):
        yield f"solomonic, for {focus}", scores(identify(y[:rows], u[:rows], order, focus=focus).model, y, u, rows)


def nfoursid(y, u, rows, order):
    import pandas as pd
    from nfoursid.nfoursid import NFourSID

    outputs, inputs = [f"y{i}" for i in range(y.shape[1])], [f"u{i}" for i in range(u.shape[1])]
    frame = pd.DataFrame(np.concatenate([y, u], 1)[:rows], columns=outputs + inputs)
    for blocks in (10, 20):
        identified = NFourSID(frame, output_columns=outputs, input_columns=inputs, num_block_rows=blocks)
        identified.subspace_identification()
        space, noise = identified.system_identification(rank=order)
        p = y.shape[1]
        K, R = gain(Markov(space.a, space.c, noise[p:, p:], noise[p:, :p], noise[:p, :p]))
        yield f"nfoursid, {blocks} rows", scores(Linear(space.a, space.b, space.c, space.d, K, R), y, u, rows)


def sippy(y, u, rows, order):
    from sippy_unipi import system_identification

    for method in ("N4SID", "MOESP", "CVA", "PARSIM-K", "PARSIM-S", "PARSIM-P"):
        try:
            with redirect_stdout(StringIO()):
                identified = system_identification(
                    y[:rows].T, u[:rows].T, method, SS_fixed_order=order, SS_f=20, SS_p=20, SS_D_required=True
                )
        except np.linalg.LinAlgError as error:
            print(f"sippy {method}, order {order}: {error}", file=sys.stderr)
            continue
        model = Linear(*(np.asarray(getattr(identified, name), float) for name in "ABCDK"), np.eye(y.shape[1]))
        yield f"sippy {method}", scores(model, y, u, rows)


def statsmodels(y, u, rows, order):
    """Maximum likelihood: ARMAX with `order` states for one output, else VARX of the lags that `order` allows."""
    p = y.shape[1]
    if p == 1:
        fitted = _armax(y[:rows], u[:rows], order)
        smoothed = fitted.model.clone(y, u=u).smooth(fitted.params)
        name = "statsmodels ARMAX"
    elif order >= p:
        from statsmodels.tsa.statespace.varmax import VARMAX

        lagged = np.concatenate([np.roll(u, k, 0) for k in range(order // p + 1)], 1)
        lagged[: order // p] = 0
        model = VARMAX(y[:rows], exog=lagged[:rows], order=(order // p, 0), trend="n")
        fitted = model.fit(maxiter=30, disp=False, cov_type="none")
        smoothed = model.clone(y, exog=lagged).smooth(fitted.params, cov_type="none")
        name = f"statsmodels VARX({order // p})"
    else:
        return
    ahead = np.reshape(smoothed.predict(), y.shape)[rows:]
    alone = np.reshape(smoothed.predict(start=rows, end=len(y) - 1, dynamic=0), ahead.shape)
    yield name, (fit(y[rows:], ahead).mean(), fit(y[rows:], alone).mean())


def _armax(y, u, n):
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    class Armax(MLEModel):
        """x_t = A x_{t-1} + B u_{t-1} + (1, c) e_t, y_t = x_t[0] + D u_t, A companion: n states, as many as ours."""

        def __init__(self, endog, u, **rest):
            super().__init__(endog, k_states=n, k_posdef=1, initialization="approximate_diffuse", **rest)
            self.u, m = u, u.shape[1]
            self.parts = np.cumsum([n, n - 1, n * m, m])
            self["design", 0, 0] = 1
            self._init_keys += ["u"]

        @property
        def start_params(self):
            long = 2 * n
            z = np.concatenate([np.roll(np.concatenate([y, u], 1), k, 0) for k in range(1, long + 1)] + [u], 1)[long:]
            e = np.zeros(len(y))
            e[long:] = y[long:, 0] - z @ np.linalg.lstsq(z, y[long:, 0], rcond=None)[0]
            columns = [np.roll(y[:, 0], k) for k in range(1, n + 1)] + [np.roll(e, k) for k in range(1, n)]
            columns += [np.roll(u[:, i], k) for k in range(1, n + 1) for i in range(u.shape[1])] + list(u.T)
            Z = np.stack(columns, 1)[2 * long :]
            theta = np.linalg.lstsq(Z, y[2 * long :, 0], rcond=None)[0]
            a, D = theta[:n], theta[-u.shape[1] :]
            b = theta[2 * n - 1 : -u.shape[1]].reshape(n, -1) + a[:, None] * D
            sigma = np.log(np.std(y[2 * long :, 0] - Z @ theta))
            return np.concatenate([theta[: 2 * n - 1], b.ravel(), D, [sigma]])

        @property
        def param_names(self):
            return [f"theta{i}" for i in range(self.parts[-1] + 1)]

        def clone(self, endog, u):
            return Armax(endog, u)

        def update(self, params, **kwargs):
            params = super().update(params, **kwargs)
            a, c, b, D, log_sigma = np.split(params, self.parts)
            self["transition"] = np.column_stack([a, np.eye(n)[:, :-1]])
            self["selection"] = np.concatenate([[1], c])[:, None]
            self["state_cov"] = np.exp(2 * log_sigma)[None]
            self["state_intercept"] = b.reshape(n, -1) @ self.u.T
            self["obs_intercept"] = (self.u @ D)[None]

    return Armax(y, u).fit(maxiter=100, disp=False, cov_type="none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=existing_folder, metavar="PATH")
    parser.add_argument("orders", nargs="*", type=int, default=[2, 4, 6], metavar="ORDER")
    args = parser.parse_args()
    existing_folder(args.folder, *SERIES)
    warnings.simplefilter("ignore")
    for name, u, y in series(args.folder):
        rows = len(y) // 2
        u, y = ((z - z[:rows].mean(0)) / z[:rows].std(0) for z in (u, y))
        for order in args.orders:
            results = {}
            for method in (ours, nfoursid, sippy, statsmodels):
                try:
                    results |= dict(method(y, u, rows, order))
                except ModuleNotFoundError as error:
                    print(f"{method.__name__}: {error.name} is not installed", file=sys.stderr)
                except (np.linalg.LinAlgError, ValueError, IndexError) as error:
                    print(f"{method.__name__} failed at {name}, order {order}: {error}", file=sys.stderr)
            print(f"\n{name}, order {order}: fit one step ahead, simulated")
            for method, values in results.items():
                shown = (f"{value:8.1f}" if value > -100 else f"{'-':>8}" for value in np.nan_to_num(values, nan=-1e9))
                print(f"  {method:28}", *shown, flush=True)
            for i, what in enumerate(("one step ahead", "simulated")):
                scored = {method: np.nan_to_num(values, nan=-1e9)[i] for method, values in results.items()}
                mine = scored[f"solomonic, for {('prediction', 'simulation')[i]}"]
                best = max(((v, k) for k, v in scored.items() if not k.startswith("solomonic")), default=None)
                if best and max(best[0], mine) > -100:
                    print(f"  {what}: {mine - best[0]:+.1f} points to the best peer ({best[1]})", flush=True)


if __name__ == "__main__":
    main()
