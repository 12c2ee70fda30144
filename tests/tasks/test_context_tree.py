"""Rows of random sources, and context-tree weighting as their exact optimum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, preset, tasks
from solomonic.compare.matrix import scores
from solomonic.compare.suites import Run
from solomonic.theory.solomonoff.context_tree import code_lengths

from .samples import drawn, rng, rows


def test_docstring():
    tokens, targets = drawn("context_tree")
    assert tokens == [2, *targets[:-1]]
    past = "00"
    for bit in targets:
        assert bit == (past == "00")
        past = past[1:] + str(bit)


def test_rows():
    task = tasks.task("context_tree", length=40)
    for batch in (task.train_batch(8, rng()), task.test_batch(8, 40, rng())):
        for tokens, targets in rows(batch):
            assert tokens == [2, *targets[:-1]] and set(targets) <= {0, 1}
    assert [task.label(token) for token in range(3)] == ["0", "1", "^"]


def test_bits_come_with_the_chances_of_their_source():
    task = tasks.task("context_tree", depth=3)
    bits, chances = task.draw(300, 200, rng())
    for chance, least in ((chances, 0.0), (1 - chances, 0.0)):
        assert chance.min() >= least
    assert abs((bits - chances).mean()) < 5 * (0.25 / bits.size) ** 0.5
    for row, chance in zip(bits[:20], chances):  # a source: the same context, the same chance
        padded, seen = [0, 0, 0, *row], {}
        for t, one in enumerate(chance):
            assert seen.setdefault(tuple(padded[t : t + 3]), one) == one
    alone = (chances == chances[:, :1]).all(1).mean()
    assert 0.5 < alone < 0.62  # the root is a leaf in half of the sources; some others show one context only


def test_context_tree_weighting_is_the_law_of_the_rows():
    """Rows occur as often as the mixture says: no predictor can lose fewer bits on average."""
    size, length = 40_000, 5
    bits, _ = tasks.task("context_tree", depth=2).draw(size, length, rng(3))
    every = (np.arange(2**length)[:, None] >> np.arange(length)[::-1]) & 1
    expected = 2 ** -code_lengths(every, 2).sum(1)
    assert expected.sum() == pytest.approx(1)
    came = np.bincount(bits @ (1 << np.arange(length)[::-1]), minlength=2**length) / size
    assert (abs(came - expected) < 5 * np.sqrt(expected / size)).all()


def test_optimum_is_above_the_source_and_below_other_predictors():
    task = tasks.task("context_tree", depth=4)
    bits, chances = task.draw(200, 256, rng(1))
    batch = task.test_batch(200, 256, rng(1))
    assert torch.equal(batch.targets, torch.from_numpy(bits))
    told = -np.log2(np.where(bits, chances, 1 - chances)).mean()
    best = batch.bound.mean().item()
    assert told < best < min(code_lengths(bits, depth).mean() for depth in (1, 2, 8)) < 1


def test_comparison_gives_the_regret():
    run = Run("context_tree", steps=1, samples=4, lengths=(8, 32))
    task = tasks.task("context_tree", length=8)
    model = LanguageModel(preset("mamba2", vocab_size=3, d_model=16, n_layers=1))
    with torch.no_grad():
        model.embedding.weight.zero_()  # no logit differs from another: log2 3 bits each
    found, _documents = scores(model, task, run)
    lengths = code_lengths(task.draw(4, 32, np.random.default_rng([0, 32]))[0], task.depth)
    assert [entry["bound"] for entry in found[:2]] == pytest.approx([lengths[:, :8].mean(), lengths.mean()])
    for entry in found:
        assert entry["value"] == pytest.approx(np.log2(3)) and entry["regret"] == entry["value"] - entry["bound"]
    plain = tasks.task("mqar", vocab_size=8, cases=((8, 2, 1),))
    other = LanguageModel(preset("mamba2", vocab_size=8, d_model=16, n_layers=1))
    (entry,), _documents = scores(other, plain, replace(run, lengths=(8,)))
    assert "bound" not in entry


@pytest.mark.parametrize("options", [dict(depth=0), dict(depth=13), dict(length=0), dict(depth=2.5)])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected .* got .*"):
        tasks.task("context_tree", **options)
