"""Recall tasks of a model on disk: the numbers of `train.evaluate`, and one error for a task that does not fit."""

import re
from pathlib import Path

import numpy as np
import pytest

from solomonic.evaluation.recall import named, recall
from solomonic.evaluation.tasks import evaluate
from solomonic.training.config import TrainConfig
from solomonic.training.tasks import fit

from .models import small


def test_numbers_are_those_of_train_evaluate():
    problem = named("distractor_recall:pairs=2,keys=4,values=4,length=12")
    model, told = small("gated_deltanet", vocab_size=problem.vocab_size), []
    fit(model, problem, TrainConfig(steps=60, batch_size=32, lr=1e-2))
    found = list(recall(model, problem, [12, 24], 16, seed=5, report=told.append))
    assert [(one.length, one.samples, one.metric) for one in found] == [(12, 16, "accuracy"), (24, 16, "accuracy")]
    for one in found:
        assert one.value == np.nanmean(evaluate(model, problem, one.length, 16, seed=5)) > 0.3
    assert sum(told) == 16 * (12 + 24)


def test_a_model_may_have_more_tokens_than_the_task():
    problem = named("mqar:vocab_size=64, cases=((16, 2, 1.0), (32, 4, 2)), lengths=(16, 32), filler=zero")
    assert (problem.vocab_size, problem.lengths, problem.filler, len(problem.cases)) == (64, (16, 32), "zero", 2)
    model = small(vocab_size=257)
    [score] = recall(model, problem, [16], 8)
    assert score.task == "mqar" and score.value == np.nanmean(evaluate(model, problem, 16, 8))


def test_a_task_that_does_not_fit_the_model():
    with pytest.raises(ValueError, match="task mqar: expected a model of 8192 tokens or more, .* got one of 257"):
        list(recall(small(), named("mqar"), [64]))


@pytest.mark.parametrize(
    "words, says",
    [
        ("mqra", "unknown task 'mqra': did you mean 'mqar'?"),
        ("mqar:vocab=3", "unknown option of task mqar 'vocab': did you mean 'vocab_size'?"),
        ("mqar:vocab_size", "expected NAME or NAME:option=value"),
        ("mqar:vocab_size=", "expected NAME or NAME:option=value"),
        ("mqar:vocab_size=1", "vocab_size: expected a whole number of at least 4"),
        ("mqar:cases=3", "cases: expected .T, pairs, weight. with T even"),
        ("mqar:)+print(1", "expected NAME or NAME:option=value"),
        ("mqar:**{}", "expected NAME or NAME:option=value"),
    ],
)
def test_a_name_that_means_nothing(words, says):
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        named(words)


def test_options_are_not_run():
    with pytest.raises(ValueError, match="vocab_size: expected a whole number"):
        named("mqar:vocab_size=__import__('os').getpid()")


def test_options_that_the_documents_name_are_possible():
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    told = re.findall(r"`(\w+:\w+=[^`]*)`", page.read_text(encoding="utf-8").split("### Against the originals")[1])
    assert len(told) >= 4
    for text in told:
        problem = named(text)
        problem.test_batch(1, problem.lengths[0], np.random.default_rng(0))
