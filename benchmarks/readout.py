"""How should a B'MOJO layer read its fading memory? The quick suite's two tasks, one run a choice.

    python benchmarks/readout.py [SEEDS] [CHOICE...]

Everything else is as in the quick suite. Lines and a page go to runs/readout; a second start goes on.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from solomonic.compare.run import compare
from solomonic.compare.suites import QUICK, Suite
from solomonic.spelling import unknown

NONE, HALF = {"fading_dropout": 0.0}, {"fading_dropout": 0.5}
CHOICES = {
    "published": ({"readout": "softmax"}, NONE),
    "both": ({"readout": "both"}, NONE),
    "sum": ({"combine": "sum"}, NONE),
    "norm": ({"combine": "norm"}, NONE),
    "gate": ({"combine": "gate"}, NONE),
    "concat": ({"combine": "concat"}, NONE),
    "sum, attention first": ({"combine": "sum"}, HALF),
    "gate, attention first": ({"combine": "gate"}, HALF),
    "no eidetic memory": ({"capacity": 0}, HALF),
    "slots that never fade": ({"slot_decay": 0.0}, HALF),
    "convolution": ({"conv": 4}, HALF),
    "the last tokens": ({"score": "recent"}, HALF),
    "error of the delta rule": ({"score": "delta", "fading": "gated_deltanet"}, HALF),
    "error times write strength": ({"score": "write", "fading": "gated_deltanet"}, HALF),
}


def main(seeds: int, names: list[str]) -> None:
    for name in names:
        if name not in CHOICES:
            raise unknown("choice", name, CHOICES)
    runs = {
        f"{task}: {name}": replace(run, dials=run.dials | CHOICES[name][0], train=CHOICES[name][1])
        for name in names or CHOICES
        for task, run in QUICK.runs.items()
    }
    suite = Suite("readout", ("bmojo",), runs, seeds, cost_lengths=(128, 2048))
    command = " ".join(["python benchmarks/readout.py", *sys.argv[1:]])
    print(compare(suite, Path("runs/readout"), torch.device("cpu"), os.cpu_count() or 1, command))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1, sys.argv[2:])
