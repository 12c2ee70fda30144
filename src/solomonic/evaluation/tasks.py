"""Scores of a model on a task, by position, and the best score that there can be."""

import numpy as np
import torch

from ..model import LanguageModel
from ..ops.precision import has_bfloat16
from ..tasks.base import Task


@torch.no_grad()
def evaluate(
    model: LanguageModel, task: Task, length: int, samples: int, seed: int = 0, batch_size: int = 8, chunk: int = 2048
) -> np.ndarray:
    """Mean score of `samples` held-out rows at each position, (length,) float64; NaN where nothing is scored.

    Long rows are read in chunks of `chunk` tokens that pass the state on, so that memory is bounded. The same seed
    draws the same rows for every model.
    """
    device = next(model.parameters()).device
    rng = np.random.default_rng([seed, length])
    model.eval()
    total, count = np.zeros(length), np.zeros(length)
    for first in range(0, samples, batch_size):
        batch = task.test_batch(min(batch_size, samples - first), length, rng)
        state, scores = None, []
        for start in range(0, length, chunk):
            part = slice(start, min(start + chunk, length))
            with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
                logits, state = model(batch.tokens[:, part].to(device), state)
            scores.append(task.score(logits.float().cpu(), batch.targets[:, part]))
        score = task.joined(torch.cat(scores, 1)).double().numpy()
        total += np.nansum(score, 0)
        count += np.isfinite(score).sum(0)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def bound(task: Task, length: int, samples: int, seed: int = 0, batch_size: int = 8) -> np.ndarray | None:
    """Mean `Batch.bound` at each position of the rows that `evaluate` reads; None where the task knows none."""
    rng, total, count = np.random.default_rng([seed, length]), np.zeros(length), np.zeros(length)
    for first in range(0, samples, batch_size):
        known = task.test_batch(min(batch_size, samples - first), length, rng).bound
        if known is None:
            return None
        total += np.nansum(known.double().numpy(), 0)
        count += np.isfinite(known.numpy()).sum(0)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


__all__ = ["bound", "evaluate"]
