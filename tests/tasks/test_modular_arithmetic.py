import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows, training_rows, worked


def value(text, modulus):
    """Python's own arithmetic, on whole numbers without a modulus until the end."""
    return eval(text) % modulus


def check(tokens, targets, *, modulus=5, scratchpad=False):
    signs = [*map(str, range(modulus)), "+", "-", "*", "="]
    equals = modulus + 3
    expression = tokens[: tokens.index(equals)]
    n = (len(expression) + 1) // 2
    assert all(token < modulus for token in expression[::2]) and all(token >= modulus for token in expression[1::2])
    answer = []
    if scratchpad:
        for i in range(
            n
        ):  # the expression up to a number is the sum before its last + or -, and the term from there on
            part = " ".join(signs[token] for token in expression[: 2 * i + 1])
            cut = max(part.rfind("+"), part.rfind("-"), 0)
            answer += [value(part[:cut] or "0", modulus), value(part[cut:], modulus)]
        answer.append(equals)
    answer.append(value(" ".join(signs[token] for token in expression), modulus))
    first = len(expression)
    assert targets == [IGNORE] * first + answer + [IGNORE] * (len(tokens) - first - len(answer))
    assert tokens[first:] == ([equals, *answer] + [equals] * len(tokens))[: len(tokens) - first]
    return n


def test_docstring():
    assert check(*drawn("modular_arithmetic")) == 4
    row = worked("modular_arithmetic", "1 5 2 7 3 6 4  8")
    assert check(row[:-1], [IGNORE] * 7 + row[8:], scratchpad=True) == 4


@pytest.mark.parametrize("modulus", [2, 5, 10])
@pytest.mark.parametrize("length, n", [(2, 1), (3, 1), (4, 2), (64, 32), (101, 50)])
def test_rows(modulus, length, n):
    task = tasks.task("modular_arithmetic", modulus=modulus)
    for tokens, targets in rows(task.test_batch(30, length, rng())):
        assert check(tokens, targets, modulus=modulus) == n and len(tokens) == length


@pytest.mark.parametrize("modulus", [2, 5, 10])
@pytest.mark.parametrize("length, n", [(5, 1), (8, 1), (9, 2), (64, 15), (129, 32)])
def test_rows_with_working(modulus, length, n):
    task = tasks.task("modular_arithmetic", modulus=modulus, scratchpad=True)
    for tokens, targets in rows(task.test_batch(30, length, rng())):
        assert check(tokens, targets, modulus=modulus, scratchpad=True) == n and len(tokens) == length


@pytest.mark.parametrize("scratchpad", [False, True])
def test_training_rows(scratchpad):
    task = tasks.task("modular_arithmetic", length=40, scratchpad=scratchpad)
    training_rows(task, check, 28, scratchpad=scratchpad)


def test_numbers_and_operators_are_uniform():
    tokens = tasks.task("modular_arithmetic").test_batch(500, 64, rng()).tokens
    assert abs(np.bincount(tokens[:, 0:64:2].flatten()) / tokens[:, 0:64:2].numel() - 1 / 5).max() < 0.015
    operators = tokens[:, 1:63:2].flatten()
    assert abs(np.bincount(operators - 5) / len(operators) - 1 / 3).max() < 0.015


@pytest.mark.parametrize(
    "options",
    [dict(modulus=1), dict(length=1), dict(length=4, scratchpad=True), dict(scratchpad=0), dict(lengths=(1,))],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("modular_arithmetic", **options)


def test_defaults():
    task = tasks.task("modular_arithmetic")
    assert (task.vocab_size, task.length, task.lengths, task.chance) == (9, 64, (64, 128, 256), 1 / 5)
    assert [task.label(token) for token in range(9)] == ["0", "1", "2", "3", "4", "+", "-", "*", "="]
