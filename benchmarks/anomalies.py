"""The residual stack on series of the Numenta Anomaly Benchmark, beside two published detectors run here.

    python benchmarks/anomalies.py [PATH] [--half tuned|judged] [--threshold X] [--json FILE]

PATH is a checkout of the benchmark, or a folder with any of its series (timestamp, value), in folders or not, and its
labels/combined_windows.json, called nab_windows.json. Scores are the benchmark's, the threshold chosen over the series
that are there together, as there over all 58: detectors run here are compared with each other.
Without PATH the series are made: seasons, coloured noise and drift of all sizes, and one to three planted anomalies each.

TUNED and JUDGED, twelve series each, were written down before anything was tuned on the first: the four that had been
looked at since the first version are tuned on; of the others of each category, in the order of the alphabet, every
second one, and none of artificialWithAnomaly. Both halves have been in sight since (docs/layers.md). The other 34
series of the benchmark are in neither.
"""

import argparse
import csv
import json
import math
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from command_common import existing_folder, new_file, stop

from solomonic._utils.files import write
from solomonic.cli._table import table
from solomonic.theory.residual import stack
from solomonic.theory.residual.detectors import relative_entropy, windowed_gaussian
from solomonic.theory.residual.nab import PROFILES, score
from solomonic.theory.residual.series import Series

TUNED = (
    "artificialNoAnomaly/art_noisy",
    "artificialWithAnomaly/art_daily_jumpsup",
    "realAWSCloudwatch/ec2_cpu_utilization_825cc2",
    "realAWSCloudwatch/ec2_network_in_257a54",
    "realAWSCloudwatch/grok_asg_anomaly",
    "realAdExchange/exchange-3_cpm_results",
    "realKnownCause/machine_temperature_system_failure",
    "realKnownCause/nyc_taxi",
    "realTraffic/occupancy_6005",
    "realTraffic/speed_t4013",
    "realTweets/Twitter_volume_CVS",
    "realTweets/Twitter_volume_UPS",
)
JUDGED = (
    "artificialNoAnomaly/art_flatline",
    "artificialWithAnomaly/art_daily_flatmiddle",
    "artificialWithAnomaly/art_load_balancer_spikes",
    "realAWSCloudwatch/ec2_cpu_utilization_53ea38",
    "realAWSCloudwatch/ec2_disk_write_bytes_1ef3de",
    "realAWSCloudwatch/elb_request_count_8c0756",
    "realAdExchange/exchange-2_cpc_results",
    "realAdExchange/exchange-4_cpc_results",
    "realTraffic/TravelTime_387",
    "realTraffic/speed_6005",
    "realTweets/Twitter_volume_AAPL",
    "realTweets/Twitter_volume_IBM",
)

LABELS = ("nab_windows.json", "labels/combined_windows.json")
DETECTORS = {
    "residual stack": lambda series: stack(series.periods()).run(series.values)[0].scores,
    "relative entropy": lambda series: relative_entropy(series.values),
    "windowed Gaussian": lambda series: windowed_gaussian(series.values),
    "random": lambda series: np.random.default_rng(0).random(len(series.values)),
}


def labelled(folder: Path) -> dict[str, tuple[Series, list[tuple[int, int]]]]:
    """category/name of each series that is there, the series, and the first and last rows of its labelled windows."""
    labels = next(filter(Path.exists, (folder / name for name in LABELS)), None)
    if not labels:
        stop(f"{folder}: expected the labelled windows as {' or '.join(LABELS)}, got neither")
    paths = {path.name: path for path in folder.rglob("*.csv") if "results" not in path.relative_to(folder).parts}
    data = {}
    for name, spans in sorted(json.loads(labels.read_text()).items()):
        if path := paths.get(Path(name).name):
            series = read(path)
            rows = [
                (series.times.index(first[:19]), len(series.times) - 1 - series.times[::-1].index(last[:19]))
                for first, last in spans
            ]
            data[name.removesuffix(".csv")] = (series, rows)
    if not data:
        stop(f"{folder}: expected series that {labels.name} names, got none")
    return data


def read(path: Path) -> Series:
    """A series of the benchmark; one that never changes, which the command refuses, is one of them."""
    with path.open(newline="") as file:
        times, values = zip(*list(csv.reader(file))[1:])
    moments = [datetime.fromisoformat(time) for time in times]
    steps = [later - earlier for earlier, later in pairwise(moments)]
    return Series("value", np.array(values, float), list(times), max(set(steps), key=steps.count), [], 2)


def planted(count: int = 36, rows: int = 3000, day: int = 96) -> dict[str, tuple[Series, list[tuple[int, int]]]]:
    """Series with spikes, shifts, flat stretches, changes of scale and noise; windows a tenth of the rows together."""
    data = {}
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
        data[f"planted {seed}"] = (Series("value", values, None, timedelta(days=1) / day, [], 2), windows)
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=existing_folder, metavar="PATH")
    parser.add_argument("--half", choices=("tuned", "judged"), help="of the 24 series that the docs report on")
    parser.add_argument("--threshold", type=float, help="of the residual stack, instead of its best one")
    parser.add_argument("--json", type=new_file, metavar="FILE")
    args = parser.parse_args()
    data, result = labelled(args.folder) if args.folder else planted(), {}
    if args.half:
        half = TUNED if args.half == "tuned" else JUDGED
        if missing := set(half) - data.keys():
            stop(f"{args.folder}: expected all of the {args.half} half, missing {sorted(missing)}")
        data = {name: data[name] for name in half}
    groups = {}
    for key in data:
        groups.setdefault(key.split("/")[0] if "/" in key else "all", []).append(key)
    for name, detect in DETECTORS.items():
        began = time.perf_counter()
        scored = {key: (detect(series), rows) for key, (series, rows) in data.items()}
        seconds = time.perf_counter() - began
        fixed = args.threshold if name == "residual stack" else None
        best = {profile: score(scored.values(), settings, fixed) for profile, settings in PROFILES.items()}
        standard = best["standard"]
        at = standard.threshold
        result[name] = {"seconds": seconds, "threshold": at, "hits": standard.hits, "windows": standard.windows}
        result[name] |= {"false_alarms": standard.false_alarms, "scores": {p: r.score for p, r in best.items()}}
        result[name]["groups"] = {
            group: asdict(score([scored[key] for key in keys], threshold=at)) for group, keys in groups.items()
        }
        result[name]["series"] = {key: asdict(score([one], threshold=at)) for key, one in scored.items()}
    lines = [
        (name, *r["scores"].values(), f"{r['hits']} of {r['windows']}", r["false_alarms"], r["threshold"], r["seconds"])
        for name, r in result.items()
    ]
    print(table(("detector", *PROFILES, "windows found", "false alarms", "threshold", "seconds"), lines))
    for kind, what in (("groups", "score"), ("series", "points")):
        if len(data) > 1 and args.folder:
            print(f"\nstandard {what}, at the detector's one threshold of the standard profile; false alarms")
            lines = [
                (key, *(f"{shown(r[kind][key][what])}; {r[kind][key]['false_alarms']}" for r in result.values()))
                for key in result["random"][kind]
            ]
            print(table((kind, *result), lines))
    if args.json:
        write(args.json, json.dumps(result, indent=1) + "\n")


def shown(value: float) -> str:
    """A group without windows has no score."""
    return "-" if math.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
