import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import as_drawn, first_row, rng, rows


def check(tokens, targets, *, vocab_size, pairs, updates, zero=True):
    half, head = vocab_size // 2, 2 * (pairs + updates)
    holds, again = {}, []
    for key, value in zip(tokens[0:head:2], tokens[1:head:2]):
        assert 1 <= key < half <= value < vocab_size
        if key in holds:
            again.append(key)
            assert value != holds[key], "a new value"
        else:
            assert not again, "updates come after the pairs"
            assert value not in holds.values()
        holds[key] = value
    assert len(holds) == pairs and len(set(again)) == len(again) == updates
    asked = [t for t, target in enumerate(targets) if target != IGNORE]
    assert sorted(tokens[t] for t in asked) == sorted(holds) and all(t >= head and t % 2 == 0 for t in asked)
    assert [targets[t] for t in asked] == [holds[tokens[t]] for t in asked]
    assert not zero or not any(tokens[t] for t in range(head, len(tokens)) if t not in asked)
    return again


def test_docstring():
    as_drawn("forgetting_mqar", check, 14, vocab_size=16, pairs=2, updates=1)


@pytest.mark.parametrize("filler", ["zero", "random"])
@pytest.mark.parametrize("pairs, updates", [(8, 4), (5, 5), (3, 0)])
def test_rows(filler, pairs, updates):
    task = tasks.task("forgetting_mqar", filler=filler, pairs=pairs, updates=updates)
    for batch in (task.train_batch(20, rng()), task.test_batch(5, 1000, rng())):
        for row in rows(batch):
            check(*row, vocab_size=256, pairs=pairs, updates=updates, zero=filler == "zero")


def test_any_key_is_updated_and_early_slots_are_likelier():
    task, updated, slots = tasks.task("forgetting_mqar"), np.zeros(8), []
    for tokens, targets in rows(task.test_batch(1000, 128, rng())):
        for key in check(tokens, targets, vocab_size=256, pairs=8, updates=4):
            updated[tokens.index(key) // 2] += 1 / 1000
        slots.append(tokens.index(tokens[0], 24) // 2 - 12)
    assert abs(updated - 0.5).max() < 0.06
    p = np.arange(1, 53) ** -0.99
    assert abs(slots.count(0) / 1000 - p[0] / p.sum()) < 0.05


def test_defaults_labels_and_marks():
    task = tasks.task("forgetting_mqar")
    assert (task.vocab_size, task.length, task.lengths) == (256, 64, (64, 128, 256, 1024))
    assert [task.label(token) for token in (0, 5, 128)] == ["0", "k5", "v0"]
    _, targets, marked = first_row(task, 64)
    assert set(marked) == {target for target in targets if target != IGNORE} and len(marked) == 8


@pytest.mark.parametrize(
    "options",
    [
        dict(vocab_size=4),
        dict(pairs=0),
        dict(pairs=128, length=1024),
        dict(updates=9),
        dict(updates=-1),
        dict(filler="noise"),
        dict(length=38),
        dict(length=65),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("forgetting_mqar", **options)
