import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def check(tokens, targets, *, pairs, keys, values):
    assert len(tokens) == len(targets) >= 4 * pairs
    bindings = {}
    for i in range(pairs):
        key, value = tokens[2 * i], tokens[2 * i + 1]
        assert 0 <= key < keys <= value < keys + values and key not in bindings
        bindings[key] = value
    for token in tokens[2 * pairs : len(tokens) - 2 * pairs]:
        assert keys <= token < keys + values
    asked, expected = [], [IGNORE] * len(tokens)
    for t in range(len(tokens) - 2 * pairs, len(tokens), 2):
        asked.append(tokens[t])
        expected[t] = bindings[tokens[t]]
        assert tokens[t + 1] == bindings[tokens[t]]
    assert sorted(asked) == sorted(bindings) and targets == expected


def test_docstring():
    check(*drawn("distractor_recall"), pairs=2, keys=4, values=4)


@pytest.mark.parametrize("options", [{}, dict(pairs=3, keys=3, values=2, length=12), dict(pairs=1, keys=9, length=5)])
def test_rows(options):
    task = tasks.task("distractor_recall", **options)
    sizes = dict(pairs=task.pairs, keys=task.keys, values=task.values)
    longer = (task.test_batch(10, length, rng()) for length in (task.length + 7, 700))
    whole = tasks.task("distractor_recall", **options, easy=0)
    for batch in (whole.train_batch(20, rng()), *longer):
        for tokens, targets in rows(batch):
            check(tokens, targets, **sizes)


def test_defaults():
    task = tasks.task("distractor_recall")
    assert (task.pairs, task.keys, task.values, task.vocab_size) == (16, 32, 32, 64)
    assert (task.length, task.lengths) == (96, (96, 192, 384, 768))
    assert task.label(3) == "k3" and task.label(32 + 17) == "v17"


def test_values_are_uniform_and_order_is_random():
    task = tasks.task("distractor_recall", pairs=2, keys=2, values=4, length=8, easy=0)
    batch = task.train_batch(8000, rng())
    counts = np.bincount(batch.targets[:, [4, 6]].flatten().numpy() - 2)
    assert abs(counts / 16000 - 1 / 4).max() < 0.02
    same = (batch.tokens[:, 1] == batch.tokens[:, 3]).float().mean()
    assert abs(same - 1 / 4) < 0.03, "values are not independent"
    assert abs((batch.tokens[:, 0] == batch.tokens[:, 4]).float().mean() - 1 / 2) < 0.03


@pytest.mark.parametrize(
    "options",
    [
        dict(pairs=0),
        dict(pairs=33),
        dict(pairs=True),
        dict(easy=-0.1),
        dict(easy=1.1),
        dict(easy="all"),
        dict(keys=15),
        dict(values=1),
        dict(length=63),
        dict(lengths=(63,)),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("distractor_recall", **options)
    with pytest.raises(ValueError, match="at least 64, got 63"):
        tasks.task("distractor_recall").test_batch(1, 63, rng())


def test_marks():
    task = tasks.task("distractor_recall", pairs=3)
    assert task.marks(task.test_batch(2, 40, rng())) == [1, 3, 5]


@pytest.mark.parametrize("options", [{}, dict(pairs=1, length=5), dict(pairs=3, length=12), dict(pairs=5, length=40)])
def test_training_begins_with_easy_rows_that_grow(options):
    task, draw = tasks.task("distractor_recall", **options), rng()
    seen = []
    for progress in (0.0, 0.3, 0.6, 1.0):
        sizes = set()
        for _ in range(100):
            batch = task.train_batch(2, draw, progress)
            pairs = int((batch.targets[0] >= 0).sum())
            sizes.add((pairs, batch.tokens.shape[1]))
            for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist()):
                check(tokens, targets, pairs=pairs, keys=32, values=32)
        seen.append((max(n for n, _ in sizes), max(length for _, length in sizes)))
    assert seen == sorted(seen) and seen[2] == seen[3] == (task.pairs, task.length)
    if not options:
        assert seen[0] == (2, 8) and {n for n, _ in sizes} == {2, 4, 8, 16} and len(sizes) > 20
