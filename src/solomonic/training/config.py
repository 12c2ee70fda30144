"""Settings of training: on a task (`TrainConfig`) and on text (`RunConfig`)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
        if not (
            0 <= self.warmup <= 1 and self.weight_decay >= 0 and self.clip >= 0 and all(0 <= b < 1 for b in self.betas)
        ):
            got = f"{self.warmup}, {self.weight_decay}, {self.clip} and {tuple(self.betas)}"
            raise ValueError(f"expected 0 <= warmup <= 1, weight_decay >= 0, clip >= 0 and 0 <= betas < 1, got {got}")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def dropped(self, step: int, rows: int | None = None, part: slice = slice(None)) -> Tensor | None:
        """(rows,) bool: the rows of step 0, 1, ... whose fading memories are not read beside attention; None for none.

        They are the `part` of the batch, cut into `rows` rows; None: into one each.

        The share of them is `fading_dropout` at first and falls to zero at half of the steps. A fading memory learns faster
        than attention and explains what is easy; without this, what only attention can recall is learnt late, or not at
        all. On text, where little is recalled, it costs more than it brings (docs/log.md).
        """
        share = self.fading_dropout * (1 - 2 * step / self.steps)
        if share <= 0:
            return None
        dropped = torch.from_numpy(np.random.default_rng([self.seed, step, 1]).random(self.batch_size) < share)[part]
        return dropped if rows is None else dropped.repeat(-(-rows // len(dropped)))[:rows]


@dataclass(frozen=True)
class RunConfig(TrainConfig):
    """`batch_size` rows of `length` tokens a step, over all processes, each in `accumulate` micro-batches."""

    length: int = 512
    accumulate: int = 1
    carry: int = 0  # steps that a row goes on for with its state (truncated backpropagation through time); 0: none
    lookup: float = 0.0  # share of the rows with passages of others, which look them up as in a store (`lookup`)
    precision: str | None = None  # "no" or "bf16"; None: bf16 where the device has it
    fsdp: bool = False  # shard parameters, gradients and optimizer (FSDP2) instead of copying them (DDP)
    log_every: int = 10  # steps
    eval_every: int | None = None  # steps; None: ten times a run
    save_every: int | None = None  # steps; None: twenty times a run
    eval_tokens: int = 65536  # held-out tokens an evaluation reads, at most

    def __post_init__(self):
        super().__post_init__()
        if self.carry < 0:
            raise ValueError(f"expected carry >= 0, got {self.carry}")
        for name in ("length", "accumulate", "log_every", "eval_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        for name in ("eval_every", "save_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.precision not in (None, "no", "bf16"):
            raise ValueError(f"expected precision no or bf16, got {self.precision!r}")

    def often(self, name: str, times: int) -> int:
        return getattr(self, name) or max(1, self.steps // times)


FREE = ("accumulate", "precision", "fsdp", "log_every", "eval_every", "save_every", "eval_tokens")
"""Settings that a resumed run may change: they do not say what is computed."""


__all__ = ["FREE", "RunConfig", "TrainConfig"]
