"""The model of a cell as a folder that every command loads."""

import shlex
from pathlib import Path
from typing import Any

from .._utils.spelling import counted
from ..checkpoints.folder import save
from ..data.tokenizer import Tokenizer
from ..model import LanguageModel
from ..tasks import Task, options
from .suites import Run


def keep_model(folder: Path, model: LanguageModel, problem: Task, run: Run, line: dict[str, Any]) -> None:
    """Write the model to `folder`, with a card of what the cell's `line` says; its text is the task's tokens."""
    save(folder, model, tokenizer_of(problem), card(problem, run, line))


def tokenizer_of(problem: Task) -> Tokenizer:
    """Bytes for the task `text`; the labels of a task's tokens, with spaces between, for others."""
    if problem.name == "text":
        return Tokenizer.for_bytes(end=False)
    return Tokenizer.for_words([problem.label(token) for token in range(problem.vocab_size)])


def card(problem: Task, run: Run, line: dict[str, Any]) -> str:
    whole = (score for score in line["scores"] if "position" not in score)
    scored = "".join(f"| {score['length']:,} | {score['value']:.4f} |\n" for score in whole)
    usual = options(run.task)
    own = ",".join(f"{name}={value!r}" for name, value in run.options.items() if value != usual[name])
    return f"""---
library_name: solomonic
---

# {line["arch"]} on {line["task"]}

{line["params"]:,} parameters, trained on the task `{run.task}` ({problem.summary}) for {counted(run.steps, "step")} of
{run.batch_size} rows of {problem.length:,} tokens at most, learning rate {line["lr"]:g}, seed {line["seed"]}, as one cell of a comparison.

| length | {problem.metric.replace("_", " ")} |
|---|---|
{scored}
    solomonic eval FOLDER --task {shlex.quote(f"{run.task}:{own}") if own else run.task}
"""
