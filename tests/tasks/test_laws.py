"""The laws of `tasks/base.py` on every task there is."""

import importlib
import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from solomonic import tasks
from solomonic.tasks import IGNORE, Task

from .samples import rng

every_task = pytest.mark.parametrize("name", tasks.names())


@cache
def made(name: str) -> Task:
    return tasks.task(name)


def batches(task: Task, size: int = 3):
    """A training batch, then a test batch of every length the task asks for."""
    yield task.train_batch(size, rng(1))
    for length in task.lengths:
        yield task.test_batch(size, length, rng(1))


def perfect(task: Task, targets: torch.Tensor) -> torch.Tensor:
    logits = torch.full((*targets.shape, task.vocab_size), -torch.inf)
    return logits.scatter_(-1, targets.clamp(min=0)[..., None], 0.0)


def same(a, b) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets)


def test_every_file_is_a_task():
    files = {path.stem for path in Path(tasks.__file__).parent.glob("*.py")}
    assert set(tasks.names()) == {name for name in files if name != "base" and not name.startswith("_")}
    assert {"mqar", "selective_copying", "noisy_recall", "fuzzy_recall", "distractor_recall", "text"} <= files
    assert tasks.names() == sorted(tasks.names()) == list(tasks.summaries())


@every_task
def test_says_what_it_is(name):
    task = made(name)
    assert task.name == name and isinstance(task, Task)
    assert task.summary == tasks.summaries()[name] and "\n" not in task.summary and 10 < len(task.summary) < 100
    assert task.length >= 1 and list(task.lengths) == sorted(set(task.lengths)) and isinstance(task.lengths, tuple)
    assert "One" in importlib.import_module(f"solomonic.tasks.{name}").__doc__.split("\n\n")[1], "no sample is drawn"
    options = inspect.signature(type(task)).parameters.values()
    assert all(o.kind is o.KEYWORD_ONLY and o.default is not o.empty for o in options)
    labels = [task.label(token) for token in range(task.vocab_size)]
    assert len(set(labels)) == task.vocab_size and all(labels), "two tokens look alike"


@every_task
def test_batch_follows_from_arguments_and_generator(name):
    task, other = made(name), tasks.task(name)
    expected = list(batches(task))
    np.random.seed(7), torch.manual_seed(7)  # generators no task may look at
    other.train_batch(2, rng(5))  # nor may an earlier call matter
    for a, b in zip(expected, batches(other)):
        assert same(a, b)
    stream = rng(1)
    assert same(task.train_batch(3, stream), expected[0])
    assert not same(task.train_batch(3, stream), task.train_batch(3, stream)), "the generator does not move"


@every_task
def test_global_generators_are_left_alone(name):
    task, before = made(name), (np.random.get_state()[1].copy(), torch.get_rng_state())
    list(batches(task))
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])


@every_task
def test_shapes_and_ranges(name):
    task = made(name)
    train, *tests = batches(task)
    assert train.tokens.shape[1] <= task.length
    assert [test.tokens.shape[1] for test in tests] == list(task.lengths)
    for batch in (train, *tests):
        assert batch.tokens.shape == batch.targets.shape and len(batch.tokens) == 3
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert batch.tokens.min() >= 0 and batch.tokens.max() < task.vocab_size
        scored = batch.targets != IGNORE
        assert scored.any(1).all()
        assert batch.targets[scored].min() >= 0 and batch.targets.max() < task.vocab_size


@every_task
def test_marks_are_positions(name):
    for batch in batches(made(name)):
        marks = made(name).marks(batch)
        assert marks == sorted(set(marks)) and all(0 <= t < batch.tokens.shape[1] for t in marks)


@every_task
def test_training_reaches_its_length(name):
    assert max(made(name).train_batch(1, rng(seed)).tokens.shape[1] for seed in range(40)) == made(name).length


@every_task
def test_perfect_logits_score_best(name):
    task = made(name)
    for batch in batches(task, size=1):
        score = task.score(perfect(task, batch.targets), batch.targets)
        assert score.shape == batch.targets.shape and score.dtype == torch.float32
        assert torch.equal(score.isnan(), batch.targets == IGNORE)
        assert (score[~score.isnan()] == task.best).all()


@every_task
def test_wrong_logits_do_not(name):
    task, batch = made(name), made(name).train_batch(2, rng())
    wrong = torch.where(batch.targets == IGNORE, IGNORE, (batch.targets + 1) % task.vocab_size)
    logits = torch.zeros(*wrong.shape, task.vocab_size).scatter_(-1, wrong.clamp(min=0)[..., None], 5.0)
    score = task.score(logits.bfloat16(), batch.targets)
    assert score.dtype == torch.float32 and torch.equal(score.isnan(), batch.targets == IGNORE)
    assert (score[~score.isnan()] != task.best).all()


@every_task
@pytest.mark.parametrize("length", [0, -4, 12.5, "64"])
def test_impossible_length(name, length):
    with pytest.raises(ValueError, match="length: expected .* got"):
        made(name).test_batch(1, length, rng())


@every_task
@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_impossible_size(name, size):
    task = made(name)
    with pytest.raises(ValueError, match="size: expected .* got"):
        task.train_batch(size, rng())
    with pytest.raises(ValueError, match="size: expected .* got"):
        task.test_batch(size, task.lengths[0], rng())


@every_task
@pytest.mark.parametrize("lengths", [(), (256, 128), (128, 128), 128, "128", (0, 64), (64.5,)])
def test_impossible_lengths(name, lengths):
    with pytest.raises(ValueError, match="lengths: expected .* got"):
        tasks.task(name, lengths=lengths)


@every_task
def test_unknown_option(name):
    with pytest.raises(
        ValueError, match=rf"unknown option of task {name} 'lenghts': did you mean 'lengths'\? .*lengths"
    ):
        tasks.task(name, lenghts=(8,))


def test_unknown_task():
    with pytest.raises(ValueError, match=r"unknown task 'mqra': did you mean 'mqar'\? expected one of .*mqar.*text"):
        tasks.task("mqra")
    with pytest.raises(ValueError, match="unknown task 'zzzzzz': expected one of"):
        tasks.task("zzzzzz")
    for hidden in ("base", "_draw", ""):
        with pytest.raises(ValueError, match="unknown task .*expected one of"):
            tasks.task(hidden)


@pytest.mark.parametrize("name", [name for name in tasks.names() if made(name).chance is not None])
def test_chance_is_that_of_a_guess_among_the_answers(name):
    task = tasks.task(name, vocab_size=256) if name == "mqar" else made(name)
    targets = task.test_batch(400, task.length, rng(1)).targets
    answers = targets[targets != IGNORE].unique()
    share = (targets[targets != IGNORE] == answers[0]).float().mean().item()
    assert task.chance == pytest.approx(1 / len(answers), rel=0.02)
    assert task.metric == "accuracy" and (name == "memorization" or share == pytest.approx(task.chance, rel=0.35))


def test_every_task_of_recall_but_of_several_tokens_has_a_chance():
    without = {name for name in tasks.names() if made(name).metric == "accuracy" and made(name).chance is None}
    assert without == {"fuzzy_recall", "linear_regression", "stack_manipulation"}
