"""Any device that PyTorch has: nothing waits for it, nothing names it, and its results are the CPU's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import solomonic
from solomonic import PRESETS
from solomonic.mixers.gated_kalmanet import GatedKalmaNet
from solomonic.model import map_state

from .device import compiler
from .laws.cases import MODEL_CASES, assert_close, assert_same_state, model_of, tokens

LENGTH = 24
ROOT = Path(solomonic.__file__).parent


class NarrowNumbers(TorchDispatchMode):
    """Refuses whole numbers of more than 32 bits among what operators are given."""

    def __torch_dispatch__(self, operator, types, inputs=(), named=None):
        for value in tree_leaves((inputs, named or {})):
            if type(value) is int and value != torch.iinfo(torch.int64).max:  # the end of a slice
                assert -(1 << 31) <= value < 1 << 31, f"{operator}: {value}"
        return operator(*inputs, **named or {})


@pytest.mark.parametrize("case", MODEL_CASES)
def test_nothing_depends_on_values(case):
    """On the meta device there are no values: shapes, branches and the gradient's graph do without."""
    model = model_of(case).to("meta")
    for module in model.modules():
        if isinstance(module, GatedKalmaNet):
            module.iterations = 3  # all alike
    x = tokens(2, LENGTH).to("meta")
    ragged = {"mask": torch.ones_like(x, dtype=torch.bool), "segments": torch.zeros_like(x)}
    first, second = ({}, ragged) if model.bounded else (ragged, {})  # a state that grows waits where it may drop rows
    once, state = model(x, **first)
    again, state = model(x, state, **second)
    more, state = model(x[:, :1], state)
    assert (once + again + more).shape == (2, LENGTH, model.config.vocab_size)
    (once + again + more).sum().backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_no_number_is_wider_than_32_bits(name):
    model, x = model_of(name), tokens(2, LENGTH)
    with NarrowNumbers(), torch.no_grad():
        _, state = model(x, mask=torch.ones_like(x, dtype=torch.bool), segments=torch.zeros_like(x))
        model(x[:, :1], state)


def test_a_stream_beyond_32_bits():
    """Tokens kept 2^32 tokens ago are still found: numbers on the device need not count that far."""
    model = model_of("bmojo")
    far = (1 << 32) // 7 * 7  # of whole blocks
    with torch.no_grad():
        _, state = model(tokens(2, 63))  # nothing that is kept is in the window too
        later = map_state(torch.clone, state)
        later["position"] += far
        for layer in later["layers"]:
            layer["attention"]["slot_age"] += far
        expected, expected_state = model(tokens(2, 30, seed=2), state)
        for cuts in ([30], [1] * 30):
            got, after = [], later
            for part in tokens(2, 30, seed=2).split(cuts, 1):
                logits, after = model(part, after)
                got.append(logits)
            assert_close(torch.cat(got, 1), expected, "logits")
            for layer, want in zip(after["layers"], expected_state["layers"]):
                held = want["attention"]["slot_age"] > 30 + 7
                assert held.any() and (layer["attention"]["slot_age"][held] >= 1 << 30).all()
                layer["attention"]["slot_age"] = want["attention"]["slot_age"]
            assert_same_state(after | {"position": after["position"] - far}, expected_state, "state")


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler, which builds the device")
def test_every_preset_trains_and_decodes_on_a_device_of_our_own():
    """`device/check.py`, in a process of its own: a device, once known to PyTorch, stays."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.check"],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ran = dict(re.findall(r"^(\w+): (\d+) operators on the device$", done.stdout, re.MULTILINE))
    assert ran.keys() == PRESETS.keys() and all(int(count) > 1000 for count in ran.values())


def test_nothing_names_a_vendor():
    """But for files that are a vendor's: `triton.py` and `fla.py`, beside the backends they are one of."""
    names = re.compile(r"(?<![a-z])(cuda|xpu|hip|rocm|mps|npu|hpu|xla|neuron)(?![a-z])", re.IGNORECASE)
    offences = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.name not in ("triton.py", "fla.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if names.search(line) and "help=" not in line  # the help of --device gives examples
    ]
    assert not offences, "\n".join(offences)
