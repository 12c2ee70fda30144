from collections import Counter

import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def check(tokens, targets, *, pairs, vocab_size, zero=False):
    half, head = vocab_size // 2, 2 * pairs
    keys, values = tokens[0:head:2], tokens[1:head:2]
    assert len(set(keys)) == len(set(values)) == pairs
    assert all(1 <= key < half for key in keys) and all(half <= value < vocab_size for value in values)
    asked = [t for t, target in enumerate(targets) if target != IGNORE]
    assert all(t >= head and t % 2 == 0 for t in asked)
    assert sorted(tokens[t] for t in asked) == sorted(keys), "every key is asked once"
    for t in asked:
        assert targets[t] == values[keys.index(tokens[t])]
    if zero:
        assert all(token == 0 for t, token in enumerate(tokens) if t >= head and t not in asked)


def test_docstring():
    check(*drawn("mqar"), pairs=2, vocab_size=16, zero=True)


@pytest.mark.parametrize("filler", ["random", "zero"])
@pytest.mark.parametrize("length, pairs", [(64, 16), (66, 16), (4, 1), (1024, 256)])
def test_test_rows(filler, length, pairs):
    task = tasks.task("mqar", filler=filler)
    for tokens, targets in rows(task.test_batch(6, length, rng())):
        check(tokens, targets, pairs=pairs, vocab_size=8192, zero=filler == "zero")


def test_train_rows_and_weights():
    task, stream, seen = tasks.task("mqar"), rng(), Counter()
    for _ in range(600):
        batch = task.train_batch(1, stream)
        tokens, targets = rows(batch)[0]
        pairs = sum(target != IGNORE for target in targets)
        check(tokens, targets, pairs=pairs, vocab_size=8192)
        seen[len(tokens), pairs] += 1
    assert set(seen) == {(64, 4), (128, 8), (256, 16), (256, 32), (256, 64)}
    assert abs(seen[64, 4] / 600 - 100 / 180) < 0.08
    assert all(abs(seen[case] / 600 - 20 / 180) < 0.06 for case in seen if case != (64, 4))


def test_gaps_are_those_of_numpy_choice():
    """The first and second pair's slots against draws one row at a time, without replacement."""
    task, n = tasks.task("mqar", cases=[(16, 2, 1)], lengths=[16], vocab_size=64, filler="zero"), 6000
    batch = task.train_batch(n, rng())
    ours = np.zeros((2, 6))
    for tokens, _ in rows(batch):
        for pair in (0, 1):
            ours[pair, (tokens.index(tokens[2 * pair], 4) - 4) // 2] += 1 / n
    p = 0.01 * np.arange(1, 7) ** (0.01 - 1)
    p /= p.sum()
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(6) if i != j) for j in range(6)]
    assert abs(ours[0] - p).max() < 0.025 and abs(ours[1] - second).max() < 0.025


def test_random_filler_is_uniform_over_the_vocabulary():
    task = tasks.task("mqar", vocab_size=8, cases=[(64, 1, 1)], lengths=[8])
    counts = np.bincount(task.train_batch(400, rng()).tokens[:, 3::2].flatten(), minlength=8)
    assert abs(counts / counts.sum() - 1 / 8).max() < 0.015


def test_defaults_and_smaller():
    task = tasks.task("mqar")
    assert (task.vocab_size, task.length, task.lengths, task.filler) == (8192, 256, (64, 128, 256, 512, 1024), "random")
    small = tasks.task("mqar", vocab_size=64, cases=[(32, 4, 1)])
    assert (small.length, small.lengths) == (32, (32, 64))
    assert [small.label(token) for token in (0, 5, 32)] == ["0", "k5", "v0"]
    for tokens, targets in rows(small.test_batch(20, 126, rng())):  # all 31 keys
        check(tokens, targets, pairs=31, vocab_size=64)


@pytest.mark.parametrize(
    "options",
    [
        dict(vocab_size=3),
        dict(filler="noise"),
        dict(cases=[]),
        dict(cases=3),
        dict(cases=[(64, 17, 1)]),
        dict(cases=[(63, 4, 1)]),
        dict(cases=[(64, 4)]),
        dict(cases=[(64, 4, 0)]),
        dict(cases=[(64, 4, float("nan"))]),
        dict(cases=[(64, 0, 1)]),
        dict(cases=[(64, "4", 1)]),
        dict(cases=[(64, 8, 1)], vocab_size=16),
        dict(cases=[(64, 1, 1)], vocab_size=8),
        dict(lengths=[65]),
        dict(lengths=[64], vocab_size=16, cases=[(8, 1, 1)]),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("mqar", **options)
    with pytest.raises(ValueError, match="length: expected an even number of at most 16382"):
        tasks.task("mqar").test_batch(1, 16384, rng())


def test_marks():
    task = tasks.task("mqar")
    assert task.marks(task.test_batch(2, 64, rng())) == list(range(1, 32, 2))
