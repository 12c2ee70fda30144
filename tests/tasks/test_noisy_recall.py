import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def scored(tokens, *, keys, values, vocab_size):
    """The targets of a row, after a look at its grammar."""
    assert len(tokens) % 2 == 0
    memory, targets, pairs = {}, [], 0
    for key, value in zip(tokens[::2], tokens[1::2]):
        if key >= keys + values:
            assert keys + values <= value < vocab_size and key < vocab_size
            targets += [IGNORE, IGNORE]
            continue
        assert 0 <= key < keys <= value < keys + values
        targets += [memory.get(key, IGNORE), IGNORE]
        assert memory.setdefault(key, value) == value, "a key changed its value"
        pairs += 1
    assert pairs >= 2 and targets[-2] != IGNORE, "the last slot asks a key that came before"
    return targets


def test_docstring():
    tokens, targets = drawn("noisy_recall")
    assert scored(tokens, keys=2, values=2, vocab_size=8) == targets


OPTIONS = [{}, dict(noise=0.95, length=20), dict(noise=0, noise_tokens=0, vocab_size=7, length=4), dict(vocab_size=200)]


@pytest.mark.parametrize("options", OPTIONS)
def test_rows(options):
    task = tasks.task("noisy_recall", train_targets="recall", **options)
    sizes = dict(keys=task.keys, values=task.values, vocab_size=task.vocab_size)
    longer = (task.test_batch(10, length, rng()) for length in (task.length + 2, 700))
    for batch in (task.train_batch(30, rng()), *longer):
        for tokens, targets in rows(batch):
            assert targets == scored(tokens, **sizes)


def test_training_targets_are_the_next_tokens():
    for tokens, targets in rows(tasks.task("noisy_recall").train_batch(10, rng())):
        assert targets == tokens[1:] + [IGNORE]


def test_defaults():
    task = tasks.task("noisy_recall")
    assert (task.vocab_size, task.keys, task.values, task.noise_tokens, task.noise) == (32, 8, 8, 16, 0.2)
    assert (task.length, task.lengths) == (128, (128, 256, 512))
    assert [task.label(token) for token in (7, 8, 31)] == ["k7", "v0", "n15"]


def test_shares():
    tokens = tasks.task("noisy_recall").test_batch(200, 128, rng()).tokens[:, :126]
    noise = (tokens[:, 0::2] >= 16).float().mean()
    assert abs(noise - 0.2 * 62 / 63) < 0.015
    for t in (tokens[tokens < 8], tokens[(tokens >= 8) & (tokens < 16)], tokens[tokens >= 16]):
        counts = t.unique(return_counts=True)[1].float()
        assert len(counts) in (8, 16) and counts.max() / counts.min() < 1.4


@pytest.mark.parametrize(
    "options",
    [
        dict(noise=1.0),
        dict(noise=-0.1),
        dict(noise=float("nan")),
        dict(noise_tokens=0),
        dict(vocab_size=18),
        dict(length=127),
        dict(length=2),
        dict(lengths=(127,)),
        dict(train_targets="all"),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("noisy_recall", **options)
    with pytest.raises(ValueError, match="length: expected an even number, got 9"):
        tasks.task("noisy_recall").test_batch(1, 9, rng())


def test_marks():
    task = tasks.task("noisy_recall", noise=0.5)
    batch = task.test_batch(2, 128, rng())
    tokens = batch.tokens[0].tolist()
    expected = [t + 1 for t in range(0, 128, 2) if tokens[t] < 8 and tokens[t] not in tokens[:t:2]]
    assert task.marks(batch) == expected and 0 < len(expected) <= 8
