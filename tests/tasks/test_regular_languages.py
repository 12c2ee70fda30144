from itertools import groupby

import numpy as np
import pytest
import torch

from solomonic import tasks
from solomonic.tasks import IGNORE

from .samples import drawn, rng, rows


def run(automaton, tokens, begin):
    """How many symbols a dict automaton admits at each token, 0 at a begin; KeyError where the token is not one."""
    admitted, state = [], 0
    for token in tokens:
        if token == begin:
            admitted.append(0)
            state = 0
        else:
            admitted.append(len(automaton[state]))
            state = automaton[state][token]
    return admitted


def as_dicts(counts, symbols, goes_to):
    return [
        [dict(zip(s[:n].tolist(), g[:n].tolist())) for n, s, g in zip(row_counts, row_symbols, row_goes)]
        for row_counts, row_symbols, row_goes in zip(counts, symbols, goes_to)
    ]


def check_targets(tokens, targets, begin):
    assert tokens[0] == begin
    assert targets[:-1] == [IGNORE if token == begin else token for token in tokens[1:]]
    assert targets[-1] == IGNORE or 0 <= targets[-1] < begin


def test_docstring():
    tokens, targets = drawn("regular_languages")
    check_targets(tokens, targets, 4)
    assert run([{0: 1, 2: 2}, {3: 0}, {0: 1}], tokens, 4) == [0, 2, 1, 2, 0, 2, 1, 1]


def test_rows_are_strings_of_their_automaton():
    task = tasks.task("regular_languages")
    automata = as_dicts(*task.automata(20, rng(3)))
    tokens, admitted = task.draw(20, 400, rng(3))  # the automata are drawn first
    for automaton, row, counts in zip(automata, tokens.tolist(), admitted.tolist()):
        assert run(automaton, row, 18) == counts
    batch = task.test_batch(20, 400, rng(3))
    assert (batch.tokens.numpy() == tokens[:, :-1]).all()
    for tokens_, targets in rows(batch):
        check_targets(tokens_, targets, 18)
    known = batch.targets != IGNORE
    assert torch.equal(batch.bound.isnan(), ~known) and batch.bound.dtype == torch.float32
    assert np.allclose(batch.bound[known], np.log2(admitted[:, 1:][known.numpy()]))


def test_automata():
    task = tasks.task("regular_languages")
    sizes, letters, counts = [], [], []
    for automaton, own in zip(as_dicts(*task.automata(400, rng())), task.automata(400, rng())[0]):
        assert all(len(state) == count <= 3 for state, count in zip(automaton, own)), "two edges have one symbol"
        for i, state in enumerate(automaton):
            assert len({*state.values()}) == len(state) and i not in state.values(), "two go to one, or one to itself"
        used = {symbol for state in automaton for symbol in state}
        assert used <= set(range(18))
        sizes.append(1 + max(goes_to for state in automaton for goes_to in state.values()))
        letters.append(len(used))
        counts += [len(state) for state in automaton]
    assert max(sizes) == 12 and min(sizes) <= 4 and max(letters) >= 15 and min(letters) <= 4
    assert abs(np.bincount(counts)[1:] / len(counts) - 1 / 3).max() < 0.02


def test_edges_are_equally_likely_and_the_bound_is_attained():
    """The automaton's own prediction loses what the bound says, and every other one more."""
    task = tasks.task("regular_languages")
    automata = as_dicts(*task.automata(64, rng(5)))
    batch = task.test_batch(64, 512, rng(5))
    logits = torch.full((64, 512, 19), -30.0)
    for b, automaton in enumerate(automata):
        state = 0
        for t, token in enumerate(batch.tokens[b].tolist()):
            state = 0 if token == 18 else automaton[state][token]
            logits[b, t, list(automaton[state])] = 0.0
    score = task.score(logits, batch.targets)
    assert torch.allclose(score.nanmean(), batch.bound.nanmean(), atol=1e-5)
    first = {2: 0, 3: 0}
    seen = dict(first)
    for b in range(64):
        for t, target in enumerate(batch.targets[b].tolist()):
            options = (logits[b, t] == 0).nonzero().flatten().tolist()
            if target != IGNORE and len(options) > 1:
                seen[len(options)] += 1
                first[len(options)] += target == options[0]
    for n in (2, 3):
        assert abs(first[n] / seen[n] - 1 / n) < 5 * (1 / n * (1 - 1 / n) / seen[n]) ** 0.5


def test_lengths_of_strings():
    tokens, _ = tasks.task("regular_languages", string_length=5).draw(200, 600, rng())
    sizes = []
    for row in tokens.tolist():
        runs = [(key, len(list(group))) for key, group in groupby(row, lambda token: token == 18)]
        assert all(count == 1 for key, count in runs if key), "an empty string"
        sizes += [count for key, count in runs if not key][:-1]  # the last may be cut off
    assert abs(np.bincount(sizes, minlength=6)[1:] / len(sizes) - 1 / 5).max() < 0.01


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_rows(length):
    for tokens, targets in rows(tasks.task("regular_languages", string_length=1).test_batch(9, length, rng())):
        check_targets(tokens, targets, 18)
        assert [target == IGNORE for target in targets] == [False, True, False][:length]


@pytest.mark.parametrize(
    "options",
    [dict(symbols=3), dict(states=3), dict(edges=1), dict(edges=4), dict(string_length=0), dict(length=0)],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("regular_languages", **options)


def test_defaults():
    task = tasks.task("regular_languages")
    assert (task.vocab_size, task.lengths, task.metric) == (19, (512, 1024, 2048), "bits_per_token")
    assert [task.label(token) for token in (0, 17, 18)] == ["0", "17", "^"]
