import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows, worked


def check(tokens, targets, *, symbols, scratchpad=False):
    """What is scored follows from the string alone: written here as text, one line a push."""
    n = tokens.index(symbols)
    string = tokens[:n]
    assert n and all(0 <= token < symbols for token in string)
    lines = [string[:i][::-1] for i in range(1, n + 1)] if scratchpad else [string[::-1]]
    answer = [token for line in lines for token in (*line, symbols)][:-1]
    scored = [target for target in targets if target != IGNORE]
    assert scored == answer and targets[n : n + len(answer)] == answer
    assert tokens[n:] == ([symbols, *answer] + [symbols] * len(tokens))[: len(tokens) - n]
    return n


def test_docstring():
    assert check(*drawn("palindrome"), symbols=4) == 4


@pytest.mark.parametrize("length, n", [(2, 1), (3, 1), (4, 2), (9, 4), (128, 64), (513, 256)])
def test_rows(length, n):
    task = tasks.task("palindrome")
    for tokens, targets in rows(task.test_batch(4, length, rng())):
        assert check(tokens, targets, symbols=8) == n and len(tokens) == length


@pytest.mark.parametrize("length, n", [(2, 1), (5, 1), (6, 2), (10, 2), (11, 3), (17, 4), (128, 13), (512, 29)])
def test_rows_with_working(length, n):
    task = tasks.task("palindrome", symbols=3, scratchpad=True)
    for tokens, targets in rows(task.test_batch(4, length, rng())):
        assert check(tokens, targets, symbols=3, scratchpad=True) == n and len(tokens) == length
    assert n * (n + 5) // 2 - 1 <= length < (n + 1) * (n + 6) // 2 - 1, "a longer string would fit"


def test_docstring_of_the_working():
    row = worked("palindrome", "2 0 3 1  4  2")
    check(row[:-1], [IGNORE] * 4 + row[5:], symbols=4, scratchpad=True)


@pytest.mark.parametrize("scratchpad", [False, True])
def test_training_rows(scratchpad):
    task, stream, seen = tasks.task("palindrome", length=40, scratchpad=scratchpad), rng(), []
    for _ in range(300):
        batch = task.train_batch(2, stream)
        seen.append(batch.tokens.shape[1])
        for tokens, targets in rows(batch):
            check(tokens, targets, symbols=8, scratchpad=scratchpad)
    assert set(seen) <= set(range(2, 41)) and len(set(seen)) > 30 and 0.4 < seen.count(40) / 300 < 0.65


@pytest.mark.parametrize(
    "options", [dict(symbols=1), dict(length=1), dict(lengths=(1, 4)), dict(scratchpad=1), dict(scratchpad="yes")]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("palindrome", **options)


def test_defaults():
    task = tasks.task("palindrome")
    assert (task.vocab_size, task.length, task.lengths, task.chance) == (9, 128, (128, 256, 512), 1 / 8)
    assert [task.label(token) for token in (0, 7, 8)] == ["0", "7", "="]
    assert tasks.task("palindrome", scratchpad=True).chance is None
