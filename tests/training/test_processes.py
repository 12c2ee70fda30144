"""Two processes, copies (DDP) or shards (FSDP2): the losses of one process with the same global batch."""

import json
import sys
import time

import pytest

from .texts import SHORT, SMALL, checkpoint, start, write_text

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    text = write_text(folder / "text.jsonl")
    words = [text, *SMALL, *SHORT, "--carry", "--steps", "12", "--out", folder / "out"]
    process = start(*words)
    assert process.wait(200) == 0, process.communicate()[0]
    return text, words[:-2], losses(folder / "out")


def losses(out):
    return json.loads((out / "training.json").read_text())["losses"]


@pytest.mark.parametrize(
    "how", [[], ["--fsdp"], ["--fsdp", "--accumulate", "2"]], ids=["ddp", "fsdp2", "fsdp2 in micro-batches"]
)
def test_losses_of_two_processes_are_those_of_one(alone, tmp_path, how):
    text, words, expected = alone
    process = start(*words, *how, "--out", tmp_path / "out", run=TWO)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said
    assert losses(tmp_path / "out") == pytest.approx(expected, abs=1e-5)
    tensors, _ = checkpoint(tmp_path / "out")
    assert tensors["run.0.state.position"].shape == (4,)


def test_two_shards_go_on_where_one_process_stopped(alone, tmp_path):
    """Stopped by a signal after a few steps, whichever it reached."""
    text, words, expected = alone
    words = [*words, "--save-every", "1", "--out", tmp_path / "out"]
    one = start(*words)
    path = tmp_path / "out" / "run" / "checkpoint.safetensors"
    while one.poll() is None and not path.exists():
        time.sleep(0.01)
    one.terminate()
    one.wait(60)
    before = len(checkpoint(tmp_path / "out")[0]["run.losses"])
    two = start(*words, "--fsdp", "--resume", run=TWO)
    said = two.communicate(timeout=200)[0]
    assert two.returncode == 0, said
    assert 0 < before < 12 and losses(tmp_path / "out") == pytest.approx(expected, abs=1e-5)


def test_sharded_means_sharded():
    """Each process of two holds half of a matrix."""
    import subprocess

    program = """
import torch
from torch.distributed.tensor import DTensor
from solomonic import LanguageModel, preset
from solomonic.training.config import RunConfig
from solomonic.training.text import build_accelerator, spread
config = RunConfig(steps=1, batch_size=2, lr=1e-3, fsdp=True)
accelerator = build_accelerator(config, ".", cpu=True)
model = LanguageModel(preset("bmojo", vocab_size=16, d_model=16, n_layers=1))
model, optimizer, _ = spread(accelerator, model, config)
weight = model.blocks[0].mlp.down.weight
assert isinstance(weight, DTensor) and weight.to_local().numel() * 2 == weight.numel(), weight
"""
    done = subprocess.run(
        [sys.executable, *TWO[:-1], "--no-python", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
