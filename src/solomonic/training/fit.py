"""Training of one model on one task, on one device.

AdamW, linear warm-up then cosine to zero, gradient clipping, bf16 where the device has it. A run is a function of its
arguments: the same seed gives the same losses on the same machine, interrupted or not.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..model import LanguageModel
from ..ops.precision import has_bfloat16
from ..tasks.base import IGNORE, Task


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    batch_size: int
    lr: float  # the highest; reached after `warmup`
    seed: int = 0
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.1  # of matrices; vectors have none
    clip: float = 1.0  # largest norm of the gradient
    betas: tuple[float, float] = (0.9, 0.95)
    fading_dropout: float = 0.0  # share of the rows at first whose fading memories are not read beside attention

    def __post_init__(self):
        if not 0 <= self.fading_dropout <= 1:
            raise ValueError(f"expected 0 <= fading_dropout <= 1, got {self.fading_dropout}")
        if self.steps < 1 or self.batch_size < 1 or not self.lr > 0:
            got = f"{self.steps}, {self.batch_size} and {self.lr:g}"
            raise ValueError(f"expected steps >= 1, batch_size >= 1 and lr > 0, got {got}")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def dropped(self, step: int) -> Tensor | None:
        """(batch_size,) bool: the rows of step 0, 1, ... whose fading memories are not read beside attention; None for none.

        `fading_dropout` of them at first, falling to none at half of the steps. A fading memory learns faster than
        attention and explains what is easy, so that what only attention can recall would be learnt late, or not at all. On
        text, where little is recalled, it costs more than it brings (docs/log.md).
        """
        share = self.fading_dropout * (1 - 2 * step / self.steps)
        if share <= 0:
            return None
        return torch.from_numpy(np.random.default_rng([self.seed, step, 1]).random(self.batch_size) < share)


@dataclass
class Progress:
    """What a run has done so far; `seconds` is time spent training, over all its sittings."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] | None = None  # (step, mean loss since the last entry), about 100 of them


class Diverged(Exception):
    """The loss is no longer a number."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint, if it has one, is written."""


def fit(
    model: LanguageModel,
    task: Task,
    config: TrainConfig,
    checkpoint: Path | None = None,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    save_every: float = 30.0,
) -> Progress:
    """Train `model` in place, on the device it is on; `report(step, mean loss)` every hundredth of the way.

    With `checkpoint`, the whole run is saved there every `save_every` seconds and when `stop()` turns true, and taken
    up from there. Raises Interrupted when it was asked to stop, Diverged with the step at which the loss was not finite.
    ValueError where the file is the checkpoint of another run, of another task, its options or its data among them, and
    `checkpoint.Damaged` where it is none; it stays as it is.
    """
    device = next(model.parameters()).device
    optimizer = build_optimizer(model, config)
    rng = np.random.default_rng(config.seed)
    done = Progress(curve=[])
    if checkpoint is not None:
        from ..checkpoints import training as files  # takes long to import

        identity = _identity(model, task, config)
        if checkpoint.exists():
            tensors, saved = files.load(checkpoint, identity)
            done = _resumed(checkpoint, tensors, saved, model, optimizer, rng)

    def save() -> None:
        if checkpoint is not None:
            content = {"identity": identity, "rng": rng.bit_generator.state, "progress": asdict(done)}
            files.save(checkpoint, files.collect(model, optimizer, {}), content)

    model.train()
    every = max(1, config.steps // 100)
    losses: list[Tensor] = []
    since = saved_at = time.monotonic()
    while done.step < config.steps:
        batch = task.train_batch(config.batch_size, rng, done.step / config.steps)
        tokens, targets = batch.tokens.to(device), batch.targets.to(device)
        for group in optimizer.param_groups:
            group["lr"] = config.rate(done.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            logits, _ = model(tokens, dropped=_to(device, config.dropped(done.step)))
            loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        losses.append(loss.detach())
        done.step += 1
        done.tokens += tokens.numel()
        if done.step % every == 0 or done.step == config.steps:
            mean = torch.stack(losses).mean().item()
            losses.clear()
            if not np.isfinite(mean):
                raise Diverged(f"the loss is {mean} at step {done.step}; try a lower learning rate than {config.lr}")
            done.curve.append((done.step, round(mean, 5)))
            now = time.monotonic()
            done.seconds, since = done.seconds + now - since, now
            report(done.step, mean)
            asked = stop()
            if asked or now - saved_at > save_every:
                save()
                saved_at = now
            if asked:
                raise Interrupted(f"stopped at step {done.step} of {config.steps}")
    return done


def _identity(model: LanguageModel, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What has to be the same for a checkpoint to go on: all that its weights depend on but the code and the first ones."""
    return json.loads(json.dumps({"model": model.config.to_dict()} | of_task(task) | asdict(config)))


def of_task(task: Task) -> dict[str, Any]:
    """The name of a task and all that it draws from, as plain values: options as they are, of data the digest."""
    return {"task": task.name} | {f"task {name}": _plain(value) for name, value in vars(task).items()}


def _plain(x: Any) -> Any:
    """As JSON has it; of an array, its digest."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    if isinstance(x, (bytes, np.ndarray, np.generic, Tensor)):
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        return f"{x.dtype} {x.shape} {blake2b(np.ascontiguousarray(x), digest_size=16).hexdigest()}"
    if isinstance(x, (set, frozenset)):
        return sorted(map(repr, x))
    name = getattr(x, "__qualname__", None)
    return name if name is not None else [type(x).__qualname__, _plain(vars(x) if hasattr(x, "__dict__") else repr(x))]


def _resumed(
    path: Path,
    tensors: dict[str, Tensor],
    saved: dict[str, Any],
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> Progress:
    """What a checkpoint has done, taken over by all three."""
    from ..checkpoints import training as files

    try:
        progress = Progress(**saved["progress"])
        progress.curve = [tuple(entry) for entry in progress.curve]
        np.random.default_rng().bit_generator.state = saved["rng"]
    except (KeyError, TypeError, ValueError) as error:
        raise files.Damaged(f"{path}: expected the checkpoint of a run, got a broken one ({error!r})") from None
    try:
        files.restore(model, optimizer, tensors, model.config.tie_embeddings)
    except files.Damaged as error:
        raise files.Damaged(f"{path}: {error}") from None
    rng.bit_generator.state = saved["rng"]
    return progress


def _to(device: torch.device, x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(device)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )
