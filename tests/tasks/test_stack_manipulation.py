import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows, training_rows, worked


def run(program, symbols):
    """Every stack of a program, from the top, on a Python list."""
    stack, stacks = [], []
    for token in program:
        stack = stack[:-1] if token == 2 * symbols else [*stack, token % symbols]
        stacks.append(stack[::-1])
    return stacks


def check(tokens, targets, *, symbols=2, scratchpad=False):
    separator, end = 2 * symbols + 1, 2 * symbols + 2
    n = tokens.index(separator)
    program = tokens[:n]
    actions = [token >= symbols for token in program]
    assert not actions[0] and actions[-1] and actions == sorted(actions), "a stack, then actions"
    stacks = run(program, symbols)
    answer = [token for stack in stacks if scratchpad for token in (*stack, separator)][:-1]
    answer = [*(answer if scratchpad else stacks[-1]), end]
    assert targets == [IGNORE] * n + answer + [IGNORE] * (len(tokens) - n - len(answer))
    assert tokens[n:] == ([separator, *answer] + [separator] * len(tokens))[: len(tokens) - n]
    return n


def test_docstring():
    assert check(*drawn("stack_manipulation")) == 5
    row = worked("stack_manipulation", "0 1 4 2  5")
    assert check(row[:-1], [IGNORE] * 4 + row[5:], scratchpad=True) == 4


@pytest.mark.parametrize("symbols", [2, 5])
@pytest.mark.parametrize("length, n", [(5, 2), (6, 2), (7, 3), (128, 63), (257, 128)])
def test_rows(symbols, length, n):
    task = tasks.task("stack_manipulation", symbols=symbols)
    for tokens, targets in rows(task.test_batch(30, length, rng())):
        assert check(tokens, targets, symbols=symbols) == n and len(tokens) == length


@pytest.mark.parametrize("symbols", [2, 5])
@pytest.mark.parametrize("length, n", [(7, 2), (11, 2), (12, 3), (128, 13), (512, 29)])
def test_rows_with_working(symbols, length, n):
    task = tasks.task("stack_manipulation", symbols=symbols, scratchpad=True)
    for tokens, targets in rows(task.test_batch(30, length, rng())):
        assert check(tokens, targets, symbols=symbols, scratchpad=True) == n and len(tokens) == length
    assert n * (n + 5) // 2 <= length < (n + 1) * (n + 6) // 2, "a longer program would fit"


def test_empty_stacks_and_full_ones():
    """Rows in which nothing is left, an empty one is popped, and the highest possible stack fills the row."""
    heights, empty_popped = set(), False
    for tokens, targets in rows(tasks.task("stack_manipulation").test_batch(3000, 9, rng())):
        check(tokens, targets)
        heights.add(sum(target != IGNORE for target in targets) - 1)
        stacks = run(tokens[:4], 2)
        empty_popped |= any(token == 4 and not before for token, before in zip(tokens[1:4], stacks))
    assert heights == {0, 1, 2, 4} and empty_popped  # 4 tokens leave 3 symbols in no way


def test_shares():
    task = tasks.task("stack_manipulation", length=41)
    tokens = task.test_batch(3000, 41, rng()).tokens[:, :20]
    actions = tokens[tokens >= 2]
    assert abs(np.bincount(actions, minlength=5)[2:] / len(actions) - 1 / 3).max() < 0.02
    sizes = (tokens < 2).sum(1)
    assert sizes.min() == 1 and sizes.max() == 19 and abs(sizes.float().mean() - 10) < 0.4


@pytest.mark.parametrize("scratchpad", [False, True])
def test_training_rows(scratchpad):
    task = tasks.task("stack_manipulation", length=40, scratchpad=scratchpad)
    training_rows(task, check, 28, scratchpad=scratchpad)


@pytest.mark.parametrize(
    "options",
    [dict(symbols=1), dict(length=4), dict(length=6, scratchpad=True), dict(lengths=(4, 8)), dict(scratchpad=None)],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("stack_manipulation", **options)


def test_labels():
    task = tasks.task("stack_manipulation")
    assert [task.label(token) for token in range(7)] == ["0", "1", "+0", "+1", "pop", "=", "end"]
    assert (task.vocab_size, task.length, task.lengths, task.chance) == (7, 128, (128, 256, 512), None)
