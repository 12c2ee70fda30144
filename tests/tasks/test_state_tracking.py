from itertools import permutations

import pytest

from solomonic import tasks

from .samples import drawn, rng, rows


def even(element):
    """By cycles: a cycle of n elements is n - 1 swaps."""
    left, swaps = set(range(len(element))), 0
    while left:
        i = left.pop()
        while element[i] in left:
            i = element[i]
            left.remove(i)
            swaps += 1
    return swaps % 2 == 0


def elements_of(group):
    every = list(permutations(range(int(group[1]))))
    return [element for element in every if group[0] == "s" or even(element)]


def check(tokens, targets, group):
    elements = elements_of(group)
    state = elements[0]
    for token, target in zip(tokens, targets):
        element = elements[token]
        state = tuple(state[element[i]] for i in range(len(state)))
        assert elements[target] == state


def test_docstring():
    tokens, targets = drawn("state_tracking")
    assert len(tokens) == 8
    check(tokens, targets, "s3")


@pytest.mark.parametrize("group, order", [("s3", 6), ("s4", 24), ("s5", 120), ("a4", 12), ("a5", 60)])
def test_permutations(group, order):
    task = tasks.task("state_tracking", group=group)
    assert task.vocab_size == order == len(elements_of(group)) and task.chance == 1 / order
    assert [task.label(token) for token in range(order)] == ["".join(map(str, e)) for e in elements_of(group)]
    for batch in (task.train_batch(4, rng()), task.test_batch(2, 333, rng()), task.test_batch(2, 1, rng())):
        for tokens, targets in rows(batch):
            check(tokens, targets, group)
    assert task.train_batch(300, rng()).tokens.unique().tolist() == list(range(order))


@pytest.mark.parametrize("group, n", [("parity", 2), ("z2", 2), ("z5", 5), ("z60", 60)])
def test_counters(group, n):
    task = tasks.task("state_tracking", group=group, length=37)
    assert task.vocab_size == n and task.lengths == (37, 74, 148, 592)
    for tokens, targets in rows(task.test_batch(3, 592, rng())):
        assert targets == [sum(tokens[: t + 1]) % n for t in range(592)]


def test_order_of_multiplication_matters():
    task = tasks.task("state_tracking", group="a5")
    assert (task.product != task.product.T).any()
    assert (task.product[0] == task.product[:, 0]).all() and task.product[0].tolist() == list(range(60))


@pytest.mark.parametrize(
    "options",
    [dict(group=g) for g in ("s6", "z1", "z0", "z", "z05", "z2000", "S3", "a3", "parity2", "", 5)]
    + [dict(length=0), dict(length=2.5)],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("state_tracking", **options)
