"""The tasks of `solomonic.tasks`, asked of a model on disk. A task draws token ids: the model's tokenizer has no part.

Only a model that was trained on a task answers it: `training.tasks.fit`, then `folder.save`.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.tasks import evaluate
from ..model import LanguageModel
from ..tasks import Task, task
from .score import nats, reading


@dataclass(frozen=True)
class Recall:
    """The mean of what the task's `metric` scores over all positions that are asked."""

    task: str
    length: int
    samples: int
    metric: str
    value: float


def named(words: str) -> Task:
    """The task that "mqar" or "mqar:vocab_size=256,filler=zero" names: options after the colon, values as in Python.

    ValueError for a task or an option that is not there.
    """
    name, _, rest = words.partition(":")
    options: dict[str, Any] = {}
    try:
        # as the arguments of a call, so that a comma inside a tuple is part of it
        call = ast.parse(f"task({rest})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args and all(word.arg for word in call.keywords)
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(f"--task: expected NAME or NAME:option=value,option=value, got {words!r}") from None
    for word in call.keywords:
        assert word.arg is not None
        try:
            options[word.arg] = ast.literal_eval(word.value)
        except ValueError:
            options[word.arg] = ast.unparse(word.value)  # a word without quotes
    try:
        return task(name, **options)
    except TypeError as error:
        raise ValueError(f"--task {words}: an option's value is of the wrong kind ({error})") from None


def fits(model: LanguageModel, problem: Task) -> None:
    """ValueError for a task with more tokens than the model."""
    if problem.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"task {problem.name}: expected a model of {problem.vocab_size} tokens or more, as the task draws them, got "
            f"one of {model.config.vocab_size}; evaluate a model that was trained on this task, with its options"
        )


def recall(
    model: LanguageModel,
    problem: Task,
    lengths: Sequence[int],
    samples: int = 64,
    seed: int = 0,
    report: Callable[[int], None] = lambda tokens: None,
) -> Iterator[Recall]:
    """A score for each length, as they are done. The same seed draws the same rows for every model.

    ValueError for a task that does not fit the model, or has no row of a length.
    """
    fits(model, problem)
    for length in lengths:
        _check_logits(model, problem, length)
        scores = evaluate(model, problem, length, samples, seed)
        report(samples * length)
        yield Recall(problem.name, length, len(scores), problem.metric, float(np.nanmean(scores)))


def _check_logits(model: LanguageModel, problem: Task, length: int) -> None:
    """ValueError for logits that are not finite, whose largest would count as an answer."""
    batch = problem.test_batch(1, length, np.random.default_rng(0))
    with reading(model) as device:
        state = None
        for tokens, targets in zip(batch.tokens.split(2048, 1), batch.targets.split(2048, 1)):
            logits, state = model(tokens.to(device), state)
            nats(logits, targets.clamp_min(0).to(device))


__all__ = ["Recall", "fits", "named", "recall"]
