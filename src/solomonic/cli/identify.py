"""Identify a linear system from a table of measurements, with or without inputs.

Prints the model in innovations form with its order, poles, fit and the whiteness of its residuals; saves it and a
picture. Columns go by the names in the first row, or by their numbers from 1 where there are none.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from ..spelling import unknown
from ._numbers import real, whole
from ._table import table

READS, MAKES = ("data",), ("out",)
EXTRA = "theory"
GAPS = {"", "na", "n/a", "nan", "null", "none", "-", "?"}


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", type=Path, help=".csv, .tsv, .txt or .dat table, or .mat file (to version 7)")
    add("--outputs", metavar="COLS", help="names, with commas (default: all columns that are no inputs)")
    add("--inputs", metavar="COLS", help="names, with commas (default: none)")
    add("--time", metavar="COL", help="column of times, held to be evenly spaced")
    add("--order", type=whole(), metavar="N", help="states (default: the order of the least BIC, to 10)")
    add("--lags", type=whole(), metavar="L", help="rows of past to look at (default: by AIC)")
    add("--train", type=real(), default=0.5, metavar="X", help="share of the rows to fit, the rest tests (default 0.5)")
    add("--focus", default="prediction", metavar="F", help="prediction or simulation: what is to be best")
    add("--criterion", default="fit", metavar="C", help="fit or likelihood: outputs weighed by spread or by noise")
    add("--bilinear", action="store_true", help="fit a bilinear model, too: inputs change the dynamics")
    add("--out", type=Path, metavar="DIR", help="folder of model and picture (default runs/identify/NAME)")
    add("--no-picture", action="store_true", help="draw nothing (needs no matplotlib)")


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    if not chosen.no_picture:
        from ..theory.realization.draw import draw  # first, so that nothing is lost where matplotlib is missing
    from tqdm import tqdm

    from ..files import locked, owned
    from ..theory.realization import fit, identify
    from ..theory.realization.file import load, save
    from ..theory.realization.series import check, check_time

    if not 0 < chosen.train <= 1:
        raise ValueError(f"--train: expected a share above 0 and up to 1, got {chosen.train:g}")
    out = chosen.out or Path("runs/identify") / chosen.data.stem
    owned(out, "an identified system", "model.json")
    if (out / "model.json").exists():
        load(out / "model.json")  # what is no model of ours is not replaced
    names, values = read(chosen.data)
    inputs = _columns(chosen.inputs, names)
    time = _columns(chosen.time, names)
    if len(time) > 1:
        raise ValueError(f"--time: expected one column, got {', '.join(time)}")
    outputs = _columns(chosen.outputs, names) or [name for name in names if name not in {*inputs, *time}]
    if twice := set(inputs) & set(outputs) | set(time) & {*inputs, *outputs}:
        raise ValueError(
            f"{', '.join(sorted(twice))}: expected in one place of --inputs, --outputs and --time, got in two"
        )
    if not outputs:
        raise ValueError("expected columns for the outputs, got none: every column is an input or the time")
    at = {name: i for i, name in enumerate(names)}
    if time:
        check_time(check(values[:, [at[time[0]]]], time), time[0])
    y, u = (check(values[:, [at[name] for name in some]], some) for some in (outputs, inputs))
    rows = round(chosen.train * len(y))
    with tqdm(bar_format="{desc}: {elapsed}", leave=False) as bar:
        found = identify(
            y[:rows],
            u[:rows],
            chosen.order,
            lags=chosen.lags,
            criterion=chosen.criterion,
            focus=chosen.focus,
            bilinear=chosen.bilinear,
            outputs=outputs,
            inputs=inputs,
            report=bar.set_description_str,
        )
    models = {"model.json": found.model, "stable.json": found.stable, "bilinear.json": found.bilinear}
    models = {name: model for name, model in models.items() if model is not None}
    predictions = {name: _predictions(model, y, u, rows) for name, model in models.items()}
    print(
        f"{chosen.data}: {len(y)} rows, fitted to rows 1-{rows}"
        + (f", tested on {rows + 1}-{len(y)}" * (rows < len(y)))
    )
    _print(found, by_bic=chosen.order is None)
    test = slice(rows, None) if rows < len(y) else slice(None)
    head = ["fit of " + ("the test rows" if rows < len(y) else "the fitted rows"), *outputs]
    lines = []
    for name, (one, simulated) in predictions.items():
        lines.append([f"{name}, one step ahead", *_fits(fit(y[test], one[test]))])
        if simulated is not None:
            lines.append([f"{name}, simulated", *_fits(fit(y[test], simulated[test]))])
    print("\n" + table(head, lines))
    with locked(out, "saving a system there", folder=True):
        for name in ("stable.json", "bilinear.json", "identify.png"):  # of an earlier run
            (out / name).unlink(missing_ok=True)
        for name, model in models.items():
            save(model, out / name)
        if not chosen.no_picture:
            draw(found, y, *predictions["model.json"], rows, out / "identify.png")
    print(f"\nsaved {', '.join(models)}{'' if chosen.no_picture else ', identify.png'} in {out}")
    return 0


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and values (rows, columns) of a table; a gap is NaN."""
    if path.suffix.lower() == ".mat":
        return _read_mat(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a table as UTF-8 text, got bytes that are none ({error})") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path}: expected a table, got an empty file")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    try:
        cells = [line.split() for line in lines] if delimiter is None else list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table, got what is none ({error})") from None
    cells = [[cell.strip() for cell in row] for row in cells]
    names = [str(i + 1) for i in range(len(cells[0]))]
    if any(_number(cell) is None for cell in cells[0]):
        names, cells = cells[0], cells[1:]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: expected different names in the first row, got {', '.join(names)}")
    for i, row in enumerate(cells):
        if len(row) != len(names):
            raise ValueError(f"{path}: expected {len(names)} cells in row {i + 1}, got {len(row)}")
    values = np.empty((len(cells), len(names)))
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            value = _number(cell)
            if value is None:
                raise ValueError(f"{path}: expected a number for {names[j]!r} in row {i + 1}, got {cell!r}")
            values[i, j] = value
    return names, values


