import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def check(tokens, targets, *, content):
    """A row is content, the compression token and every place once; asked at a place is its token."""
    n = len(tokens) // 2
    shown, end, places = tokens[:n], tokens[n], [token - content - 1 for token in tokens[n + 1 :]]
    assert all(0 <= token < content for token in shown) and end == content
    assert sorted(places) == list(range(n))
    assert targets == [IGNORE] * (n + 1) + [shown[place] for place in places]


def test_docstring():
    check(*drawn("compression"), content=3)


@pytest.mark.parametrize("options", [{}, dict(vocab_size=3, length=3), dict(vocab_size=100, length=9)])
def test_rows(options):
    task = tasks.task("compression", **options)
    for batch in (task.train_batch(20, rng()), task.test_batch(20, 3, rng())):
        for tokens, targets in rows(batch):
            check(tokens, targets, content=task.content)


def test_defaults_show_as_much_as_mads():
    task = tasks.task("compression")
    assert (task.content, task.length // 2, task.vocab_size, task.lengths) == (15, 31, 47, (63,))
    assert [task.label(token) for token in (14, 15, 16, 46)] == ["14", ">", "@0", "@30"]


def test_content_and_places_are_uniform():
    tokens = tasks.task("compression", length=9).test_batch(3000, 9, rng()).tokens
    for column, least, most in ((0, 0, 15), (3, 0, 15), (5, 16, 20), (8, 16, 20)):
        counts = tokens[:, column].bincount(minlength=20)[least:most].float()
        assert counts.sum() == 3000 and counts.min() > 0.75 * counts.mean()


@pytest.mark.parametrize("options", [dict(vocab_size=2), dict(length=64), dict(length=1), dict(lengths=(63, 65))])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("compression", **options)
    with pytest.raises(ValueError, match="length: expected at most 63, got 65; .*take a longer training length"):
        tasks.task("compression").test_batch(1, 65, rng())
