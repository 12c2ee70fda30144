"""Nonsense for every option of every command: an answer or one line, in time, whatever the number or the name.

Options are those of the parser itself, so that a new one is tried too. What would run long is cut short where the work
begins: everything up to there is as a person runs it.
"""

import argparse
import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import save
from solomonic.data.tokenizer import Tokenizer

from ..commands import commands
from . import cases, command

NUMBERS = [
    "-1",
    "0",
    "1",
    "2",
    "nan",
    "-inf",
    "1e-320",
    "x",
    "",
    "1_0",
    "0x10",
    str(10**30),
    str(-(10**30)),
    "9" * 5000,
]
NUMBERS += [str(2**63), str(2**64), "0.5", "\N{ARABIC-INDIC DIGIT THREE}", "-0", " 1"]
LARGE = ["1000000000", str(2**31 - 1), "1e30", "inf", "1e400"]
TEXTS = [
    "",
    "x",
    "a\0b",
    "\udcff",
    "..",
    "/dev/null",
    "x" * 5000,
    "no/such",
    "-1",
    "1",
    "{text}",
    "\x1b[2J",
    "[" * 3000,
]

SLOW = {  # options by which a person asks for as much time as the number says
    "bench": {"seconds", "lengths"},
    "eval": {"samples", "lengths"},
    "generate": {"max_tokens"},
    "probe": {"generate", "tokens"},
    "solomonoff": {"seconds", "steps", "phases", "length", "each", "depth"},
    "texture": {"seconds", "frames"},
    "transduce": {"steps"},
}
LEFT_OUT = {"serve"}  # it serves until it is told to end; tests/serve has its arguments
UNTRIED = {"help", "version", "harness"}  # the last imports a large library; tests/evaluation/test_harness.py has it


class Reached(ValueError):
    """The work would begin."""


@pytest.fixture(scope="module", autouse=True)
def cut_short(tmp_path_factory):
    """Work that takes long is not begun; what it checks first is."""
    from solomonic.training import text
    from solomonic.training.rows import Rows

    def train(accelerator, model, tokenizer, data, config, *rest):
        rows = Rows(data.train, config.length, config.batch_size, config.seed, config.carry)
        rows.batch(0), config.rate(0), config.rate(config.steps - 1), config.dropped(0)
        raise Reached("trained")

    def reached(*given, **more):
        raise Reached("begun")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "train", train)
        patch.setattr("solomonic.cli.compare.compare", reached)
        patch.setattr("solomonic.probe.study.study", reached)
        patch.setattr("solomonic.bench.run.rows", reached)
        patch.setattr("solomonic.theory.realization.identify", reached)
        patch.setattr("solomonic.theory.texture.write", reached)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
        patch.chdir(tmp_path_factory.mktemp("arguments"))
        yield


@cache
def inputs() -> Path:
    """A tiny model, and a text, tables and a clip for it."""
    import av

    path = Path("inputs").resolve()
    path.mkdir()
    torch.manual_seed(0)
    dials = dict(d_model=16, n_layers=1, window=5, capacity=4, state_size=4)
    save(path / "m", LanguageModel(preset("bmojo", vocab_size=257, **dials)), Tokenizer.for_bytes())
    (path / "text.txt").write_text("words, and more words. " * 200)
    (path / "examples.jsonl").write_text('{"text": "a", "label": "b"}\n{"text": "c", "label": "d"}\n')
    rows = "\n".join(f"{np.sin(i / 5)},{np.cos(i / 3)}" for i in range(120))
    (path / "table.csv").write_text(f"y,u\n{rows}\n")
    with av.open(str(path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        for i in range(9):
            picture = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def sound(name: str) -> list[str]:
    """Words with which the command does little."""
    i = inputs()
    return {
        "anomalies": [f"{i}/table.csv", "--column", "y"],
        "bench": ["--work=decode", "--scope=layer", "--lengths=8", "--d-model=16", "--n-heads=2", "--seconds=0.01"],
        "chat": [f"{i}/m", "--max-tokens=2"],
        "compare": ["--suite=quick", "--arch", "mamba2", "--task", "mqar"],
        "eval": [f"{i}/m", "--data", f"{i}/text.txt", "--lengths=16", "--samples=1"],
        "generate": [f"{i}/m", "--max-tokens=2", "hello"],
        "identify": [f"{i}/table.csv", "--no-picture"],
        "list": [],
        "memory add": [f"{i}/text.txt", "--model", f"{i}/m", "--store", "store"],
        "memory search": ["words", "--model", f"{i}/m", "--store", "store"],
        "probe": [f"{i}/m", "--data", f"{i}/text.txt", "--tokens=2048", "--generate=1"],
        "solomonoff": ["0101", "--phases=5"],
        "texture": [f"{i}/clip.mp4", "--out=new.mp4", "--seconds=0.1", "--order=2"],
        "train": [f"{i}/text.txt", "--out=run", "--steps=1", "--length=8", "--batch-size=2", "--d-model=16", "--cpu"],
        "transduce": [f"{i}/m", "--train", f"{i}/examples.jsonl", "--test", f"{i}/examples.jsonl", "--steps=1"],
    }.get(name, ["--store", "store"])


COMMANDS = {" ".join(words): one for words, one in commands().items() if words[0] not in LEFT_OUT}


def drawn(data, name: str, action: argparse.Action) -> list[str]:
    """The option with a value, or with several."""
    if action.nargs == 0:
        return [action.option_strings[0]]
    is_number = action.type is not None and action.type not in (str, Path)
    pool = NUMBERS + ([] if action.dest in SLOW.get(name, ()) else LARGE) if is_number else TEXTS
    count = (
        data.draw(st.integers(1, 3)) if action.nargs in ("+", "*") else 1 if action.nargs == "?" else action.nargs or 1
    )
    values = [data.draw(st.sampled_from(pool)) for _ in range(count)]
    if count == 1:
        return [f"{action.option_strings[0]}={values[0]}"]
    return [action.option_strings[0], *values]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_nonsense_is_one_line(name):
    one = COMMANDS[name]
    options = [action for action in one._actions if action.option_strings and action.dest not in UNTRIED]

    @cases(max(8, min(3 * len(options), 60)))
    @given(st.data())
    def tried(data):
        words = [*name.split(), *sound(name)]
        for action in data.draw(st.lists(st.sampled_from(options), min_size=1, max_size=2)) if options else ():
            words += drawn(data, name, action)
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"hello\n"))
        command(*words)

    tried()
