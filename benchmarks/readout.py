"""What should a B'MOJO layer be made of? The quick suite's two tasks, one run a choice.

    python benchmarks/readout.py [SEEDS] [CHOICE...]

Everything else is as in the quick suite, but that text is scored at 8,192 bytes too. Lines and a page go to runs/readout;
a second start goes on. The choice "scores" stands for those that differ in what is kept alone, at equal bytes of state:
learned admission, scores of the delta rule, recency, chance, and no slots but a longer window.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from solomonic._utils.spelling import unknown
from solomonic.compare.run import compare
from solomonic.compare.suites import QUICK, Run, Suite

NONE, FIRST = {"fading_dropout": 0.0}, {"fading_dropout": 1.0}  # on recall; text is trained without
CHOICES = {
    "published": ({"readout": "softmax", "expand": 1, "n_kv_heads": 4}, NONE),
    "both": ({"readout": "both"}, NONE),
    "sum": ({"combine": "sum"}, NONE),
    "norm": ({"combine": "norm"}, NONE),
    "gate": ({"combine": "gate"}, NONE),
    "concat": ({"combine": "concat"}, NONE),
    "sum, attention first": ({"combine": "sum"}, FIRST),
    "default": ({}, FIRST),
    "fading memory as wide as the model": ({"expand": 1}, FIRST),
    "fading memory three times as wide": ({"expand": 3}, FIRST),
    "a head of keys for each query": ({"n_kv_heads": 4}, FIRST),
    "no eidetic memory": ({"capacity": 0}, FIRST),
    "slots that never fade": ({"slot_decay": 0.0}, FIRST),
    "convolution": ({"conv": 4}, FIRST),
    "longer window": ({"capacity": 0, "window": None}, FIRST),
    "last tokens": ({"score": "recent"}, FIRST),
    "random": ({"score": "random"}, FIRST),
    "error of the causal average": ({"score": "norm"}, FIRST),
    "delta, learned": ({"fading": "gated_deltanet"}, FIRST),
    "delta, error": ({"score": "delta", "fading": "gated_deltanet"}, FIRST),
    "delta, error times strength": ({"score": "write", "fading": "gated_deltanet"}, FIRST),
    "delta, last tokens": ({"score": "recent", "fading": "gated_deltanet"}, FIRST),
}
SCORES = ("default", *tuple(CHOICES)[-8:])


def chosen(run: Run, dials: dict, train: dict) -> Run:
    """The run with these dials; a window of None takes the bytes of the slots."""
    dials = run.dials | dials
    if dials["window"] is None:
        dials["window"] = run.dials["window"] + run.dials["capacity"]
    lengths = (256, 2048, 8192) if run.task == "text" else run.lengths
    return replace(run, dials=dials, lengths=lengths, train=train if run.train else {})


def main(seeds: int, names: list[str]) -> None:
    names = [name for choice in names for name in (SCORES if choice == "scores" else (choice,))]
    for name in names:
        if name not in CHOICES:
            raise unknown("choice", name, CHOICES)
    runs = {
        f"{task}: {name}": chosen(run, *CHOICES[name]) for name in names or CHOICES for task, run in QUICK.runs.items()
    }
    suite = Suite("readout", ("bmojo",), runs, seeds, cost_lengths=(128, 2048))
    command = " ".join(["python benchmarks/readout.py", *sys.argv[1:]])
    print(compare(suite, Path("runs/readout"), torch.device("cpu"), os.cpu_count() or 1, command))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1, sys.argv[2:])
