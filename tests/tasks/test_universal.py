"""Rows that random programs print, and the bound of the universal predictor."""

import subprocess
import sys
from math import log2

import numpy as np
import pytest
import torch

from solomonic import tasks
from solomonic.theory.solomonoff.context_tree import code_lengths
from solomonic.theory.solomonoff.reference import continuation

from .samples import drawn, rng, rows


def test_docstring():
    tokens, targets = drawn("universal")
    assert "".join(map(str, targets)) == continuation("~[~.~.]", 8)[0] and tokens == [2, *targets[:-1]]


def test_rows_are_what_their_programs_print():
    task = tasks.task("universal", length=48)
    bits, asked, programs = task.draw(30, 48, rng())
    for row, counts, program in zip(bits, asked, programs):
        for t in (1, 7, 20, 48):
            short = program[: counts[t - 1]]
            assert continuation(short, t)[0] == "".join(map(str, row[:t]))
            assert len(continuation(short[:-1], t)[0]) < t or counts[t - 1] in counts[: t - 1]
        assert counts[-1] == len(program) and (np.diff(counts) >= 0).all()
    assert len({row.tobytes() for row in bits}) > 15
    for tokens, targets in rows(task.train_batch(5, rng())):
        assert tokens == [2, *targets[:-1]] and set(targets) <= {0, 1}


def test_bound_is_the_bound_of_every_beginning():
    task = tasks.task("universal")
    bits, asked, _ = task.draw(20, 128, rng(2))
    batch = task.test_batch(20, 128, rng(2))
    assert torch.equal(batch.targets, torch.from_numpy(bits))
    bound = batch.bound.double().cumsum(1).numpy()
    assert bound == pytest.approx(1 + np.minimum(asked * log2(6), code_lengths(bits, 8).cumsum(1)), abs=1e-3)
    assert batch.bound.min() > -1e-6 and bound[:, -1].min() < 40 < bound[:, -1].max()


def test_bound_holds_for_the_exact_predictor():
    """-log2 of the even mixture of what a search found (no more than M) with context trees is within the bound."""
    compiled = pytest.importorskip("solomonic.theory.solomonoff.compiled")
    from solomonic.theory.solomonoff.inference import log2_of, uniform

    task, held = tasks.task("universal", length=3), 0
    bits, _, programs = task.draw(100, 3, rng(4))
    bound = task.test_batch(100, 3, rng(4)).bound.double().sum(1).numpy()
    for row, program, trees, most in zip(bits, programs, code_lengths(bits, 8).sum(1), bound):
        if len(program) <= 8:
            printed = compiled.search(row, uniform(8, 16 * 3)).printed
            assert -np.logaddexp2(log2_of(printed) - 1, -trees - 1) <= most + 1e-4
            held += 1
    assert held > 5


def test_needs_no_compiler():
    """Without numba the task is what it is with it."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np\nfrom solomonic.tasks import task\n"
        "print(task('universal', length=16).train_batch(2, np.random.default_rng(0)).targets.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tasks.task("universal", length=16).train_batch(2, rng()).targets.tolist())


@pytest.mark.parametrize("options", [dict(length=0), dict(length=2.5)])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*"):
        tasks.task("universal", **options)
