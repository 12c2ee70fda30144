"""The scores of the Numenta Anomaly Benchmark (arXiv 1510.03336): early detection is rewarded, false alarms cost.

With sigma(x) = 2 / (1 + e^(5 x)) - 1 and, for a row, x its place in the labelled window, from -1 at the left edge to
just before 0 at the right one, or behind it, how many widths past the last window's right edge:

    a window     the best sigma(x) of its detections over sigma(-1), times A_TP; -A_FN without a detection
    outside      A_FP sigma(x) for every detection, -A_FP from three widths on and before the first window

The first 15 % of a series, 750 rows at most, are probationary: they cost and earn nothing. The sum over all series,
at the one threshold that makes it highest, is put on a scale where no detection at all is 0 and the best possible 100.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PROBATION, LONGEST_PROBATION = 0.15, 750


@dataclass(frozen=True)
class Profile:
    """The gain of a detected window, and the costs of a detection outside and of a missed window."""

    hit: float = 1.0
    false_alarm: float = 0.11
    miss: float = 1.0


PROFILES = {"standard": Profile(), "reward low FP": Profile(false_alarm=0.22), "reward low FN": Profile(miss=2.0)}

Window = tuple[int, int]
"""First and last row of a labelled window, both in it."""


@dataclass(frozen=True)
class Result:
    """`score` is `points` normalised, 100 at best, NaN without windows; rows are detected at or above `threshold`.

    `points` are what the benchmark publishes for each series; `hits` windows of `windows` were found.
    """

    score: float
    points: float
    threshold: float
    hits: int
    windows: int
    false_alarms: int


def probation(rows: int) -> int:
    """Rows at the beginning of a series that are not scored."""
    return int(min(PROBATION * rows, LONGEST_PROBATION))


def weights(rows: int, windows: Sequence[Window], profile: Profile) -> np.ndarray:
    """The score (rows,) of a detection at each row: positive inside windows, mostly negative outside.

    ValueError for windows that are out of order, that overlap, or that are not within the series.
    """
    ends = [edge for window in windows for edge in window]
    if ends != sorted(ends) or any(not 0 <= edge < rows for edge in ends):
        raise ValueError(f"windows: expected rows of 0 to {rows - 1} in order, without overlap, got {list(windows)}")
    row = np.arange(rows)
    place = np.full(rows, np.inf)
    for first, last in windows:
        place[last + 1 :] = (row[last + 1 :] - last) / max(last - first, 1)
    worth = profile.false_alarm * np.where(place >= 3, -1.0, _sigma(np.minimum(place, 3)))
    for first, last in windows:
        inside = slice(first, last + 1)
        worth[inside] = profile.hit * _sigma((row[inside] - last - 1) / (last - first + 1)) / _sigma(-1.0)
    return worth


def score(
    series: Iterable[tuple[np.ndarray, Sequence[Window]]],
    profile: Profile = PROFILES["standard"],
    threshold: float | None = None,
) -> Result:
    """The benchmark's score of anomaly scores (rows,) and labelled windows of each series.

    `threshold` None: the one that scores highest.

    ValueError for scores that are not finite, or where no series has a window and no threshold is given.
    """
    values, worths, owners, count = [], [], [], 0
    for scores, windows in series:
        scores = np.asarray(scores, float)
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise ValueError(f"scores: expected one finite number a row, got shape {scores.shape} or NaN")
        owner = np.full(len(scores), -1)
        for first, last in windows:
            owner[first : last + 1] = count
            count += 1
        scored = slice(probation(len(scores)), None)
        values.append(scores[scored])
        worths.append(weights(len(scores), windows, profile)[scored])
        owners.append(owner[scored])
    if not count and threshold is None:
        raise ValueError("windows: expected a labelled window in one series at least, got none")
    value, worth, owner = np.concatenate(values), np.concatenate(worths), np.concatenate(owners)
    best = np.full(count, -profile.miss)
    total, alarms = best.sum(), 0
    best_scored = (total, np.inf, 0, 0)
    order = np.argsort(-value, kind="stable")
    for at, row in enumerate(order):
        if threshold is not None and value[row] < threshold:
            break
        if owner[row] < 0:
            total, alarms = total + worth[row], alarms + 1
        elif worth[row] > best[owner[row]]:
            total, best[owner[row]] = total + worth[row] - best[owner[row]], worth[row]
        last = at + 1 == len(order) or value[order[at + 1]] != value[row]
        if last and (threshold is not None or total > best_scored[0]):
            best_scored = (total, value[row], int((best > -profile.miss).sum()), alarms)
    nothing = -profile.miss * count
    total, reached, hits, alarms = best_scored
    normalised = 100 * (total - nothing) / (profile.hit * count - nothing) if count else np.nan
    reached = reached if threshold is None else threshold
    return Result(float(normalised), float(total), float(reached), hits, count, alarms)


def _sigma(x: np.ndarray | float) -> np.ndarray:
    return 2 / (1 + np.exp(5 * np.asarray(x, float))) - 1
