"""Identify a linear system from a table of measurements, with or without inputs.

Prints the model in innovations form with its order, poles, fit and the whiteness of its residuals; saves it and a
picture. Columns go by the names in the first row, or by their numbers from 1. A column of times is no output unless it
is named as one; nor is one of text.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._utils.spelling import aside, choose, paragraph
from ..theory.tables import Table, read
from ._numbers import real, whole
from ._options import add_json, add_threads, write_json
from ._table import columns, table

if TYPE_CHECKING:
    from ..theory.realization import Bilinear, Identified, Linear
    from ..theory.realization.whiteness import Test

READS, WRITES, MAKES = ("data",), ("json",), ("out",)
EXTRA = "theory"
AHEAD, SIMULATED = "one step ahead", "simulated"


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", type=Path, help=".csv, .tsv, .txt or .dat table, or .mat file (to version 7)")
    add("--outputs", metavar="COLS", help="names, with commas (default: all columns of numbers but inputs and times)")
    add("--inputs", metavar="COLS", help="names, with commas (default: none)")
    add(
        "--time",
        metavar="COL",
        help="column of times, which must be evenly spaced (default: one that looks like times, with a note)",
    )
    add("--order", type=whole(), metavar="N", help="states (default: the order of the least BIC, to 10)")
    add("--lags", type=whole(), metavar="L", help="rows of past to look at (default: by AIC)")
    add(
        "--train",
        type=real(),
        default=0.5,
        metavar="X",
        help="share of the rows to fit; the rest are for the test (default 0.5)",
    )
    add(
        "--focus",
        default="prediction",
        metavar="F",
        help="what is to be best: prediction or simulation (default prediction)",
    )
    add(
        "--criterion",
        default="fit",
        metavar="C",
        help="fit or likelihood: outputs are weighed by spread or by noise (default fit)",
    )
    add("--bilinear", action="store_true", help="fit a bilinear model, too: inputs change the dynamics")
    add("--out", type=Path, metavar="DIR", help="folder of model and picture (default runs/identify/NAME)")
    add_threads(command)
    add("--no-picture", action="store_true", help="draw nothing (needs no matplotlib)")
    add_json(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    if not args.no_picture:
        from ..theory.realization.draw import draw  # first, so that nothing is lost where matplotlib is missing
    from .._utils.files import locked, owned
    from .._utils.progress import Progress
    from ..theory.realization import fit, identify
    from ..theory.realization.file import content, load, save
    from ..theory.realization.identify import CRITERIA, FOCUS
    from ..theory.realization.series import check

    choose("criterion", args.criterion, CRITERIA)
    choose("focus", args.focus, dict.fromkeys(FOCUS))
    if not 0 < args.train <= 1:
        raise ValueError(f"--train: expected a share above 0 and up to 1, got {args.train:g}")
    out = args.out or Path("runs/identify") / args.data.stem
    owned(out, "an identified system", "model.json")
    if (out / "model.json").exists():
        load(out / "model.json")  # what is no model of ours is not replaced
    data, outputs, inputs = _columns(read(args.data, args.outputs, args.inputs, args.time), args)
    values = {name: data.numbers(name) for name in outputs + inputs}
    y, u = (np.reshape([values[name] for name in names], (len(names), data.rows)).T for names in (outputs, inputs))
    rows, given = round(args.train * data.rows), {"outputs": outputs, "inputs": inputs}
    try:
        y, u = check(y, outputs), check(u, inputs)
        for part, names in ((y, outputs), (u, inputs)):
            check(part[:rows], names, f"row that is fitted (1-{rows}, by --train)")
        with Progress(unit="", what="identify", leave=False) as bar:
            identified = identify(
                y[:rows],
                u[:rows],
                args.order,
                lags=args.lags,
                criterion=args.criterion,
                focus=args.focus,
                bilinear=args.bilinear,
                **given,
                report=bar.describe,
            )
    except ValueError as error:
        raise ValueError(f"{args.data}: {error}") from None
    for equation in identified.dependent:
        aside(f"note: {equation} in the fitted rows, up to a constant, and so in the model")
    fitted = {"model.json": identified.model, "stable.json": identified.stable, "bilinear.json": identified.bilinear}
    models = {name: model for name, model in fitted.items() if model is not None}
    predictions = {name: _predictions(model, y, u, rows) for name, model in models.items()}
    test = slice(rows, None) if rows < len(y) else slice(None)
    fits = {
        name: {way: fit(y[test], values[test]) for way, values in ways.items()} for name, ways in predictions.items()
    }
    judged = "test" if rows < len(y) else "fitted"
    with locked(out, "saving a system there", folder=True):
        for name in ("stable.json", "bilinear.json", "identify.png"):  # of an earlier run
            (out / name).unlink(missing_ok=True)
        for name, model in models.items():
            save(model, out / name)
        if not args.no_picture:
            draw(
                identified,
                y,
                predictions["model.json"][AHEAD],
                predictions["model.json"].get(SIMULATED),
                rows,
                out / "identify.png",
                args.data.name,
            )

    def results() -> dict[str, Any]:
        numbers = {"data": str(args.data), "rows": len(y), "fitted_rows": rows, **_numbers(identified)}
        numbers["fit_of"] = judged
        numbers["fits"] = {
            name: {way: dict(zip(outputs, values.tolist())) for way, values in ways.items()}
            for name, ways in fits.items()
        }
        return numbers | {"models": {name: content(model) for name, model in models.items()}, "saved": str(out)}

    if not write_json(args.json, results):
        return 0
    split = f", tested on {rows + 1}-{len(y)}" * (rows < len(y))
    print(f"{args.data}: {len(y)} rows, fitted to rows 1-{rows}{split}")
    _print(identified, by_bic=args.order is None)
    lines = [[f"{name}, {way}", *_fits(values)] for name, ways in fits.items() for way, values in ways.items()]
    print("\n" + table([f"fit of the {judged} rows", *outputs], lines))
    print("fit: 100 is perfect, 0 no better than the mean")
    print(f"\nsaved {', '.join(models)}{'' if args.no_picture else ', identify.png'} in {out}")
    return 0


def _columns(data: Table, args: argparse.Namespace) -> tuple[Table, list[str], list[str]]:
    """The table, oldest row first, and the names of outputs and inputs. Choices that nobody made are printed as notes."""
    from ..theory.realization.series import check_time

    outputs, inputs, time = (data.choose(names) for names in (args.outputs, args.inputs, args.time))
    if len(time) > 1:
        raise ValueError(f"--time: expected one column, got {', '.join(time)}")
    if twice := set(inputs) & set(outputs) | set(time) & {*inputs, *outputs}:
        raise ValueError(
            f"{', '.join(sorted(twice))}: expected in one place of --inputs, --outputs and --time, got in two"
        )
    data, times = data.time(time[0] if time else None, but=[*outputs, *inputs])
    notes = list(data.notes)
    if not outputs:
        outputs = data.of_kind("number", but=[*inputs, times.name if times else ""])
        counts = data.counts()
        outputs = [name for name in outputs if name not in counts] or outputs
        if left := [name for name in data.columns if name not in {*outputs, *inputs, *time}]:
            notes.append(f"no outputs, as they hold times, counts or text: {', '.join(left)}; --outputs names others")
    if not outputs:
        raise ValueError(
            f"{args.data}: expected columns for the outputs, got none: each is an input, times or no numbers"
            + "".join(f"; {name} is left out: {why}" for name, why in data.left_out.items())
        )
    if times:
        try:
            check_time(times, data.where)
        except ValueError as error:
            if time:
                raise ValueError(f"{args.data}: {error}") from None
            notes.append(f"{error}; rows are read as if evenly spaced")
    for note in notes:
        aside(f"note: {note}")
    return data, outputs, inputs


def _predictions(model: "Linear | Bilinear", y: np.ndarray, u: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """One step ahead; and simulated from the state at the end of the fitted rows, and from the first state in them."""
    ahead, states = model.predict(y, u)
    if not u.shape[1]:
        return {AHEAD: ahead}
    parts = [model.simulate(u[:rows], states[0])]
    if rows < len(y):
        parts.append(model.simulate(u[rows:], states[rows]))
    return {AHEAD: ahead, SIMULATED: np.concatenate(parts)}


def _numbers(identified: "Identified") -> dict[str, Any]:
    """What `_print` says, as JSON has it."""
    model, tests = identified.model, {"white": identified.white, "free_of_past_inputs": identified.unexplained}
    poles = [{"real": p.real, "imaginary": p.imag, "modulus": abs(p), "angle": float(np.angle(p))} for p in model.poles]
    return {
        "order": model.order,
        "bic": np.asarray(identified.scores).tolist(),
        "lags": identified.lags,
        "canonical_correlations": identified.correlations.tolist(),
        "information_nats": identified.information,
        "poles": poles,
        "stable": bool(model.stable),
        **{
            name: test and {"p": float(test.p), "statistic": float(test.statistic), "freedom": int(test.freedom)}
            for name, test in tests.items()
        },
    }


def _fits(values: np.ndarray) -> list[str]:
    return ["stands still" if np.isnan(value) else f"{value:.1f}" if value > -1000 else "runs away" for value in values]


def _print(identified: "Identified", by_bic: bool) -> None:
    from ..theory.realization.whiteness import largest

    model, s = identified.model, identified.correlations
    n = model.order
    print(f"order {n} ({'least BIC' if by_bic else 'as given'}), {identified.lags} rows of past")
    shown = " ".join([*(f"{v:.3f}" for v in s[:n]), "|", *(f"{v:.3f}" for v in s[n : n + 4])])
    conditional = ", inputs given" * bool(model.inputs)
    nats = f"{identified.information:.2f} nats between past and future{conditional}"
    print(paragraph(f"canonical correlations {shown}: {nats}", after="  "))
    if n:
        poles = [p for p in model.poles if p.imag >= 0]
        rows = [[f"{abs(p):.5f}", f"{abs(np.angle(p)):.4f}", _memory(abs(p))] for p in poles]
        print("\n" + table(["pole: modulus", "angle, radians", "rows to fade to 1/e"], rows))
        print(_split(model))
    size, lag = largest(identified.innovations, identified.white.lags)
    print(
        paragraph(
            f"{_passed('residuals white', identified.white)}; largest correlation {size:.2f} at lag {lag}", after="  "
        )
    )
    if identified.unexplained is not None:
        print(paragraph(_passed("residuals free of past inputs", identified.unexplained), after="  "))
    if not model.stable:
        unstable = f"unstable: a pole of modulus {abs(model.poles[0]):.5f}"
        print(paragraph(f"{unstable}; stable.json has the nearest stable model, fitted again", after="  "))
    with np.printoptions(formatter={"float": "{: .5g}".format}, linewidth=columns(), threshold=400):
        for name in ("A", "B", "C", "D", "K", "R"):
            value = getattr(model, name)
            if value.size:
                print(f"{name} =\n{value}")


def _memory(modulus: float) -> str:
    return "never" if modulus >= 1 else "0" if modulus < 1e-12 else f"{-1 / np.log(modulus):.1f}"


def _split(model: "Linear") -> str:
    from ..theory.realization.split import split

    parts = split(model, 0.05)
    eidetic = f"{parts.eidetic} eidetic states (gone after {parts.steps} rows)" if parts.eidetic else "no eidetic state"
    return f"memory: {eidetic}, {model.order - parts.eidetic} fading"


def _passed(what: str, test: "Test") -> str:
    answer = "yes" if test.passed else "no"
    return f"{what}: {answer} (chi-squared {test.statistic:.1f} on {test.freedom}, {test.chance})"
