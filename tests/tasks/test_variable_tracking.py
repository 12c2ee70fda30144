import pytest

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import as_drawn, first_row, rng, rows


def check(tokens, targets, *, chains, hops, variables, values, filler, hidden=False):
    """Runs the row as a program, token by token."""
    ask = variables + values + filler
    question = tokens.index(ask)
    holds, order, t = {}, [], 0
    while t < question:
        if tokens[t] >= variables + values:
            t += 1
            continue
        name, given = tokens[t], tokens[t + 1]
        assert name < variables and name not in holds
        holds[name] = given if given >= variables else holds[given]  # a variable is given after it was assigned
        order.append(name)
        t += 2
    assert len(set(holds.values())) == chains and len(holds) == chains * (hops + 1)
    value = tokens[question + 1]
    answers = [name for name in order if holds[name] == value]
    assert len(answers) == hops + 1 and len(tokens) == question + 2 + hops
    assert tokens[question + 2 :] == ([ask + 1] * hops if hidden else answers[:-1])
    assert targets == [IGNORE] * (question + 1) + answers
    return order, answers, holds


SIZES = dict(variables=64, values=32, filler=32)


def test_docstring():
    as_drawn("variable_tracking", check, 16, chains=2, hops=1, variables=6, values=3, filler=3)


@pytest.mark.parametrize("answers", ["shown", "hidden"])
@pytest.mark.parametrize("chains, hops", [(1, 4), (2, 4), (4, 2), (3, 0), (8, 7)])
def test_rows(answers, chains, hops):
    task = tasks.task("variable_tracking", answers=answers, chains=chains, hops=hops, length=200)
    for batch in (task.train_batch(20, rng()), task.test_batch(5, 999, rng())):
        for row in rows(batch):
            check(*row, chains=chains, hops=hops, hidden=answers == "hidden", **SIZES)


def test_chains_are_mixed_spread_and_asked_alike():
    task, of_first, apart, lasts = tasks.task("variable_tracking"), 0, 0, []
    for tokens, targets in rows(task.test_batch(600, 512, rng())):
        order, answers, holds = check(tokens, targets, chains=2, hops=4, **SIZES)
        of_first += answers[0] == order[0]
        apart += len({holds[name] for name in order[:5]}) == 2
        lasts.append(tokens.index(order[-1]))
    assert abs(of_first / 600 - 1 / 2) < 0.06
    assert apart / 600 > 0.97  # 1 - 2 / C(10, 5)
    assert 400 < sum(lasts) / 600 < 480 and max(lasts) > 500


def test_defaults_labels_and_marks():
    task = tasks.task("variable_tracking")
    assert (task.vocab_size, task.length, task.lengths) == (130, 128, (128, 256, 512, 2048))
    assert [task.label(token) for token in (0, 64, 96, 128, 129)] == ["x0", "v0", ".0", "?", "_"]
    _, targets, marked = first_row(task, 128)
    assert marked == targets[-5:]


BAD = (dict(chains=0), dict(hops=-1), dict(hops=1.5), dict(answers="all"), dict(variables=9), dict(values=1))


@pytest.mark.parametrize("options", [*BAD, dict(filler=0), dict(length=25), dict(lengths=(25, 128))])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("variable_tracking", **options)
