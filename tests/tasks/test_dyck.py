import re

import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def check(tokens, targets, *, kinds, depth, every=False):
    """By text: pairs of brackets that stand side by side are taken out until none is left, as a stack would."""
    after = targets if every else [*tokens[1:], targets[-1]]
    assert targets[:-1] == [token if every or token >= kinds else IGNORE for token in after[:-1]]
    text = "".join(chr(65 + token) if token < kinds else chr(97 + token - kinds) for token in tokens)
    pair = re.compile("|".join(f"{chr(65 + kind)}{chr(97 + kind)}" for kind in range(kinds)))
    for end in range(len(text) + 1):
        part, taken = text[:end], 1
        while taken:
            part, taken = pair.subn("", part)
        assert part.isupper() or not part, "a bracket closes that was not the last to open"
        assert len(part) <= depth
        if end and targets[end - 1] >= kinds:
            assert part and targets[end - 1] == kinds + ord(part[-1]) - 65
        if end and len(part) == depth:
            assert targets[end - 1] != IGNORE, "a full stack closes"


def test_docstring():
    tokens, targets = drawn("dyck")
    check(tokens, targets, kinds=3, depth=2)
    assert targets[-1] == 4


@pytest.mark.parametrize("kinds, depth, length", [(2, 1, 1), (2, 1, 8), (3, 4, 4), (8, 5, 128), (20, 8, 300)])
def test_rows(kinds, depth, length):
    for train_targets in ("next", "closing"):
        task = tasks.task("dyck", kinds=kinds, depth=depth, length=length, train_targets=train_targets)
        for tokens, targets in rows(task.test_batch(8, length, rng())):
            check(tokens, targets, kinds=kinds, depth=depth)
            assert len(tokens) == length
        for tokens, targets in rows(task.train_batch(8, rng(1))):
            check(tokens, targets, kinds=kinds, depth=depth, every=train_targets == "next")


def test_every_row_is_scored_at_the_least_length():
    batch = tasks.task("dyck", depth=6).test_batch(500, 6, rng())
    assert (batch.targets != IGNORE).any(1).all()


def test_chances():
    """Where a bracket may open or close, either comes half of the time; kinds are uniform; the depth is reached."""
    task = tasks.task("dyck", kinds=4, depth=3, length=600)
    tokens = task.train_batch(100, rng()).tokens.numpy()
    height = np.cumsum(np.where(tokens < 4, 1, -1), 1)
    assert height.min() == 0 and height.max() == 3
    free = (height[:, :-1] > 0) & (height[:, :-1] < 3)
    assert abs((tokens[:, 1:][free] >= 4).mean() - 1 / 2) < 0.01
    opening = tokens[tokens < 4]
    assert abs(np.bincount(opening) / len(opening) - 1 / 4).max() < 0.01


@pytest.mark.parametrize(
    "options",
    [dict(kinds=1), dict(depth=0), dict(length=4), dict(lengths=(4, 8)), dict(train_targets="all"), dict(depth=2.5)],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("dyck", **options)


def test_defaults():
    task = tasks.task("dyck")
    assert (task.vocab_size, task.length, task.lengths, task.chance) == (16, 128, (128, 256, 512, 1024), 1 / 8)
    assert [task.label(token) for token in (0, 7, 8, 15)] == ["(0", "(7", "0)", "7)"]
