"""The residual stack on series of the Numenta Anomaly Benchmark, beside two published detectors run here.

    python benchmarks/anomalies.py PATH [--json FILE]

PATH is a folder with series (timestamp, value) and nab_windows.json, the benchmark's labelled windows (its
labels/combined_windows.json). Scores are the benchmark's, the threshold chosen over the series in the folder together, as
there over all 58: detectors run here are compared with each other; what was published for 58 series is not comparable.
"""

import argparse
import json
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PATH")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    data, result = labelled(chosen.folder), {}
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
    print("\neach series, standard profile, at the detector's one threshold")
    print(table(("detector", *data), [(name, *r["series at that threshold"].values()) for name, r in result.items()]))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
