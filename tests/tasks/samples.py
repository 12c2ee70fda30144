"""What the task tests share: the sample a module's docstring draws, and rows as plain lists."""

import importlib
import re
from collections.abc import Callable

import numpy as np

from solomonic.tasks import IGNORE, Batch, Task, task


def drawn(name: str) -> tuple[list[int], list[int]]:
    """The tokens and targets of the sample in the docstring of task `name`, IGNORE for `.`."""
    doc = importlib.import_module(f"solomonic.tasks.{name}").__doc__
    tokens, targets = (
        re.search(rf"^ +{line} +(.+)$", doc, re.MULTILINE).group(1).split() for line in ("tokens", "targets")
    )
    assert len(tokens) == len(targets) > 4
    return [int(token) for token in tokens], [IGNORE if target == "." else int(target) for target in targets]


def worked(name: str, begins: str) -> list[int]:
    """The tokens of the docstring's line that begins so: a row with its working."""
    doc = importlib.import_module(f"solomonic.tasks.{name}").__doc__
    line = next(line for line in doc.splitlines() if line.strip().startswith(begins))
    return [int(token) for token in line.split()]


def rows(batch: Batch):
    """Every row as (tokens, targets), two lists."""
    return list(zip(batch.tokens.tolist(), batch.targets.tolist()))


def as_drawn(name: str, check: Callable, length: int, **options) -> None:
    """The sample of the docstring passes `check`, and so do rows that the task draws with the same options."""
    tokens, targets = drawn(name)
    assert len(tokens) == length
    for row in [(tokens, targets), *rows(task(name, length=length, **options).test_batch(30, length, rng()))]:
        check(*row, **options)


def training_rows(task: Task, check: Callable, lengths: int, **options) -> None:
    """Rows of 300 training batches pass `check`. They have more than `lengths` different lengths, none below the task's
    shortest, the longest that of training."""
    stream, seen = rng(), set()
    for _ in range(300):
        batch = task.train_batch(2, stream)
        seen.add(batch.tokens.shape[1])
        for row in rows(batch):
            check(*row, **options)
    assert min(seen) >= task.shortest > 0 and max(seen) == task.length and len(seen) > lengths


def first_row(task: Task, length: int) -> tuple[list[int], list[int], list[int]]:
    """The tokens, the targets and the tokens at the marks of a row."""
    batch = task.test_batch(1, length, rng())
    [(tokens, targets)] = rows(batch)
    return tokens, targets, [tokens[t] for t in task.marks(batch)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
