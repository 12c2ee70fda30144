from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import as_drawn, first_row, rng, rows


def check(tokens, targets, *, vocab_size, grid, zero=True):
    third, head = vocab_size // 3, 3 * grid**2
    holds = {}
    for first, second, value in zip(tokens[0:head:3], tokens[1:head:3], tokens[2:head:3]):
        assert 1 <= first < third <= second < 2 * third <= value < vocab_size and value not in holds.values()
        holds[first, second] = value
    assert len(holds) == grid**2
    for i in (0, 1):  # each token stands in as many keys as there are tokens beside it
        assert list(Counter(key[i] for key in holds).values()) == [grid] * grid
    asked = [t for t, target in enumerate(targets) if target != IGNORE]
    assert sorted((tokens[t - 1], tokens[t]) for t in asked) == sorted(holds)
    assert all(t > head and (t - 1 - head) % 3 == 0 for t in asked)
    assert [targets[t] for t in asked] == [holds[tokens[t - 1], tokens[t]] for t in asked]
    said = {*asked, *(t - 1 for t in asked)}
    assert not zero or not any(tokens[t] for t in range(head, len(tokens)) if t not in said)


def test_docstring():
    as_drawn("compositional_mqar", check, 27, vocab_size=12, grid=2)


@pytest.mark.parametrize("filler", ["zero", "random"])
@pytest.mark.parametrize("grid", [1, 2, 3, 5])
def test_rows(filler, grid):
    task = tasks.task("compositional_mqar", filler=filler, grid=grid, length=200)
    for batch in (task.train_batch(20, rng()), task.test_batch(5, 1001, rng())):
        for row in rows(batch):
            check(*row, vocab_size=192, grid=grid, zero=filler == "zero")


def test_keys_come_in_any_order():
    repeats = Counter()
    for tokens, _ in rows(tasks.task("compositional_mqar", grid=2).train_batch(1500, rng())):
        repeats[tokens[0] == tokens[3]] += 1  # the second key's first token is the first's
    assert abs(repeats[True] / 1500 - 1 / 3) < 0.05


def test_defaults_labels_and_marks():
    task = tasks.task("compositional_mqar")
    assert (task.vocab_size, task.length, task.lengths) == (192, 64, (64, 128, 256, 1024))
    assert [task.label(token) for token in (0, 5, 64, 128, 191)] == ["0", "k5", "q64", "v128", "v191"]
    _, targets, marked = first_row(task, 64)
    assert set(marked) == {target for target in targets if target != IGNORE}


@pytest.mark.parametrize(
    "options", [dict(vocab_size=11), dict(grid=0), dict(grid=9), dict(filler="noise"), dict(length=53), dict(grid=1.5)]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("compositional_mqar", **options)
