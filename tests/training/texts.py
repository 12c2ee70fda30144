"""A small text, a command line that trains on it, and what a run left."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from solomonic.checkpoints.training import load

SMALL = ["--d-model", "16", "--n-layers", "1", "--window", "4", "--capacity", "4", "--state-size", "4"]
SHORT = ["--length", "16", "--batch-size", "4", "--eval-tokens", "512", "--log-every", "2", "--cpu"]


def write_text(path: Path, documents: int = 30) -> Path:
    """JSON lines of documents from a few bytes to several rows of 16."""
    words = ["window", "state", "memory", "fades", "keeps", "asks"]
    with path.open("w") as file:
        for i in range(documents):
            text = " ".join(words[(i * j + j) % len(words)] for j in range(1 + i * 3))
            file.write(json.dumps({"text": text}) + "\n")
    return path


def command(*words, run: list[str] = ("-m",)) -> list[str]:
    return [sys.executable, *run, "solomonic", "train", *map(str, words)]


def start(*words, run: list[str] = ("-m",), **options) -> subprocess.Popen:
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command(*words, run=run), **pipes | options)


def checkpoint(out: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return load(out / "run" / "checkpoint.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses_of(out: Path) -> list[float]:
    return json.loads((out / "training.json").read_text())["losses"]
