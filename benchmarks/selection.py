"""Which score should choose the tokens of the eidetic memory? B'MOJO on distractor recall, one run a score.

    python benchmarks/selection.py [SEEDS]

Everything else is as in the quick suite. Lines and a page go to runs/selection; a second start goes on.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from solomonic.compare.run import compare
from solomonic.compare.suites import QUICK, Suite

CHOICES = {
    "learned": {},
    "learned, delta rule": {"fading": "gated_deltanet"},
    "norm": {"score": "norm"},
    "norm, delta rule": {"score": "norm", "fading": "gated_deltanet"},
    "cosine": {"score": "cosine"},
    "delta": {"score": "delta", "fading": "gated_deltanet"},
    "random": {"score": "random"},
    "recent": {"score": "recent"},
}


def main(seeds: int = 1) -> None:
    quick = QUICK.runs["distractor_recall"]
    runs = {name: replace(quick, dials=quick.dials | dials) for name, dials in CHOICES.items()}
    suite = Suite("selection", ("bmojo",), runs, seeds, cost_lengths=(128, 2048))
    command = " ".join(["python benchmarks/selection.py", *sys.argv[1:]])
    print(compare(suite, Path("runs/selection"), torch.device("cpu"), os.cpu_count() or 1, command))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
