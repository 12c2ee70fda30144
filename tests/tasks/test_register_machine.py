import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows

SET, ADD, COPY, ASK = range(4)


def check(tokens, targets, *, registers, modulus, scratchpad=False):
    """Runs the program on a dict; returns the answers. `predicted` has what is to be predicted, by place in the row."""
    zero, length = 4 + registers, len(tokens)
    step = 3 + registers * scratchpad
    held, answers, predicted = dict.fromkeys(range(4, zero), 0), [], {}
    for start in range(0, length, step):
        does, r, x = (tokens[start : start + 3] + [None, None])[:3]
        if r is None:
            break
        assert r in held and (start >= step * registers or (does, r) == (SET, 4 + start // step)), "all are set first"
        if does == ASK:
            predicted[start + 2] = zero + held[r]
            answers.append(held[r])
        if x is None:
            break
        assert x != r and (x in held if does in (ADD, COPY) else x >= zero)
        held[r] = {SET: x - zero, ADD: (held[r] + held.get(x, 0)) % modulus, COPY: held.get(x), ASK: held[r]}[does]
        assert 0 <= held[r] < modulus
        if scratchpad:
            predicted |= {start + 3 + i: zero + value for i, value in enumerate(held.values())}
    assert targets == [predicted.get(t + 1, IGNORE) for t in range(length)]
    assert all(tokens[place] == token for place, token in predicted.items() if place < length)
    assert answers
    return answers


def test_docstring():
    assert check(*drawn("register_machine"), registers=2, modulus=5) == [2]


@pytest.mark.parametrize("registers, modulus, length", [(2, 2, 8), (2, 5, 9), (2, 5, 10), (4, 7, 128), (3, 10, 301)])
def test_rows(registers, modulus, length):
    task = tasks.task("register_machine", registers=registers, modulus=modulus, length=length)
    for batch in (task.test_batch(20, length, rng()), task.train_batch(20, rng(1))):
        for tokens, targets in rows(batch):
            check(tokens, targets, registers=registers, modulus=modulus)
            assert len(tokens) <= length
    assert task.test_batch(1, length, rng()).tokens.shape == (1, length)


@pytest.mark.parametrize("length", [*range(12, 24), 128, 129])
def test_rows_with_working(length):
    task = tasks.task("register_machine", registers=2, modulus=5, scratchpad=True)
    for tokens, targets in rows(task.test_batch(20, length, rng())):
        check(tokens, targets, registers=2, modulus=5, scratchpad=True)


def test_docstring_of_the_working():
    doc = tasks.register_machine.__doc__
    assert "`1 4 5  8 10`" in doc
    tokens = [0, 4, 9, 9, 6, 0, 5, 10, 9, 10, 1, 4, 5, 8, 10, 3, 4, 8, 8, 10]
    targets = [IGNORE if t % 5 in (0, 4) or (t % 5 == 1 and t != 16) else tokens[t + 1] for t in range(20)]
    assert check(tokens, targets, registers=2, modulus=5, scratchpad=True) == [2]


def test_the_last_value_that_fits_is_asked_for():
    for length in (128, 129, 130):
        for tokens, targets in rows(tasks.task("register_machine").test_batch(20, length, rng())):
            assert any(target != IGNORE for target in targets[-3:])


def test_instructions_and_answers_are_uniform():
    task = tasks.task("register_machine")
    batch = task.test_batch(200, 900, rng())
    program = batch.tokens[:, 12:897].reshape(-1, 3)
    assert abs(np.bincount(program[:, 0], minlength=4) / len(program) - 1 / 4).max() < 0.01
    assert abs(np.bincount(program[:, 1] - 4) / len(program) - 1 / 4).max() < 0.01
    answers = batch.targets[batch.targets != IGNORE] - task.values
    assert abs(np.bincount(answers, minlength=7) / len(answers) - 1 / 7).max() < 0.015


@pytest.mark.parametrize(
    "options",
    [
        dict(registers=1),
        dict(modulus=1),
        dict(length=13),
        dict(length=29, scratchpad=True),
        dict(lengths=(13, 26)),
        dict(scratchpad="no"),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("register_machine", **options)


def test_defaults():
    task = tasks.task("register_machine")
    assert (task.vocab_size, task.lengths, task.chance) == (15, (128, 256, 512, 1024), 1 / 7)
    assert [task.label(token) for token in (0, 3, 4, 7, 8, 14)] == ["set", "ask", "r0", "r3", "0", "6"]
