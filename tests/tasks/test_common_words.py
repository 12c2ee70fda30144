from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import as_drawn, rng, rows


def check(tokens, targets, *, words, common, ratio):
    n = len(tokens) - common - 1
    counts = Counter(tokens[:n])
    assert max(counts) < words and tokens[n] == words
    ranked = counts.most_common()
    answers = [word for word, _ in ranked[:common]]
    assert tokens[n + 1 :] == answers and targets == [IGNORE] * n + [*answers, IGNORE]
    others = [count for _, count in ranked[common:]]
    u = others[0] if others else ranked[common - 1][1] // ratio
    assert [count for _, count in ranked[:common]] == [u * (ratio + common - i) for i in range(1, common + 1)]
    assert sorted(others)[1:] == [u] * (len(others) - 1)
    return u


def test_docstring():
    as_drawn("common_words", check, 12, words=8, common=2, ratio=2)


@pytest.mark.parametrize("words, common, ratio", [(64, 4, 4), (256, 10, 6), (3, 1, 2), (64, 1, 9)])
def test_rows(words, common, ratio):
    least = common * ratio + common * (common - 1) // 2 + common + 1
    task = tasks.task("common_words", words=words, common=common, ratio=ratio, length=max(128, least))
    seen = set()
    for length in (least, 128, 517, 2048):
        for row in rows(task.test_batch(4, max(length, least), rng())):
            seen.add(check(*row, words=words, common=common, ratio=ratio))
    assert min(seen) == 1 and len(seen) > 1, "words come several times where the list is long"


def test_the_list_is_in_random_order():
    firsts = Counter()
    for tokens, targets in rows(tasks.task("common_words").test_batch(2000, 128, rng())):
        firsts[tokens[0] in targets] += 1
    assert abs(firsts[True] / 2000 - 66 / 123) < 0.03  # u = 3: 21 + 18 + 15 + 12 of 123


def test_defaults():
    task = tasks.task("common_words")
    assert (task.vocab_size, task.length, task.lengths) == (33, 128, (128, 256, 512, 2048))
    assert (task.label(3), task.label(32)) == ("3", "?")


@pytest.mark.parametrize(
    "options", [dict(common=0), dict(ratio=1), dict(words=24), dict(words=2.5), dict(length=26), dict(lengths=(26, 99))]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("common_words", **options)