def _number(cell: str) -> float | None:
    if cell.lower() in GAPS:
        return np.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _read_mat(path: Path) -> tuple[list[str], np.ndarray]:
    from scipy.io import loadmat

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content = loadmat(path)
    except NotImplementedError:
        raise ValueError(f"{path}: expected a .mat file of version 7 or before; save it with -v7") from None
    except Exception as error:  # noqa: BLE001 - a broken file raises almost anything
        raise ValueError(f"{path}: expected a .mat file, got what cannot be read as one ({error})") from None
    arrays = {k: v for k, v in content.items() if not k.startswith("__") and isinstance(v, np.ndarray) and v.ndim == 2}
    arrays = {k: v.T if v.shape[0] == 1 else v for k, v in arrays.items() if v.dtype.kind in "fiub" and v.size > 1}
    rows = {v.shape[0] for v in arrays.values()}
    if len(rows) != 1:
        shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "none"
        raise ValueError(f"{path}: expected real matrices of one number of rows, got {shapes}")
    if len(arrays) == 1:
        (values,) = arrays.values()
        return [str(i + 1) for i in range(values.shape[1])], values.astype(float)
    names = [k if v.shape[1] == 1 else f"{k}:{i + 1}" for k, v in arrays.items() for i in range(v.shape[1])]
    return names, np.concatenate([v.astype(float) for v in arrays.values()], 1)


def _columns(given: str | None, names: list[str]) -> list[str]:
    chosen = [name.strip() for name in (given or "").split(",") if name.strip()]
    for i, name in enumerate(chosen):
        if name not in names:
            raise unknown("column", name, names)
        if name in chosen[:i]:
            raise ValueError(f"expected each column once, got {name!r} twice")
    return chosen


def _predictions(model, y: np.ndarray, u: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray | None]:
    """One step ahead; and simulated from the state at the end of the fitted rows, and from the first state in them."""
    one, states = model.predict(y, u)
    if not u.shape[1]:
        return one, None
    parts = [model.simulate(u[:rows], states[0])]
    if rows < len(y):
        parts.append(model.simulate(u[rows:], states[rows]))
    return one, np.concatenate(parts)


def _fits(values: np.ndarray) -> list[str]:
    return [f"{value:.1f}" if value > -1000 else "runs away" for value in np.nan_to_num(values, nan=-np.inf)]


def _print(found, by_bic: bool) -> None:
    model, s = found.model, found.correlations
    n = model.order
    print(f"order {n} ({'least BIC' if by_bic else 'as given'}), {found.lags} rows of past")
    shown = " ".join(f"{v:.3f}" for v in s[:n]) + " | " + " ".join(f"{v:.3f}" for v in s[n : n + 4])
    print(
        f"canonical correlations {shown}: {found.information:.2f} nats between past and future"
        + ", inputs given" * bool(model.inputs)
    )
    if n:
        poles = [p for p in model.poles if p.imag >= 0]
        rows = [[f"{abs(p):.5f}", f"{abs(np.angle(p)):.4f}", _memory(abs(p))] for p in poles]
        print("\n" + table(["pole: modulus", "angle", "rows to fade to 1/e"], rows))
        print(_split(model))
    print(_said("residuals white", found.white))
    if found.unexplained is not None:
        print(_said("residuals free of past inputs", found.unexplained))
    if not model.stable:
        radius = abs(model.poles[0])
        print(f"unstable: a pole of modulus {radius:.5f}; stable.json has the nearest stable model, fitted again")
    with np.printoptions(formatter={"float": "{: .5g}".format}, linewidth=110, threshold=400):
        for name in ("A", "B", "C", "D", "K", "R"):
            value = getattr(model, name)
            if value.size:
                print(f"{name} =\n{value}")


def _memory(modulus: float) -> str:
    return "never" if modulus >= 1 else "0" if modulus < 1e-12 else f"{-1 / np.log(modulus):.1f}"


def _split(model) -> str:
    from ..theory.realization.split import split

    parts = split(model, 0.05)
    return (
        f"memory: {parts.eidetic} eidetic states (gone after {parts.steps} rows), {model.order - parts.eidetic} fading"
    )


def _said(what: str, test) -> str:
    answer = "yes" if test.p >= 0.05 else "no"
    return f"{what}: {answer} (chi-squared {test.statistic:.1f} on {test.freedom}, p = {test.p:.2g})"
