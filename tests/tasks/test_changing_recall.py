import itertools
from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows

SIZES = dict(keys=32, values=32, key_size=2, writes=4)


def replay(tokens, *, keys, values, key_size, writes, version=False):
    """(what happens to each key, in order: values and None for a deletion; questions (position before the answer, key, n,
    answer); the keys' order), read token by token."""
    first = keys + values
    ask, delete = first + writes, first + writes + 1
    t, history, questions = 0, {}, []
    while t < len(tokens):
        if tokens[t] == ask:
            key = tuple(tokens[t + 1 : t + 1 + key_size])
            t += 1 + key_size
            n = None
            if version:
                n, t = tokens[t] - first + 1, t + 1
                assert 1 <= n <= writes
            questions.append((t - 1, key, n, tokens[t]))
            t += 1
        elif tokens[t] == delete:
            key = tuple(tokens[t + 1 : t + 1 + key_size])
            history[key].append(None)  # written before
            t += 1 + key_size
        elif tokens[t] < keys:
            assert not questions, "questions come last"
            key, value = tuple(tokens[t : t + key_size]), tokens[t + key_size]
            assert keys <= value < first
            history.setdefault(key, []).append(value)
            t += key_size + 1
        else:
            assert keys <= tokens[t] < first, "distractors are values"
            t += 1
    assert all(len(key) == key_size and max(key) < keys for key in history)
    return history, questions


def check(tokens, targets, *, pairs, near=0, deletion=False, version=False, **sizes):
    history, questions = replay(tokens, version=version, **sizes)
    none = sizes["keys"] + sizes["values"] + sizes["writes"] + 2
    assert len(history) == pairs * (1 + near)
    asked = {key for _, key, _, _ in questions}
    assert len(asked) == len(questions) == pairs
    for events in history.values():
        assert 1 <= sum(event is not None for event in events) <= sizes["writes"]
        assert deletion or None not in events
        assert (None, None) not in itertools.pairwise(events), "what is deleted was there"
    for key in asked:
        like = [other for other in history if sum(a != b for a, b in zip(key, other)) == 1]
        assert len(like) >= near
    expected = [IGNORE] * len(tokens)
    for at, key, n, answer in questions:
        values = [event for event in history[key] if event is not None]
        right = values[n - 1] if version else values[-1]
        expected[at] = none if history[key][-1] is None else right
        assert answer == expected[at]
    assert targets == expected
    return history, questions


def test_docstring():
    sizes = dict(keys=4, values=4, key_size=1, writes=2)
    tokens, targets = drawn("changing_recall")
    assert len(tokens) == 22
    check(tokens, targets, pairs=2, deletion=True, **sizes)
    for row in rows(tasks.task("changing_recall", pairs=2, deletion=0.5, length=22, **sizes).test_batch(30, 22, rng())):
        check(*row, pairs=2, deletion=True, **sizes)


@pytest.mark.parametrize("ask", ["last", "version"])
@pytest.mark.parametrize("deletion", [0, 0.4])
@pytest.mark.parametrize("near", [0, 2])
def test_rows(ask, deletion, near):
    task = tasks.task("changing_recall", ask=ask, deletion=deletion, near_duplicates=near, length=256)
    for batch in (task.train_batch(30, rng()), task.test_batch(5, 1000, rng(1))):
        for row in rows(batch):
            check(*row, pairs=4, near=near, deletion=deletion > 0, version=ask == "version", **SIZES)


def test_shares_are_those_of_the_options():
    task = tasks.task("changing_recall", ask="version", deletion=0.25, length=256)
    ends, between, several, writes, asked = [], 0, 0, Counter(), Counter()
    for tokens, _ in rows(task.test_batch(600, 256, rng())):
        history, questions = replay(tokens, version=True, **SIZES)
        for _, key, n, _ in questions:
            events = history[key]
            ends.append(events[-1] is None)
            count = sum(event is not None for event in events)
            writes[count] += 1
            asked[count, n] += 1
            if count > 1:
                several += 1
                between += None in events[:-1]
    assert abs(sum(ends) / 2400 - 0.25) < 0.03 and abs(between / several - 0.25) < 0.03
    assert all(abs(writes[n] / 2400 - 0.25) < 0.03 for n in range(1, 5))
    assert all(abs(asked[count, n] / writes[count] - 1 / count) < 0.08 for count, n in asked)


def test_events_are_spread_over_the_length():
    task, firsts, lasts = tasks.task("changing_recall"), [], []
    for tokens, _ in rows(task.test_batch(200, 1024, rng())):
        keys = [t for t, token in enumerate(tokens[:1008]) if token < 32]
        firsts.append(keys[0])
        lasts.append(keys[-1])
    assert min(firsts) < 20 and max(lasts) > 990
    assert 20 < sum(firsts) / 200 < 200 and 800 < sum(lasts) / 200 < 990


def test_defaults_labels_and_marks():
    task = tasks.task("changing_recall")
    assert (task.vocab_size, task.length, task.lengths) == (71, 128, (128, 256, 512, 2048))
    assert [task.label(t) for t in (0, 32, 64, 67, 68, 69, 70)] == ["k0", "v0", "#1", "#4", "?", "x", "none"]
    task = tasks.task("changing_recall", deletion=0.4, near_duplicates=1, length=200)
    batch = task.test_batch(1, 200, rng(3))
    tokens = rows(batch)[0][0]
    history, questions = replay(tokens, **SIZES)
    values = [event for _, key, _, _ in questions for event in history[key] if event is not None]
    assert Counter(tokens[t] for t in task.marks(batch)) == Counter(values)


@pytest.mark.parametrize(
    "options",
    [
        dict(ask="first"),
        dict(pairs=0),
        dict(writes=0),
        dict(deletion=1.0),
        dict(deletion=-0.1),
        dict(near_duplicates=-1),
        dict(near_duplicates=7),
        dict(near_duplicates=1, key_size=1, keys=8),
        dict(key_size=0),
        dict(key_size=13),
        dict(keys=1, key_size=2),
        dict(values=1),
        dict(length=63),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("changing_recall", **options)
