"""The fused kernels: `fused.py`, `fused_rows.py` and `fused_ssd.py` in a process of their own, and what is said where they cannot run."""

import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from solomonic.ops import dispatch
from solomonic.ops import rowwise as rows
from solomonic.ops import ssd as ssd_package
from solomonic.ops.memory_attention import fastest, refusal

from . import fused, fused_rows, fused_ssd
from .sequences import sequences_of
from .test_backends import BATCH, attention, attention_inputs

TESTS = [f"{Path(m.__file__)}::{n}" for m in (fused, fused_rows, fused_ssd) for n in dir(m) if n.startswith("test_")]


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("share", range(3))
def test_fused(share):
    """Shares of the tests, so that they can run side by side."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    numpy = ["-W", "ignore::RuntimeWarning"]  # the interpreter computes with it, and some numbers leave its range
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *numpy, *TESTS[share::3]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted")
@pytest.mark.parametrize(
    "capability, dim, dtype, spills",
    [
        (
            *(80, 128, torch.float32),
            {"window keys": 256, "fading keys": 256, "kept keys": 224, "states": 96}
            | {"query, backward": 224, "key, backward": 768, "convolve, backward": 40},
        ),
        (90, 64, torch.bfloat16, {"key, backward": 224}),
    ],
)
def test_every_kernel_compiles_for_a_gpu(capability, dim, dtype, spills):
    """The interpreter runs what the compiler refuses: a variable that changes its type in a loop, for one.

    spills: bytes of a thread that a kernel spills; where it is not named, none.
    """
    found = {}
    for launch, tile, kernel in kernels().figures(capability, dim, dtype, most=1):
        found[launch.name] = kernel
        assert kernel["instructions"] > 100
        assert kernel["spilled"] <= spills.get(launch.name, 0) and kernel["shared"] <= 160 << 10, (launch.name, kernel)
    assert {"queries", "queries, backward", "window keys", "fading keys", "kept keys", "sum"} < found.keys()
    assert {"states", "carry, backward", "output", "query, backward", "key, backward"} < found.keys()
    assert {"norm", "gated norm, backward", "swiglu", "convolve, backward", "spread"} < found.keys()
    assert len(found["queries"]["loops"]) == 3


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted")
def test_kernels_compile_where_sizes_are_one():
    """A size of 1 is a constant to Triton's compiler, of another type, which the interpreter knows nothing of."""
    k, one = kernels(), {"heads": 1, "length": 1}
    for module, step in (
        (k.attention, lambda: k.attention_step(64, torch.bfloat16, groups=1, window=1, capacity=1, **one)),
        (k.fused_ssd, lambda: k.scan_step(64, torch.bfloat16, keys=1, **one)),
        (k.fused_rows, lambda: k.rows_step(2, torch.bfloat16, length=1)),
    ):
        for launch in k.caught(module, step):
            k.compiled(launch, launch.tiles[0], k.GPUTarget("cuda", 90, 32))


def kernels():
    """`benchmarks/kernels.py`."""
    spec = spec_from_file_location("kernels", Path(__file__).parents[2] / "benchmarks" / "kernels.py")
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted")
def test_asked_for_by_name_on_a_device_it_cannot_serve():
    inputs = attention_inputs(3, 2, 1, 6, 0)
    with pytest.raises(ValueError, match="backend 'triton': expected tensors on a CUDA device, got cpu"):
        attention(*inputs, None, sequences_of("fresh", BATCH, 3), 2, 0, 1, 2, "triton")


def test_asked_for_by_name_without_the_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "solomonic.ops.memory_attention.triton", raising=False)
    monkeypatch.delattr("solomonic.ops.memory_attention.triton", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    inputs = attention_inputs(3, 2, 1, 6, 0)
    with pytest.raises(ValueError, match="backend 'triton': the package triton is not installed; pip install triton"):
        attention(*inputs, None, sequences_of("fresh", BATCH, 3), 2, 0, 1, 2, "triton")
    assert refusal("triton", inputs[0]) == "the package triton is not installed"


def test_the_fastest_on_a_cpu_is_tiled():
    assert fastest(torch.empty(6)) == "tiled"


def test_rows_and_the_scan_without_the_package(monkeypatch):
    monkeypatch.setattr(dispatch, "triton_module", lambda load: None)
    x = torch.randn(1, 5, 2, 4)
    with pytest.raises(ValueError, match="backend 'triton': the package triton is not installed; pip install triton"):
        rows.swiglu(x, x, "triton")
    with pytest.raises(ValueError, match="backend 'triton': the package triton is not installed; pip install triton"):
        ssd_package.ssd(x, x, x, -x[..., 0].abs(), None, sequences_of("fresh", 1, 5), "triton")
