from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def check(tokens, targets, *, vocab_size, n):
    blank, copy = vocab_size - 2, vocab_size - 1
    asked = tokens.index(copy)
    assert asked == len(tokens) - n - 1 and tokens[asked + 1 :] == [blank] * n
    content = [token for token in tokens[:asked] if token != blank]
    assert len(content) == n and all(0 <= token < blank for token in content)
    assert tokens[asked - 1] != blank, "blanks stand before a token, never after the last"
    assert targets == [IGNORE] * (asked + 1) + content


def test_docstring():
    check(*drawn("selective_copying"), vocab_size=6, n=3)


OPTIONS = [{}, dict(vocab_size=4, tokens_to_copy=1, length=4), dict(tokens_to_copy=5, length=30)]


@pytest.mark.parametrize("options", OPTIONS)
def test_rows(options):
    task = tasks.task("selective_copying", **options)
    longer = (task.test_batch(10, length, rng()) for length in (task.length + 1, 700))
    for batch in (task.train_batch(20, rng()), *longer):
        for tokens, targets in rows(batch):
            check(tokens, targets, vocab_size=task.vocab_size, n=task.tokens_to_copy)


def test_defaults():
    task = tasks.task("selective_copying")
    assert (task.vocab_size, task.tokens_to_copy, task.length, task.lengths) == (16, 16, 256, (256, 512, 1024))
    assert task.label(14) != task.label(15) and task.label(3) == "3"


def test_blanks_choose_their_token_independently():
    """Two tokens and two blanks: 2 + 0, 1 + 1, 0 + 2 blanks before them with probability 1/4, 1/2, 1/4."""
    task = tasks.task("selective_copying", vocab_size=4, tokens_to_copy=2, length=7)
    drawn_rows = rows(task.train_batch(4000, rng()))
    seen = Counter(tokens.index(next(t for t in tokens if t < 2)) for tokens, _ in drawn_rows)
    assert abs(seen[2] / 4000 - 1 / 4) < 0.04 and abs(seen[1] / 4000 - 1 / 2) < 0.04


BAD = [dict(vocab_size=3), dict(tokens_to_copy=0), dict(length=33), dict(lengths=(33, 256))]


@pytest.mark.parametrize("options", BAD)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("selective_copying", **options)


def test_marks():
    task = tasks.task("selective_copying")
    batch = task.test_batch(2, 300, rng())
    assert batch.tokens[0, task.marks(batch)].tolist() == batch.targets[0, -16:].tolist()
