"""The backends through flash-linear-attention, as far as a CPU goes: what they hand over and what they refuse.

Their kernels run on CUDA devices alone. Their plain forms, which take the same arguments, stand in for them here.
"""

import ast
from pathlib import Path

import pytest
import torch

import solomonic
from solomonic.ops import gated_delta as delta_package
from solomonic.ops import ssd as ssd_package
from solomonic.ops.gated_delta import fla as delta
from solomonic.ops.gated_delta import gated_delta
from solomonic.ops.gated_delta.call import DeltaCall
from solomonic.ops.ssd import fla as simple
from solomonic.ops.ssd import ssd
from solomonic.ops.ssd.call import SSDCall

from ..laws.cases import assert_close
from .sequences import sequences_of
from .test_backends import BATCH, gated_delta_inputs, outputs_and_gradients, ssd_inputs

ROOT = Path(solomonic.__file__).parent


def same(ours, theirs, inputs, sequences):
    """Real rows, the state and the gradients of both."""
    real = sequences.real()

    def rows(call):
        def run(*arguments):
            y, *_, state = call(*arguments, sequences)
            return [y if real is None else y[real], state]

        return run

    expected, got = outputs_and_gradients(rows(ours), inputs), outputs_and_gradients(rows(theirs), inputs)
    for name, a, b in zip(("outputs", "gradients"), got, expected):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, f"{name} {i}", floor=0.1)


@pytest.mark.parametrize("kind", ["fresh", "continued", "padded"])
@pytest.mark.parametrize("length", [2, 70])
def test_simple_gla_is_given_what_it_takes(length, kind):
    naive = pytest.importorskip("fla.ops.simple_gla.naive").naive_chunk_simple_gla
    sequences = sequences_of(kind, BATCH, length)
    same(ssd, lambda *inputs: simple.mapped(naive, SSDCall(*inputs)), ssd_inputs(length, True), sequences)


@pytest.mark.parametrize("kind", ["fresh", "continued", "padded"])
@pytest.mark.parametrize("length", [2, 70])
def test_the_delta_rule_is_given_what_it_takes(length, kind):
    naive = pytest.importorskip("fla.ops.gated_delta_rule.naive").naive_recurrent_gated_delta_rule
    sequences = sequences_of(kind, BATCH, length)
    same(
        gated_delta,
        lambda *inputs: delta.mapped(naive, DeltaCall(*inputs)),
        gated_delta_inputs(length, True),
        sequences,
    )


def test_asked_for_by_name_it_raises():
    sequences = sequences_of("fresh", BATCH, 9)
    with pytest.raises(ValueError, match="backend 'fla': expected tensors on a CUDA device, got cpu"):
        ssd(*ssd_inputs(9, False), sequences, backend="fla")
    with pytest.raises(ValueError, match="backend 'fla': expected tensors on a CUDA device, got cpu"):
        gated_delta(*gated_delta_inputs(9, False), sequences, backend="fla", innovate=False)
    with pytest.raises(ValueError, match="backend 'fla': its kernels do not give the innovations"):
        gated_delta(*gated_delta_inputs(9, False), sequences, backend="fla")


def test_the_fastest_on_a_cpu_is_chunked():
    sequences, x = sequences_of("fresh", BATCH, 9), torch.empty(BATCH, 9, 2, 4)
    assert ssd_package.fastest(x, x, sequences) == delta_package.fastest(x, sequences, False) == "chunked"


def test_the_package_is_imported_when_it_is_used():
    """Only by files of its name, and there only inside functions."""
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        used = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            absolute = isinstance(node, ast.ImportFrom) and node.level == 0
            names = [node.module] if absolute else [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "fla" for name in names):
                assert path.name == "fla.py" and node in used, path
