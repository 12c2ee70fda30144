"""Mamba-3 (arXiv 2603.15569): a fading memory whose complex state is discretised by the exponential-trapezoidal rule.

    h_t = exp(dt_t (A_t + i theta_t)) (h_{t-1} + (1 - lambda_t) dt_t B_{t-1} x_{t-1}) + lambda_t dt_t B_t x_t

Letters of the paper: x the inputs of the state, B what is written (key), C what is read (query), A < 0 the rate of
decay, theta the rate of rotation, dt the step, lambda the weight of the present input against the previous one, D the
skip, z the gate. H heads of P dims, N the state's size, R inputs and outputs a head (MIMO; SISO for R = 1). All heads
share theta, and B and C but for a bias each. There is no short convolution.

Sources. The recurrence, the rotary form of the complex state and the order norm, bias, rotation of B and C are those
that public descriptions quote from the paper and that the tests of the authors' code compute (state-spaces/mamba),
where theta has the other sign; it is learnt. Not verified against the paper's text, and taken from that code's module:
A = -softplus(.) of the input, of size 1e-4 or more; theta = pi tanh(.); MIMO with one gate and one skip a rank; all
initial values. That module rotates half of the state (`rotary_fraction` 0.5). Its optional norm before the output
projection is left out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus
from torch.types import Device

from ..layers import RMSNorm
from ..ops import rowwise
from ..ops.clock import clock
from ..ops.sequence import Sequences, advance, extend, join
from ..ops.trapezoid import compose, phase, trapezoid, wrap
from .base import LARGEST, FadingMixer, MixerConfig, Reading, State, is_number
from .mamba2 import init_gates

SLOWEST = 1e-4  # the least -A


@dataclass(frozen=True)
class Mamba3Config(MixerConfig):
    """`rank`: inputs and outputs a head, 4 in the published MIMO; `rotary_fraction` of the state's dims rotate."""

    name = "mamba3"
    state_size: int = 16
    head_dim: int = 16
    expand: float = 2
    rank: int = 1
    rotary_fraction: float = 1.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self.require_whole(state_size=1, head_dim=1, rank=1)
        self.require(0 < self.expand <= LARGEST, f"0 < expand <= {LARGEST}")
        self.require(0 <= self.rotary_fraction <= 1, "0 <= rotary_fraction <= 1")
        self.require(is_number(self.norm_eps) and self.norm_eps >= 0, "norm_eps >= 0")


class Mamba3(FadingMixer):
    """Its state rotates as it fades, by the sum of angles that is the leaf `phase`: hence a `compose` of its own."""

    Config = Mamba3Config
    config: Mamba3Config
    summary = "Mamba-3, a complex state-space model with a trapezoidal step"
    fades = ("ssm",)

    def __init__(self, d_model: int, config: Mamba3Config):
        super().__init__(d_model, config)
        inner, R, N, P = int(config.expand * d_model), config.rank, config.state_size, config.head_dim
        if inner % P:
            raise ValueError(
                f"mamba3: expected expand x d_model = {inner} to be head_dim x a whole number, got head_dim={P}"
            )
        self.heads, self.pairs = inner // P, int(config.rotary_fraction * N) // 2
        H = self.heads
        self.sizes = [inner, inner + R * N, R * N, H, H, H, self.pairs]
        self.project = nn.Linear(d_model, sum(self.sizes), bias=False)
        _, self.dt_bias = init_gates(H)
        self.B_norm, self.C_norm = RMSNorm(N, config.norm_eps), RMSNorm(N, config.norm_eps)
        self.B_bias, self.C_bias = (nn.Parameter(torch.ones(R, H, N)) for _ in range(2))
        self.D = nn.Parameter(torch.ones(H))
        if R > 1:
            self.x_up, self.z_up = nn.Parameter(torch.full((R, H, P), 1 / R)), nn.Parameter(torch.ones(R, H, P))
            self.y_down = nn.Parameter(torch.full((R, H, P), 1 / R))
        self.out = nn.Linear(inner, d_model, bias=False)

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        H, P, N = self.heads, self.config.head_dim, self.config.state_size
        return {
            "previous": torch.zeros(batch, 1, self.sizes[1], device=device, dtype=dtype),
            "ssm": torch.zeros(batch, H, P, N, device=device),
            "log_decay": torch.zeros(batch, H, device=device),
            "phase": torch.zeros(batch, H, self.pairs, device=device),
        }

    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        state = state or dict.fromkeys(("previous", "ssm", "log_decay", "phase"))
        H, P, R = self.heads, self.config.head_dim, self.config.rank
        z, xB, C, dt, A, mix, theta = self.project(x).split(self.sizes, -1)
        xB = extend(state["previous"], xB, 1)
        value, B = xB.split([self.sizes[0], xB.shape[-1] - self.sizes[0]], -1)
        value = value.unflatten(-1, (1, H, P))
        B, C = (
            norm(y.unflatten(-1, (R, 1, -1)).float()) + bias.float()
            for norm, y, bias in ((self.B_norm, B, self.B_bias), (self.C_norm, C, self.C_bias))
        )
        dt = softplus(dt.float() + self.dt_bias)
        decay = -softplus(A.float()).clamp_min(SLOWEST) * dt
        angle = dt[..., None] * (math.pi * theta.float().tanh())[:, :, None]
        if R > 1:
            value = value * self.x_up
        y, ssm = trapezoid(value, B, C, decay, dt, mix.float().sigmoid(), angle, state["ssm"], sequences)
        y = y + self.D.float()[:, None] * value[:, 1:]
        if R > 1:
            y = (y * silu(z.unflatten(-1, (1, H, P)) * self.z_up) * self.y_down).sum(2).flatten(2)
        else:
            y = rowwise.swiglu(z, y.flatten(2).to(z.dtype))
        after = {
            "previous": advance(xB, sequences, 1),
            "ssm": ssm,
            "log_decay": clock(decay, state["log_decay"], sequences),
            "phase": phase(angle, state["phase"], sequences),
        }
        return Reading(self.out(y.to(x.dtype)), after, decay)

    def compose(self, states: list[State], lengths: Tensor, how: str) -> State:
        """See `Mixer.compose`. A chunk rotates the states of the chunks before it."""
        ssm, log_decay, angle = (torch.stack([s[name] for s in states]) for name in ("ssm", "log_decay", "phase"))
        return {
            "previous": join([s["previous"] for s in states], lengths),
            "ssm": compose(ssm, log_decay, angle, how),
            "log_decay": log_decay.sum(0),
            "phase": wrap(angle.sum(0)),
        }
