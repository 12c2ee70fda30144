"""Gated KalmaNet (arXiv 2511.21016): a fading memory that answers with the best linear fit of all it has seen.

Where the delta rule corrects its matrix by one step a token, this one solves the ridge regression of values on keys,
weighted by decay and by b^2, afresh at every token. H heads, keys of K dims, values of V; b = beta, how much a token
counts; a = alpha, from linear attention (0) to the regression (1); g <= 0, the logarithm of the decay.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import Device

from ..layers import GatedRMSNorm, ShortConvolution
from ..ops.clock import clock
from ..ops.kalman import kalman
from ..ops.sequence import Sequences
from .base import FadingMixer, MixerConfig, Reading, State
from .gated_deltanet import innovations
from .mamba2 import init_gates


@dataclass(frozen=True)
class GatedKalmaNetConfig(MixerConfig):
    """`iterations` of the solver, at training and after; see `GatedKalmaNet`."""

    name = "gated_kalmanet"
    n_heads: int = 4
    key_dim: int = 16
    value_dim: int = 16
    conv_width: int = 4
    iterations: int = 30

    def __post_init__(self) -> None:
        self.require_whole(n_heads=1, key_dim=1, value_dim=1, conv_width=2, iterations=0)


class GatedKalmaNet(FadingMixer):
    """No weight depends on the number of iterations: a trained model takes another one by its attribute.

    for module in model.modules():
        if isinstance(module, GatedKalmaNet):
            module.iterations = 10  # cheaper, and less exact
    """

    Config = GatedKalmaNetConfig
    config: GatedKalmaNetConfig
    summary = "Gated KalmaNet, a fading memory that fits all of its past at every token"
    fades = ("h", "u")
    innovates = True

    def __init__(self, d_model: int, config: GatedKalmaNetConfig):
        super().__init__(d_model, config)
        H, keys, values = config.n_heads, config.n_heads * config.key_dim, config.n_heads * config.value_dim
        self.iterations = config.iterations
        self.sizes = [keys, keys, values]
        self.qkv = nn.Linear(d_model, 2 * keys + values, bias=False)
        self.gates = nn.Linear(d_model, 3 * H + values, bias=False)
        self.conv = ShortConvolution(2 * keys + values, config.conv_width, activate=True)
        self.A_log, self.dt_bias = init_gates(H)
        self.norm = GatedRMSNorm(config.value_dim, norm_first=True)
        self.out = nn.Linear(values, d_model, bias=False)

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        H, K, V = self.config.n_heads, self.config.key_dim, self.config.value_dim
        h, u = torch.zeros(batch, H, K, K, device=device), torch.zeros(batch, H, V, K, device=device)
        total = torch.zeros(batch, H, device=device)
        return {"conv": self.conv.init_state(batch, device, dtype), "h": h, "u": u, "log_decay": total}

    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        state = state or dict.fromkeys(("conv", "h", "u", "log_decay"))
        H = self.config.n_heads
        qkv, conv = self.conv(self.qkv(x), state["conv"], sequences)
        q, k, v = (x.unflatten(-1, (H, -1)).float() for x in qkv.split(self.sizes, -1))
        q, k = _unit(q) * self.config.key_dim**-0.5, _unit(k)
        beta, alpha, step, gate = self.gates(x).split([H, H, H, self.sizes[2]], -1)
        weight, alpha = beta.float().sigmoid().square(), alpha.float().sigmoid()
        decay = -self.A_log.float().exp() * softplus(step.float() + self.dt_bias)
        if self.observer is not None:
            self.observer.scan(q=q, k=k, v=v, weight=weight, log_decay=decay)
        y, errors, h, u = kalman(
            q, k, v, weight, alpha, decay, state["h"], state["u"], sequences, self.iterations, innovate
        )
        y = self.norm(y, gate.unflatten(-1, (H, -1))).flatten(2).to(x.dtype)
        after = {"conv": conv, "h": h, "u": u, "log_decay": clock(decay, state["log_decay"], sequences)}
        return Reading(self.out(y), after, decay, *(innovations(errors, weight) if innovate else ()))


def _unit(x: Tensor) -> Tensor:
    """x / max(|x|, 0.001)"""
    return x * x.square().sum(-1, keepdim=True).clamp_min(1e-6).rsqrt()
