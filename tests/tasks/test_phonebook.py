import numpy as np
import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows, training_rows


def check(tokens, targets, *, letters=26, name_length=3, digits=7):
    """Reads the book into a dict; returns its entries, and which was asked."""
    entry, blank = name_length + digits, letters + 10
    first = next(t for t, target in enumerate(targets) if target != IGNORE)
    asked = first - name_length + 1
    n, rest = divmod(asked, entry)
    assert rest == 0 and n >= 1
    names, book = [], {}
    for start in range(0, asked, entry):
        name, number = tuple(tokens[start : start + name_length]), tokens[start + name_length : start + entry]
        assert all(0 <= letter < letters for letter in name) and all(letters <= digit < blank for digit in number)
        names.append(name)
        book[name] = number
    assert len(book) == n, "a name comes twice"
    name = tuple(tokens[asked : first + 1])
    assert targets == [IGNORE] * first + book[name] + [IGNORE] * (len(tokens) - first - digits)
    assert tokens[first + 1 :] == (book[name] + [blank] * entry)[: len(tokens) - first - 1]
    return n, names.index(name)


def test_docstring():
    assert check(*drawn("phonebook"), letters=4, name_length=2, digits=3) == (2, 0)


@pytest.mark.parametrize("length, n", [(19, 1), (28, 1), (29, 2), (256, 24), (258, 24), (259, 25), (2048, 203)])
def test_rows(length, n):
    for tokens, targets in rows(tasks.task("phonebook").test_batch(5, length, rng())):
        assert check(tokens, targets)[0] == n and len(tokens) == length


def test_all_names_there_are():
    options = dict(letters=3, name_length=2, digits=2)
    task = tasks.task("phonebook", length=41, lengths=(42,), **options)
    for length in (38, 39, 42):
        for tokens, targets in rows(task.test_batch(50, length, rng())):
            assert check(tokens, targets, **options)[0] == (length + 1) // 4 - 1 <= 9
    with pytest.raises(ValueError, match="length: expected at most 42, as there are 9 names, got 43"):
        task.test_batch(1, 43, rng())


def test_training_rows():
    task = tasks.task("phonebook", length=60)
    assert task.shortest == 19
    training_rows(task, check, 35)


def test_what_is_asked_and_said_is_uniform():
    batch = tasks.task("phonebook").test_batch(3000, 69, rng())
    asked = [check(tokens, targets)[1] for tokens, targets in rows(batch)]
    assert abs(np.bincount(asked) / 3000 - 1 / 6).max() < 0.03
    digits = batch.targets[batch.targets != IGNORE] - 26
    assert abs(np.bincount(digits) / len(digits) - 1 / 10).max() < 0.01
    letters = batch.tokens[:, :3]
    assert abs(np.bincount(letters.flatten()) / letters.numel() - 1 / 26).max() < 0.01


BAD = (dict(letters=1), dict(name_length=0), dict(name_length=14), dict(digits=0), dict(length=18))


@pytest.mark.parametrize("options", [*BAD, dict(lengths=(18, 36)), dict(letters=2, name_length=1, length=100)])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("phonebook", **options)


def test_defaults():
    task = tasks.task("phonebook")
    assert (task.vocab_size, task.length, task.lengths, task.chance) == (37, 256, (256, 512, 1024, 2048), 1 / 10)
    assert [task.label(token) for token in (0, 25, 26, 35, 36)] == ["n0", "n25", "0", "9", "_"]
