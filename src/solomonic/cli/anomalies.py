"""Find what is unlike all before it in a time series.

    solomonic anomalies data.csv --column load --out scores.csv --plot scores.png

DATA has a column of numbers and, if you like, one of times; rows are read oldest first. A stack of predictors (level, seasons, linear
system), each fed the residual of the one below, says what was to be expected from the rows before; the score of a row
says, in nats, how rare and how new that is among all rows before it. It never looks ahead.
"""

import argparse
import csv
import io
from pathlib import Path

from .._utils.spelling import aside, counted, paragraph
from ._numbers import whole
from ._options import add_threads
from ._table import table

READS, WRITES = ("data",), ("out", "plot")
EXTRA = "theory"
CHUNK = 500
WARM = 0.15


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", type=Path, help=".csv, .tsv, .txt or .dat table, or .mat file (to version 7)")
    add("--column", metavar="NAME", help="the column of numbers, by name or number (default: the only one)")
    add(
        "--periods",
        nargs="*",
        type=whole(),
        metavar="N",
        help="seasons in rows, rising; none: no seasons (default: a day and a week, where there are times)",
    )
    add("--recent", type=whole(), default=12, metavar="N", help="rows that are judged together (default 12)")
    add("--most", type=whole(), default=5, metavar="N", help="stretches to print (default 5)")
    add_threads(command)
    add("--out", type=Path, metavar="FILE", help="write every row's score, expectation and residuals as CSV")
    add("--plot", type=Path, metavar="FILE", help="draw the series, the residuals and the scores as PNG")


def run(args: argparse.Namespace, words: list[str]) -> int:
    if args.most < 1:
        raise ValueError(f"--most: expected a whole number >= 1, got {args.most}")
    for name, file in (("out", args.out), ("plot", args.plot)):
        if file and file.is_dir():
            raise ValueError(f"--{name}: expected a file, {file} is a folder")
    import numpy as np

    from .._utils.files import write
    from .._utils.progress import Progress
    from ..theory.residual import stack, stretches
    from ..theory.residual.series import read

    if args.plot:
        from ..theory.residual.picture import draw
    series = read(args.data, args.column)
    periods = series.periods() if args.periods is None else tuple(args.periods)
    if longest := [period for period in (*periods, args.recent) if period > len(series.values)]:
        raise ValueError(f"expected --periods and --recent of at most {len(series.values)} rows, got {longest[0]}")
    model = stack(periods, args.recent)
    for note in series.notes:
        aside(f"note: {note}")
    parts, state = [], None
    with Progress(len(series.values), "row", "anomalies", leave=False) as bar:
        for start in range(0, len(series.values), CHUNK):
            part, state = model.run(series.values[start : start + CHUNK], state)
            parts.append(part)
            bar.update(len(part.scores))
    scores = np.concatenate([part.scores for part in parts])
    surprise = np.concatenate([part.surprise for part in parts])
    expected = np.concatenate([part.predictions.sum(1) for part in parts])
    residuals = np.concatenate([part.residuals for part in parts])

    warm = int(min(WARM * len(scores), 750))
    judged = np.where(np.arange(len(scores)) < warm, 0, surprise)
    unlike = stretches(judged, args.most, max(periods[:1] or (4 * args.recent,)))
    rows = [
        (series.when(s.peak), series.when(s.first), series.when(s.last), f"{s.score:.1f}")
        + (f"{series.values[s.peak]:g}", f"{expected[s.peak]:g}")
        for s in unlike
    ]
    seasons = f"seasons of {', '.join(map(str, periods))} rows" if periods else "no seasons"
    if args.out:
        write(args.out, _csv(series, model.names, scores, surprise, expected, residuals))
    if args.plot:
        write(args.plot, draw(series, model.names, expected, residuals, judged, unlike))
    begins = f"the first {warm:,} rows are" if warm != 1 else "the first row is"
    of = f"{args.data}, {series.name}: {counted(len(scores), 'row')}"
    print(paragraph(f"{of}, {seasons}; {begins} not judged"))
    if rows:
        print(table(("peak", "from", "to", "nats", series.name, "expected"), rows))
    else:
        print("nothing is unlike what came before it")
    return 0


def _csv(series, names: tuple[str, ...], scores, surprise, expected, residuals) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = "time" if series.times else "row"
    writer.writerow([first, series.name, "score", "surprise", "expected", *(f"residual_{name}" for name in names)])
    for row, value in enumerate(series.values.tolist()):
        numbers = (scores[row], surprise[row], expected[row], *residuals[row])
        when = series.times[row] if series.times else row
        writer.writerow([when, value, *(f"{number:.6g}" for number in numbers)])
    return text.getvalue()
