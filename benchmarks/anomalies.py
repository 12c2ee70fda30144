"""The residual stack on series of the Numenta Anomaly Benchmark, beside two published detectors run here.

    python benchmarks/anomalies.py [PATH] [--json FILE]

PATH is a folder with series (timestamp, value) and nab_windows.json, the benchmark's labelled windows (its
labels/combined_windows.json). Scores are the benchmark's, the threshold chosen over the series in the folder together, as
there over all 58: detectors run here are compared with each other; what was published for 58 series is not comparable.
Without PATH the series are made: seasons, coloured noise and drift of all sizes, and one to three planted anomalies each.
"""

import argparse
import json
import time
from datetime import timedelta
from pathlib import Path

import numpy as np

from solomonic.cli._table import table
from solomonic.theory.residual import stack
from solomonic.theory.residual.detectors import relative_entropy, windowed_gaussian
from solomonic.theory.residual.nab import PROFILES, score
from solomonic.theory.residual.series import Series, read

DETECTORS = {
    "residual stack": lambda series: stack(series.periods()).run(series.values)[0].scores,
    "relative entropy": lambda series: relative_entropy(series.values),
    "windowed Gaussian": lambda series: windowed_gaussian(series.values),
    "random": lambda series: np.random.default_rng(0).random(len(series.values)),
}


def labelled(folder: Path) -> dict[str, tuple[Series, list[tuple[int, int]]]]:
    windows = json.loads((folder / "nab_windows.json").read_text())
    found = {}
    for name, spans in sorted(windows.items()):
        path = folder / Path(name).name
        if path.exists():
            series = read(path, "value")
            rows = [
                (series.times.index(first[:19]), len(series.times) - 1 - series.times[::-1].index(last[:19]))
                for first, last in spans
            ]
            found[path.stem] = (series, rows)
    if not found:
        raise SystemExit(f"{folder}: expected series that nab_windows.json names, found none")
    return found


def planted(count: int = 36, rows: int = 3000, day: int = 96) -> dict[str, tuple[Series, list[tuple[int, int]]]]:
    """Series with spikes, shifts, flat stretches, changes of scale and noise; windows a tenth of the rows together."""
    found = {}
    for seed in range(100, 100 + count):
        noise, t = np.random.default_rng(seed), np.arange(rows)
        shape = np.exp(noise.uniform(1, 3) * np.cos(2 * np.pi * (t / day - noise.uniform())))
        week = 1 - noise.choice([0, 0.4]) * ((t // day) % 7 >= 5)
        season = noise.choice([0, 1.0, 2.0]) * (shape - shape.mean()) / shape.std() * week
        keep, drive = noise.uniform(0.3, 0.95), noise.standard_normal(rows)
        if noise.random() < 0.3:
            drive = noise.standard_t(4, rows) / 2**0.5
        coloured = np.zeros(rows)
        for i in range(1, rows):
            coloured[i] = keep * coloured[i - 1] + drive[i]
        coloured *= noise.uniform(0.1, 0.5) / coloured.std()
        x = season + coloured + np.cumsum(noise.standard_normal(rows)) * noise.choice([0, 0.005])
        many = int(noise.integers(1, 4))
        width = rows // 10 // many
        able = np.arange(rows * 15 // 100 + width, rows - 2 * width, 2 * width + width // 2)
        windows = []
        for start in np.sort(noise.choice(able, many, replace=False)):
            kind = noise.choice(["spike", "shift", "flat", "scale", "noise", "burst"])
            length = int(noise.integers(day // 4, day))
            first = start + width // 2
            last = first + length
            if kind == "spike":
                x[first : first + 2] += noise.choice([-1, 1]) * noise.uniform(2, 4)
            elif kind == "shift":
                x[first:] += noise.choice([-1, 1]) * noise.uniform(1, 2.5)
            elif kind == "flat":
                x[first:last] = x[first]
            elif kind == "scale":
                x[first:last] *= noise.choice([0.3, 2.0])
            elif kind == "noise":
                x[first:last] += noise.standard_normal(length) * noise.uniform(0.5, 1.5)
            else:
                at = noise.integers(first, last, 6)
                x[at] += noise.uniform(1, 3, 6)
            windows.append((int(start), int(start + width)))
        values = x * noise.uniform(1, 1000) + noise.uniform(-100, 100)
        found[f"planted {seed}"] = (Series("value", values, None, timedelta(days=1) / day, [], 2), windows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    data, result = labelled(chosen.folder) if chosen.folder else planted(), {}
    for name, detect in DETECTORS.items():
        began = time.perf_counter()
        scored = {key: (detect(series), rows) for key, (series, rows) in data.items()}
        seconds = time.perf_counter() - began
        best = {profile: score(scored.values(), settings) for profile, settings in PROFILES.items()}
        at = best["standard"].threshold
        alone = {key: score([one], threshold=at).score for key, one in scored.items()}
        standard = best["standard"]
        result[name] = {"seconds": seconds, "threshold": at, "hits": standard.hits, "windows": standard.windows}
        result[name] |= {"false_alarms": standard.false_alarms, "scores": {p: r.score for p, r in best.items()}}
        result[name]["series at that threshold"] = alone
    head = ("detector", *PROFILES, "windows found", "false alarms", "seconds")
    print(
        table(
            head,
            [
                (name, *r["scores"].values(), f"{r['hits']} of {r['windows']}", r["false_alarms"], r["seconds"])
                for name, r in result.items()
            ],
        )
    )
    if chosen.folder:
        print("\neach series, standard profile, at the detector's one threshold")
        rows = [(name, *r["series at that threshold"].values()) for name, r in result.items()]
        print(table(("detector", *data), rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
