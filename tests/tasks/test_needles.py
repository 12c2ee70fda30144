import itertools

import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE
from solomonic.tasks.needles import VARIANTS

from .samples import drawn, rng, rows


def read(tokens, *, keys, values, filler, key_size, value_size):
    """The row's parts in order, read token by token: ("needle" or "question", start, key, values), or ("filler", token)."""
    t, parts = 0, []
    while t < len(tokens):
        start, kind = t, "needle"
        if tokens[t] == keys + values + filler:
            kind, t = "question", t + 1
        elif tokens[t] >= keys + values:
            parts.append(("filler", tokens[t]))
            t += 1
            continue
        key = tuple(tokens[t : t + key_size])
        assert len(key) == key_size and max(key) < keys
        t += key_size
        value = list(itertools.takewhile(lambda token: keys <= token < keys + values, tokens[t:]))
        if kind == "needle":
            value = value[:value_size]
            assert len(value) == value_size
        t += len(value)
        parts.append((kind, start, key, value))
    return parts


def check(tokens, targets, *, needle_keys=1, asked=1, each=1, full=False, **sizes):
    parts = read(tokens, **sizes)
    needles = [part for part in parts if part[0] == "needle"]
    questions = [part for part in parts if part[0] == "question"]
    assert [part[0] for part in parts[-asked:]] == ["question"] * asked == [part[0] for part in questions]
    said = {}
    for _, _, key, value in needles:
        said.setdefault(key, []).extend(value)
    if full:  # all that has room, and every key once
        assert len(said) == len(needles)
        assert sum(part[0] == "filler" for part in parts) < sizes["key_size"] + sizes["value_size"]
    else:
        assert len(said) == needle_keys and all(len(value) == each * sizes["value_size"] for value in said.values())
    assert len({key for _, _, key, _ in questions}) == asked
    expected = [IGNORE] * len(tokens)
    for _, start, key, value in questions:
        assert value == said[key]
        first = start + 1 + sizes["key_size"]
        expected[first - 1 : first - 1 + len(value)] = value
    assert targets == expected
    return parts


def test_docstring():
    sizes = dict(keys=4, values=4, filler=4, key_size=1, value_size=2)
    tokens, targets = drawn("needles")
    assert len(tokens) == 17
    check(tokens, targets, each=2, **sizes)
    options = dict(variant="multivalue", values_of_a_key=2, length=17, **sizes)
    for row in rows(tasks.task("needles", **options).test_batch(20, 17, rng())):
        check(*row, each=2, **sizes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_every_variant(variant):
    task = tasks.task("needles", variant=variant)
    sizes = dict(key_size=6 if variant == "multikey_3" else 2, value_size=6 if variant[-1:] == "3" else 3)
    sizes |= dict(keys=32, values=32, filler=32)
    several = dict(
        needle_keys=4 if variant in ("multikey_1", "multiquery") else 1,
        asked=4 if variant == "multiquery" else 1,
        each=4 if variant == "multivalue" else 1,
        full=variant in ("multikey_2", "multikey_3"),
    )
    for batch in (task.train_batch(20, rng()), task.test_batch(5, 517, rng())):
        for row in rows(batch):
            parts = check(*row, **several, **sizes)
            if variant == "single_1":
                noise = [part[1] - 64 for part in parts if part[0] == "filler"]
                assert noise == [i % 32 for i in range(len(noise))]


def test_text_like_filler_is_uniform_and_depths_are_spread():
    task = tasks.task("needles", variant="single_2", filler=8)
    tokens = task.test_batch(2000, 128, rng()).tokens.numpy()
    counts = np.bincount(tokens[(tokens >= 64) & (tokens < 72)] - 64)
    assert len(counts) == 8 and abs(counts / counts.sum() - 1 / 8).max() < 0.005
    starts = (tokens < 32).argmax(axis=1)
    assert starts.min() == 0 and starts.max() == 128 - 6 - 5
    assert abs(np.histogram(starts, 3, (0, 118))[0] / 2000 - 1 / 3).max() < 0.05


def test_any_of_the_needles_is_asked():
    task = tasks.task("needles", variant="multikey_1")
    places = []
    for tokens, _ in rows(task.test_batch(800, 128, rng())):
        parts = read(tokens, keys=32, values=32, filler=32, key_size=2, value_size=3)
        keys = [part[2] for part in parts if part[0] == "needle"]
        places.append(keys.index(parts[-1][2]))
    assert abs(np.bincount(places, minlength=4) / 800 - 1 / 4).max() < 0.06


def test_marks_are_the_values_that_are_asked():
    task = tasks.task("needles", variant="multivalue")
    batch = task.test_batch(2, 256, rng())
    tokens, targets = rows(batch)[0]
    assert [tokens[t] for t in task.marks(batch)] == [target for target in targets if target != IGNORE]
    labels = tasks.task("needles", keys=2, values=2, filler=1)
    assert [labels.label(token) for token in range(6)] == ["k0", "k1", "v0", "v1", ".0", "?"]


def test_defaults():
    task = tasks.task("needles")
    assert (task.vocab_size, task.length, task.lengths) == (97, 128, (128, 256, 512, 2048))


@pytest.mark.parametrize(
    "options",
    [
        dict(variant="single_4"),
        dict(haystack="essay"),
        dict(asked=5),
        dict(asked=0),
        dict(needle_keys=0),
        dict(values_of_a_key=0),
        dict(key_size=0),
        dict(key_size=13),
        dict(value_size=1.5),
        dict(keys=0),
        dict(values=1),
        dict(filler=0),
        dict(length=25),
        dict(variant="multikey_2", keys=4, key_size=2),
        dict(needle_keys=33, key_size=1, length=256),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("needles", **options)


def test_the_shortest_row_is_needles_and_a_question():
    task = tasks.task("needles", length=26)
    for tokens, targets in rows(task.test_batch(5, 26, rng())):
        check(tokens, targets, needle_keys=4, keys=32, values=32, filler=32, key_size=2, value_size=3)
