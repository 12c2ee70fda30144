import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows
from .test_noisy_recall import scored


def test_docstring():
    tokens, targets = drawn("in_context_recall")
    assert scored(tokens, keys=3, values=3, vocab_size=6) == targets


def test_defaults_are_mads():
    task = tasks.task("in_context_recall")
    assert (task.vocab_size, task.keys, task.values, task.noise, task.lengths) == (16, 8, 8, 0, (128, 256, 512))


@pytest.mark.parametrize("options", [{}, dict(vocab_size=3, length=4), dict(vocab_size=101, length=20)])
def test_rows(options):
    task = tasks.task("in_context_recall", train_targets="recall", **options)
    sizes = dict(keys=task.keys, values=task.values, vocab_size=task.vocab_size)
    for batch in (task.train_batch(30, rng()), task.test_batch(10, 300, rng())):
        for tokens, targets in rows(batch):
            assert targets == scored(tokens, **sizes)
            assert all(token < task.vocab_size for token in tokens)


def test_training_targets_are_the_next_tokens():
    for tokens, targets in rows(tasks.task("in_context_recall").train_batch(5, rng())):
        assert targets == tokens[1:] + [IGNORE]


@pytest.mark.parametrize("options", [dict(vocab_size=2), dict(length=127), dict(lengths=(2,)), dict(train_targets="a")])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("in_context_recall", **options)
