import math
from collections import Counter

import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE
from solomonic.tasks.frequent_words import _zeta

from .samples import drawn, rng, rows


def check(tokens, targets, *, words, asked, alpha):
    n = len(tokens) - asked - 1
    counts = Counter(tokens[:n])
    noise = counts.pop(words)
    assert max(counts) < words and tokens[n] == words + 1
    ranked = counts.most_common()
    answers = [word for word, _ in ranked[:asked]]
    assert tokens[n + 1 :] == answers and targets == [IGNORE] * n + [*answers, IGNORE]
    zeta = {2: math.pi**2 / 6, 1.5: 2.612375348685488, 3: 1.2020569031595942}[alpha]
    expected = [math.floor(n * k**-alpha / zeta) for k in range(2, words + 2)]
    assert [count for _, count in ranked] == [count for count in expected if count]
    assert noise == n - sum(expected) >= n / zeta - 1


def test_docstring():
    options = dict(words=6, asked=2, alpha=1.5)
    tokens, targets = drawn("frequent_words")
    check(tokens, targets, **options)
    task = tasks.task("frequent_words", length=len(tokens), **options)
    for row in rows(task.test_batch(20, len(tokens), rng())):
        check(*row, **options)


@pytest.mark.parametrize("words, asked, alpha", [(64, 3, 2), (20, 3, 2), (64, 2, 3), (64, 5, 1.5), (2, 1, 2)])
def test_rows(words, asked, alpha):
    task = tasks.task("frequent_words", words=words, asked=asked, alpha=alpha, length=256)
    for batch in (task.train_batch(10, rng()), task.test_batch(4, 300, rng()), task.test_batch(4, 4096, rng())):
        for row in rows(batch):
            check(*row, words=words, asked=asked, alpha=alpha)


@pytest.mark.parametrize(
    "alpha, value", [(1.1, 10.584448464950810), (2, math.pi**2 / 6), (4, math.pi**4 / 90), (10, 1.000994575127818)]
)
def test_zeta(alpha, value):
    assert _zeta(alpha) == pytest.approx(value, rel=1e-12)


def test_words_and_their_order_are_drawn():
    firsts, begins = Counter(), Counter()
    for tokens, targets in rows(tasks.task("frequent_words", words=8).train_batch(2000, rng())):
        firsts[targets[-4]] += 1
        begins[tokens[0] == 8] += 1
    assert all(abs(firsts[word] / 2000 - 1 / 8) < 0.03 for word in range(8))
    assert 0.58 < begins[True] / 2000 < 0.72  # 1 / zeta(2) = 0.61, and what rounding leaves


def test_defaults():
    task = tasks.task("frequent_words")
    assert (task.vocab_size, task.length, task.lengths) == (34, 128, (128, 256, 512, 2048))
    assert [task.label(token) for token in (3, 32, 33)] == ["3", "_", "?"]


@pytest.mark.parametrize(
    "options",
    [
        dict(asked=0),
        dict(words=3),
        dict(alpha=1),
        dict(alpha="2"),
        dict(alpha=float("nan")),
        dict(length=20),
        dict(asked=9),
        dict(lengths=(20, 128)),
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("frequent_words", **options)
