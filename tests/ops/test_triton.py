"""The fused memory attention: `fused.py` in a process of its own, and what is said where it cannot run."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from solomonic.ops.memory_attention import fastest, refusal

from . import fused
from .places import place_of
from .test_backends import BATCH, attention, attention_inputs

TESTS = [name for name in dir(fused) if name.startswith("test_")]


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("share", range(3))
def test_fused(share):
    """Shares of the tests, so that they can run side by side."""
    names = [f"{Path(fused.__file__)}::{name}" for name in TESTS[share::3]]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted")
def test_asked_for_by_name_on_a_device_it_cannot_serve():
    inputs = attention_inputs(3, 2, 1, 6, 0)
    with pytest.raises(ValueError, match="backend 'triton': expected tensors on a CUDA device, got cpu"):
        attention(*inputs, None, place_of("fresh", BATCH, 3), 2, 0, 1, 2, "triton")


def test_asked_for_by_name_without_the_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "solomonic.ops.memory_attention.triton", raising=False)
    monkeypatch.delattr("solomonic.ops.memory_attention.triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    inputs = attention_inputs(3, 2, 1, 6, 0)
    with pytest.raises(ValueError, match="backend 'triton': the package triton is not installed; pip install triton"):
        attention(*inputs, None, place_of("fresh", BATCH, 3), 2, 0, 1, 2, "triton")
    assert refusal("triton", inputs[0]) == "the package triton is not installed"


def test_the_fastest_on_a_cpu_is_blocked():
    assert fastest(torch.empty(6)) == "blocked"
