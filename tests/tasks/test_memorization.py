import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def pairs(tokens, targets, *, vocab_size):
    """The (key, value) pairs of a row, after a look at its grammar."""
    keys = (vocab_size - 1) // 2
    assert set(tokens[1::2]) == {vocab_size - 1} and set(targets[0::2]) == {IGNORE}
    assert all(0 <= key < keys for key in tokens[0::2])
    assert all(keys <= value < vocab_size - 1 for value in targets[1::2])
    return set(zip(tokens[0::2], targets[1::2]))


def test_docstring():
    assert pairs(*drawn("memorization"), vocab_size=7) == {(0, 4), (1, 5), (2, 3)}


def test_one_map_for_all_rows_lengths_and_tasks_of_a_seed():
    def known(task):
        batches = (task.train_batch(40, rng(1)), task.test_batch(40, 32, rng(2)), task.test_batch(9, 128, rng(3)))
        return set().union(*(pairs(*row, vocab_size=256) for batch in batches for row in rows(batch)))

    task = tasks.task("memorization")
    found = known(task)
    assert len(found) == task.keys == 127
    assert len({key for key, _ in found}) == len({value for _, value in found}) == 127, "one to one"
    assert found == known(tasks.task("memorization"))
    other = known(tasks.task("memorization", seed=1))
    assert len(found & other) < 10


def test_training_draws_its_examples():
    task = tasks.task("memorization", examples=5)
    seen = {tuple(tokens) for tokens, _ in rows(task.train_batch(200, rng()))}
    assert len(seen) == 5
    assert not seen & {tuple(tokens) for tokens, _ in rows(task.test_batch(200, 32, rng()))}


def test_defaults_are_mads():
    task = tasks.task("memorization")
    assert (task.vocab_size, task.length, task.lengths, len(task.examples)) == (256, 32, (32, 128), 256)
    assert [task.label(token) for token in (0, 127, 255)] == ["k0", "v0", "?"]


def test_smallest():
    for tokens, targets in rows(tasks.task("memorization", vocab_size=4, examples=1, length=2).train_batch(3, rng())):
        assert pairs(tokens, targets, vocab_size=4) and tokens == [0, 3]


BAD = [dict(vocab_size=3), dict(examples=0), dict(seed=-1), dict(length=31), dict(length=0), dict(lengths=(31,))]


@pytest.mark.parametrize("options", BAD)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("memorization", **options)
