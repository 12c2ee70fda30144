"""Gated DeltaNet (arXiv 2412.06464): a fading memory that writes only what it failed to predict.

b = beta, how much of the error is written; g <= 0, the logarithm of the decay; H heads, keys of K dims, values of V.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import Device

from ..layers import GatedRMSNorm, ShortConvolution
from ..ops.clock import clock
from ..ops.gated_delta import gated_delta
from ..ops.sequence import Sequences
from .base import FadingMixer, MixerConfig, Reading, State
from .mamba2 import init_gates


@dataclass(frozen=True)
class GatedDeltaNetConfig(MixerConfig):
    name = "gated_deltanet"
    n_heads: int = 4
    key_dim: int = 16
    value_dim: int = 16
    conv_width: int = 4

    def __post_init__(self) -> None:
        self.require_whole(n_heads=1, key_dim=1, value_dim=1, conv_width=2)


class DeltaRule(FadingMixer):
    """What layers by the delta rule share: short-convolved queries, keys of length 1, and values."""

    config: GatedDeltaNetConfig
    fades = ("ssm",)
    innovates = True
    sizes: list[int]  # of queries, keys and values
    qkv: nn.Linear
    conv: ShortConvolution

    def project(self, x: Tensor, conv: Tensor | None, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, T, d_model) -> q, k (B, T, H, K), v (B, T, H, V), and the convolution's state; q is scaled by K^-1/2."""
        qkv, conv = self.conv(self.qkv(x), conv, sequences)
        q, k, v = (x.unflatten(-1, (self.config.n_heads, -1)).float() for x in qkv.split(self.sizes, -1))
        return _unit(q) * self.config.key_dim**-0.5, _unit(k), v, conv


class GatedDeltaNet(DeltaRule):
    Config = GatedDeltaNetConfig
    summary = "Gated DeltaNet, a fading memory that corrects its own errors"

    def __init__(self, d_model: int, config: GatedDeltaNetConfig):
        super().__init__(d_model, config)
        H, keys, values = config.n_heads, config.n_heads * config.key_dim, config.n_heads * config.value_dim
        self.sizes = [keys, keys, values]
        self.qkv = nn.Linear(d_model, 2 * keys + values, bias=False)
        self.gates = nn.Linear(d_model, 2 * H + values, bias=False)
        self.conv = ShortConvolution(2 * keys + values, config.conv_width, activate=True)
        self.A_log, self.dt_bias = init_gates(H)
        self.norm = GatedRMSNorm(config.value_dim, norm_first=True)
        self.out = nn.Linear(values, d_model, bias=False)

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        ssm = torch.zeros(batch, self.config.n_heads, self.config.value_dim, self.config.key_dim, device=device)
        total = torch.zeros(batch, self.config.n_heads, device=device)
        return {"conv": self.conv.init_state(batch, device, dtype), "ssm": ssm, "log_decay": total}

    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        state = state or dict.fromkeys(("conv", "ssm", "log_decay"))
        H = self.config.n_heads
        q, k, v, conv = self.project(x, state["conv"], sequences)
        beta, step, gate = self.gates(x).split([H, H, self.sizes[2]], -1)
        decay = -self.A_log.float().exp() * softplus(step.float() + self.dt_bias)
        beta = beta.float().sigmoid()
        if self.observer is not None:
            self.observer.scan(q=q, k=k, v=v, beta=beta, log_decay=decay)
        y, errors, ssm = gated_delta(q, k, v, beta, decay, state["ssm"], sequences, innovate=innovate)
        y = self.norm(y, gate.unflatten(-1, (H, -1))).flatten(2).to(x.dtype)
        after = {"conv": conv, "ssm": ssm, "log_decay": clock(decay, state["log_decay"], sequences)}
        return Reading(self.out(y), after, decay, *(innovations(errors, beta) if innovate else ()))


def innovations(errors: Tensor | None, strength: Tensor) -> tuple[Tensor, Tensor]:
    """Errors (B, T, H, V), as a scan gives them with `innovate`, and write strengths (B, T, H) -> `Reading.error`, `Reading.written`."""
    assert errors is not None
    return errors.flatten(2).norm(dim=-1), (errors * strength[..., None]).flatten(2).norm(dim=-1)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
