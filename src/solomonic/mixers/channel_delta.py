"""What Kimi Delta Attention and Gated DeltaNet-2 share: a delta rule with a decay for each key channel.

    q, k = L2norm(silu(conv(W x))), v = silu(conv(W x))             a head at a time
    g = -exp(A) softplus(W_up W_down x + bias)                      the log decays, (H, K) a token
    S_t = (I - k_t p_t^T) Diag(exp(g_t)) S_{t-1} + k_t v_t^T        o_t = S_t^T q_t
    y = W_o (RMSNorm(o) * sigmoid(W_up' W_down' x))

(Kimi Linear, arXiv 2510.26692, sections 3 and 4.) They differ in how gates make p, k and v of the convolved k and v.
The narrow middle of both low-rank projections is as wide as a head's values. q is scaled by one over the root of K.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.types import Device

from ..layers import RMSNorm, ShortConvolution
from ..ops.channel_delta import channel_delta
from ..ops.clock import clock
from ..ops.sequence import Sequences
from .base import Reading, State
from .gated_deltanet import DeltaRule, GatedDeltaNetConfig, innovations
from .mamba2 import init_gates


class ChannelDelta(DeltaRule):
    def __init__(self, d_model: int, config: GatedDeltaNetConfig, gates: int):
        """`gates`: numbers a head in (0, 1) that `edit` is given of every token."""
        super().__init__(d_model, config)
        H, keys, values = config.n_heads, config.n_heads * config.key_dim, config.n_heads * config.value_dim
        self.sizes = [keys, keys, values]
        self.split = [H * gates, config.value_dim, config.value_dim]
        self.qkv = nn.Linear(d_model, 2 * keys + values, bias=False)
        self.conv = ShortConvolution(2 * keys + values, config.conv_width, activate=True)
        self.gates = nn.Linear(d_model, sum(self.split), bias=False)
        self.decay = nn.Linear(config.value_dim, keys, bias=False)
        self.gate = nn.Linear(config.value_dim, values, bias=False)
        self.A_log, _ = init_gates(H)
        _, self.dt_bias = init_gates(keys)
        self.norm = RMSNorm(config.value_dim)
        self.out = nn.Linear(values, d_model, bias=False)

    @abstractmethod
    def edit(self, k: Tensor, v: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k (B, T, H, K), v (B, T, H, V), gates (B, T, H, .) -> keys to write at, keys to erase at, values to write."""

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        H, K, V = self.config.n_heads, self.config.key_dim, self.config.value_dim
        ssm, total = torch.zeros(batch, H, V, K, device=device), torch.zeros(batch, H, K, device=device)
        return {"conv": self.conv.init_state(batch, device, dtype), "ssm": ssm, "log_decay": total}

    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        state = state or dict.fromkeys(("conv", "ssm", "log_decay"))
        H = self.config.n_heads
        q, k, v, conv = self.project(x, state["conv"], sequences)
        gates, step, gate = self.gates(x).split(self.split, -1)
        k, erase, v = self.edit(k, v, gates.unflatten(-1, (H, -1)).float().sigmoid())
        step = softplus(self.decay(step).float() + self.dt_bias).unflatten(-1, (H, -1))
        decay = -self.A_log.float().exp()[:, None] * step
        if self.observer is not None:
            self.observer.scan(q=q, k=k, erase=erase, v=v, log_decay=decay)
        y, errors, ssm = channel_delta(q, k, erase, v, decay, state["ssm"], sequences, innovate=innovate)
        y = self.norm(y) * self.gate(gate).unflatten(-1, (H, -1)).float().sigmoid()
        after = {"conv": conv, "ssm": ssm, "log_decay": clock(decay, state["log_decay"], sequences)}
        shown = innovations(errors, k.norm(dim=-1)) if innovate else ()
        return Reading(self.out(y.flatten(2).to(x.dtype)), after, decay, *shown)
