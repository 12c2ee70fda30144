"""Mamba-2 (arXiv 2405.21060): a fading memory with one scalar decay a head.

Letters of the paper: x the inputs of the state (value), B what is written (key), C what is read (query), dt the step,
A < 0 the rate of decay, D the skip, z the gate. H heads of P dims, N the state's size, G groups that share B and C.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import Device

from ..layers import GatedRMSNorm, ShortConvolution
from ..ops.clock import clock
from ..ops.sequence import Sequences
from ..ops.ssd import ssd
from .base import LARGEST, FadingMixer, MixerConfig, Reading, State, is_number


@dataclass(frozen=True)
class Mamba2Config(MixerConfig):
    """`time_step_limit` (least, most or None) bounds dt; `bias` is of both projections."""

    name = "mamba2"
    state_size: int = 16
    head_dim: int = 16
    expand: float = 2
    n_groups: int = 1
    conv_width: int = 4
    bias: bool = False
    conv_bias: bool = True
    time_step_limit: tuple[float, float | None] | None = None
    norm_before_gate: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self.require_whole(state_size=1, head_dim=1, n_groups=1, conv_width=2)
        self.require(0 < self.expand <= LARGEST, f"0 < expand <= {LARGEST}")
        self.require(is_number(self.norm_eps) and self.norm_eps >= 0, "norm_eps >= 0")
        if self.time_step_limit is not None:
            object.__setattr__(self, "time_step_limit", tuple(self.time_step_limit))
            valid = len(self.time_step_limit) == 2 and all(x is None or is_number(x) for x in self.time_step_limit)
            least, most = self.time_step_limit if valid else (0, -1)
            self.require(least >= 0 and (most is None or least <= most), "time_step_limit: 0 <= least <= most")


def init_gates(heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """log A with A uniform in [1, 16], and a bias with softplus(bias) log-uniform in [0.001, 0.1] (Mamba-2's)."""
    step = torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return nn.Parameter(torch.empty(heads).uniform_(1, 16).log()), nn.Parameter(step + torch.log(-torch.expm1(-step)))


class Mamba2(FadingMixer):
    Config = Mamba2Config
    config: Mamba2Config
    summary = "Mamba-2, a state-space model with scalar decay"
    fades = ("ssm",)

    def __init__(self, d_model: int, config: Mamba2Config):
        super().__init__(d_model, config)
        inner = int(config.expand * d_model)
        if inner % config.head_dim or (inner // config.head_dim) % config.n_groups:
            raise ValueError(
                f"mamba2: expected expand x d_model = {inner} to be n_groups x head_dim x a whole number, "
                f"got head_dim={config.head_dim}, n_groups={config.n_groups}"
            )
        self.heads = inner // config.head_dim
        shared = config.n_groups * config.state_size
        self.sizes = [inner, inner + 2 * shared, self.heads]
        self.split = [inner, shared, shared]
        self.project = nn.Linear(d_model, sum(self.sizes), config.bias)
        self.conv = ShortConvolution(inner + 2 * shared, config.conv_width, config.conv_bias, activate=True)
        self.A_log, self.dt_bias = init_gates(self.heads)
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(inner, config.n_groups, config.norm_before_gate, config.norm_eps)
        self.out = nn.Linear(inner, d_model, config.bias)

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        ssm = torch.zeros(batch, self.heads, self.config.head_dim, self.config.state_size, device=device)
        total = torch.zeros(batch, self.heads, device=device)
        return {"conv": self.conv.init_state(batch, device, dtype), "ssm": ssm, "log_decay": total}

    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        state = state or dict.fromkeys(("conv", "ssm", "log_decay"))
        z, xBC, dt = self.project(x).split(self.sizes, -1)
        xBC, conv = self.conv(xBC, state["conv"], sequences)
        value, B, C = xBC.split(self.split, -1)
        value = value.unflatten(-1, (self.heads, -1))
        B, C = (x.unflatten(-1, (self.config.n_groups, -1)) for x in (B, C))
        dt = softplus(dt.float() + self.dt_bias)
        if self.config.time_step_limit is not None:
            dt = dt.clamp(*self.config.time_step_limit)
        decay = -self.A_log.float().exp() * dt
        if self.observer is not None:
            self.observer.scan(v=value, k=B, q=C, log_decay=decay, step=dt)
        y, ssm = ssd(value, B, C, decay, state["ssm"], sequences, step=dt, skip=self.D.float())
        after = {"conv": conv, "ssm": ssm, "log_decay": clock(decay, state["log_decay"], sequences)}
        return Reading(self.out(self.norm(y.flatten(2), z).to(x.dtype)), after, decay)
