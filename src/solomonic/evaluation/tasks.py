"""Scores of a model on a task, row by row and position by position."""

from dataclasses import replace

import numpy as np
import torch

from ..model import LanguageModel
from ..ops.precision import has_bfloat16
from ..tasks.base import Batch, Task

ROWS, LOGITS = 8, 2**22  # a call has so many rows, or more where its logits are no more than so many numbers


def held_out(task: Task, length: int, samples: int, seed: int = 0, batch_size: int = 8) -> Batch:
    """`samples` held-out rows, drawn `batch_size` at a time: the same seed draws the same rows for every model.

    Rows of documents are drawn at once, so that none comes twice; they are as many as there are, at most.
    """
    if (rows := task.held_out_rows(length)) is not None:
        batch_size = samples = min(samples, rows)
    rng = np.random.default_rng([seed, length])
    parts = [task.test_batch(min(batch_size, samples - first), length, rng) for first in range(0, samples, batch_size)]
    bounds = [part.bound for part in parts if part.bound is not None]
    documents = [part.documents for part in parts if part.documents is not None]
    return Batch(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat(bounds) if bounds else None,
        torch.cat(documents) if documents else None,
    )


def cut(batch: Batch, length: int) -> Batch:
    """Rows of documents as shorter rows end to end; what remains at the end of each is left out."""
    pieces = batch.tokens.shape[1] // length
    tokens, targets = (rows[:, : pieces * length].reshape(-1, length) for rows in (batch.tokens, batch.targets))
    documents = None if batch.documents is None else batch.documents.repeat_interleave(pieces)
    return replace(batch, tokens=tokens, targets=targets, documents=documents)


@torch.no_grad()
def read(model: LanguageModel, task: Task, batch: Batch, chunk: int = 2048) -> np.ndarray:
    """The score at each position of each row, (B, T) float64; NaN where nothing is scored.

    Long rows are read in chunks of `chunk` tokens that pass the state on, so that memory is bounded.
    """
    device = next(model.parameters()).device
    model.eval()
    length = batch.tokens.shape[1]
    rows, scores = max(ROWS, LOGITS // (min(length, chunk) * max(task.vocab_size, 256))), []
    for tokens, targets in zip(batch.tokens.split(rows), batch.targets.split(rows)):
        state, parts = None, []
        for part, wanted in zip(tokens.split(chunk, 1), targets.split(chunk, 1)):
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
                logits, state = model(part.to(device), state)
            parts.append(task.score(logits.float().cpu(), wanted))
        scores.append(task.joined(torch.cat(parts, 1)))
    return torch.cat(scores).double().numpy()


def evaluate(
    model: LanguageModel, task: Task, length: int, samples: int, seed: int = 0, batch_size: int = 8, chunk: int = 2048
) -> np.ndarray:
    """What `read` says of the rows of `held_out`, (rows, length) float64."""
    return read(model, task, held_out(task, length, samples, seed, batch_size), chunk)


__all__ = ["cut", "evaluate", "held_out", "read"]
