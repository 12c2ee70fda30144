from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def motifs(tokens, keys, pad):
    """A row cut into (is key, tokens, start): runs of key tokens and of value tokens."""
    runs, start = [], tokens.count(pad)
    assert tokens[:start] == [pad] * start and pad not in tokens[start:], "pads stand on the left"
    for t in range(start, len(tokens)):
        if runs and runs[-1][0] == (tokens[t] < keys):
            runs[-1][1].append(tokens[t])
        else:
            runs.append((tokens[t] < keys, [tokens[t]], t))
    return runs


def check(tokens, targets, *, vocab_size, key_motif, value_motif, test=False):
    keys, pad = (vocab_size - 1) // 2, vocab_size - 1
    last = targets[-1]
    assert last != IGNORE, "the row ends on the probe's last value token, which the model does not see"
    runs = motifs(tokens + [last], keys, pad)
    assert [run[0] for run in runs] == [True, False] * (len(runs) // 2)
    memory, expected = {}, [IGNORE] * (len(tokens) + 1)
    for (_, key, _), (_, value, start) in zip(runs[::2], runs[1::2]):
        assert len(set(key)) == len(key) <= key_motif and len(set(value)) == len(value) <= value_motif
        assert not test or len(key) == key_motif
        if tuple(key) in memory:
            assert memory[tuple(key)] == value, "a key changed its value"
            expected[start : start + len(value)] = value
        memory[tuple(key)] = value
    assert targets == expected[1:]
    pads, probe = tokens.count(pad), len(runs[-2][1]) + len(runs[-1][1])
    room = len(tokens) - probe - key_motif - value_motif
    body = len(tokens) + 1 - pads - probe
    assert room <= body and body - len(runs[-4][1]) - len(runs[-3][1]) < room, "pairs fill the row, and no more"


def test_docstring():
    check(*drawn("fuzzy_recall"), vocab_size=8, key_motif=2, value_motif=2)


OPTIONS = [
    {},
    dict(length=13),
    dict(vocab_size=8, key_motif=2, value_motif=4, length=40),
    dict(vocab_size=4, key_motif=1, value_motif=1, length=5),
    dict(vocab_size=64, key_motif=1, value_motif=5, length=60),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_rows(options):
    task = tasks.task("fuzzy_recall", train_targets="recall", **options)
    sizes = dict(vocab_size=task.vocab_size, key_motif=task.key_motif, value_motif=task.value_motif)
    for tokens, targets in rows(task.train_batch(150, rng())):
        check(tokens, targets, **sizes)
    for length in (task.length, task.length + 1, 300):
        for tokens, targets in rows(task.test_batch(60, length, rng())):
            check(tokens, targets, test=True, **sizes)


def test_training_targets_are_the_next_tokens():
    task, recall = tasks.task("fuzzy_recall"), tasks.task("fuzzy_recall", train_targets="recall")
    for (tokens, targets), (same, scored) in zip(rows(task.train_batch(9, rng())), rows(recall.train_batch(9, rng()))):
        assert tokens == same and targets == tokens[1:] + [scored[-1]]


def test_defaults():
    task = tasks.task("fuzzy_recall")
    assert (task.vocab_size, task.keys, task.values, task.pad) == (16, 7, 8, 15)
    assert (task.key_motif, task.value_motif, task.length, task.lengths) == (3, 3, 128, (128, 256, 512))
    assert [task.label(token) for token in (6, 7, 15)] == ["k6", "v0", "_"]


def test_motifs_are_uniform_by_size_then_by_tokens():
    """The first pair of long rows; the probe replaces it so rarely that it hardly matters."""
    task = tasks.task("fuzzy_recall", vocab_size=7, key_motif=2, value_motif=2, length=400)
    sizes, pairs = Counter(), Counter()
    for tokens, _ in rows(task.train_batch(3000, rng())):
        (_, key, _), (_, value, _), *_ = motifs(tokens, 3, 6)
        sizes[len(key), len(value)] += 1
        pairs[tuple(key)] += 1
    assert all(abs(sizes[i, j] / 3000 - 1 / 4) < 0.035 for i in (1, 2) for j in (1, 2))
    assert all(abs(pairs[key,] / 3000 - 1 / 6) < 0.03 for key in range(3))
    assert all(abs(pairs[a, b] / 3000 - 1 / 12) < 0.025 for a in range(3) for b in range(3) if a != b)


def test_probe_is_set_in_anywhere():
    """Where the probe's key first stands, in rows of keys so many that chance hardly shows it."""
    task, places = tasks.task("fuzzy_recall", vocab_size=128, length=128), []
    for tokens, targets in rows(task.test_batch(400, 128, rng())):
        runs = motifs(tokens + [targets[-1]], 63, 127)
        places.append(next(start for key, motif, start in runs if key and motif == runs[-2][1]))
    assert min(places) < 12 and max(places) > 100 and abs(sum(places) / len(places) - 64) < 8


BAD = (dict(key_motif=0), dict(key_motif=8), dict(value_motif=0), dict(value_motif=9), dict(train_targets="all"))
BAD += (dict(vocab_size=6), dict(vocab_size=128, key_motif=11), dict(length=12), dict(lengths=(12,)))


@pytest.mark.parametrize("options", BAD)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("fuzzy_recall", **options)
