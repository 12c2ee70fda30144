"""Training of one model on one task, on one device.

AdamW, linear warm-up then cosine to zero, gradient clipping, bf16 where the device has it. A run is a function of its
arguments: the same seed gives the same losses on the same machine, interrupted or not.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..model import LanguageModel
from ..ops.precision import has_bfloat16
from ..tasks.base import IGNORE, Task
from .config import TrainConfig
from .history import Diverged, Interrupted, TaskHistory
from .identity import identity, of_task
from .optimizer import build_optimizer


def fit(
    model: LanguageModel,
    task: Task,
    config: TrainConfig,
    checkpoint: Path | None = None,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    save_every: float = 30.0,
) -> TaskHistory:
    """Train `model` in place, on the device it is on; `report(step, mean loss)` every hundredth of the way.

    With `checkpoint`, the whole run is saved there every `save_every` seconds and when `stop()` is true, and goes on from
    there. Raises Interrupted when `stop()` was true, Diverged with the step at which the loss was not finite. ValueError
    where the file is the checkpoint of another run (another task, its options and its data among them), and
    `checkpoints.training.Damaged` where it is no checkpoint; the file stays as it is.
    """
    device = next(model.parameters()).device
    optimizer = build_optimizer(model, config)
    rng = np.random.default_rng(config.seed)
    history = TaskHistory()
    if checkpoint is not None:
        from ..checkpoints import training as checkpoints  # takes long to import

        run = identity(model.config, of_task(task), asdict(config))
        if checkpoint.exists():
            tensors, content = checkpoints.load(checkpoint, run)
            try:
                history = TaskHistory(**content["progress"])
                history.curve = [(step, loss) for step, loss in history.curve]
                np.random.default_rng().bit_generator.state = content["rng"]
            except (KeyError, TypeError, ValueError) as error:
                raise checkpoints.broken(checkpoint, error) from None
            checkpoints.restore(checkpoint, model, optimizer, tensors, model.config.tie_embeddings)
            rng.bit_generator.state = content["rng"]

    def save() -> None:
        if checkpoint is not None:
            content = {"identity": run, "rng": rng.bit_generator.state, "progress": asdict(history)}
            checkpoints.save(checkpoint, checkpoints.collect(model, optimizer, {}), content)

    model.train()
    every = max(1, config.steps // 100)
    losses: list[Tensor] = []
    since = saved_at = time.monotonic()
    while history.step < config.steps:
        batch = task.train_batch(config.batch_size, rng, history.step / config.steps)
        tokens, targets = batch.tokens.to(device), batch.targets.to(device)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(history.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            logits, _ = model(tokens, dropped=_to(device, config.dropped(history.step, len(tokens))))
            loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        losses.append(loss.detach())
        history.step += 1
        history.tokens += tokens.numel()
        if history.step % every == 0 or history.step == config.steps:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            if not np.isfinite(mean):
                raise Diverged(f"the loss is {mean} at step {history.step}; try a lower learning rate than {config.lr}")
            history.curve.append((history.step, round(mean, 5)))
            now = time.monotonic()
            history.seconds, since = history.seconds + now - since, now
            report(history.step, mean)
            asked = stop()
            if asked or now - saved_at > save_every:
                save()
                saved_at = now
            if asked:
                raise Interrupted(f"stopped at step {history.step} of {config.steps}")
    return history


def _to(device: torch.device, x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(device)


__all__ = ["fit"]
