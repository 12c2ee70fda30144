"""Gated DeltaNet-2 (arXiv 2605.22791): Kimi Delta Attention that erases and writes by two gates, channel by channel.

    S_t = (I - k_t (b_t * k_t)^T) Diag(a_t) S_{t-1} + k_t (w_t * v_t)^T

b, w = sigmoid(W x): how much of what stands at each key channel is erased, in (0, 1)^K a head, and how much of each
value channel is written, in (0, 1)^V. Where both are one and the same number it is Kimi Delta Attention.

The recurrence is the paper's as others state it: of the paper itself its abstract was at hand, which has the two gates and
both special cases. The rest of the layer (short convolutions, low-rank decay, sigmoid output gate) is that of Kimi Delta
Attention, and was not held to the paper.

The innovation is w_t * v_t - S'^T (b_t * k_t), what the layer itself writes, so gates that are shut make it small.
"""

from dataclasses import dataclass

from torch import Tensor

from .channel_delta import ChannelDelta
from .gated_deltanet import GatedDeltaNetConfig


@dataclass(frozen=True)
class GatedDeltaNet2Config(GatedDeltaNetConfig):
    name = "gated_deltanet2"


class GatedDeltaNet2(ChannelDelta):
    Config = GatedDeltaNet2Config
    summary = "Gated DeltaNet-2, a delta rule that erases and writes by gates of their own"

    def __init__(self, d_model: int, config: GatedDeltaNet2Config):
        super().__init__(d_model, config, gates=config.key_dim + config.value_dim)

    def edit(self, k: Tensor, v: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        erase, write = gates.split([k.shape[-1], v.shape[-1]], -1)
        return k, erase * k, write * v
