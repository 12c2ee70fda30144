"""Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): Gated DeltaNet with a decay for each key channel.

    S_t = (I - b_t k_t k_t^T) Diag(a_t) S_{t-1} + b_t k_t v_t^T

b = beta, how much of the error is written, one number a head; a = exp(g), what is left, one a key channel.
"""

from dataclasses import dataclass

from torch import Tensor

from .channel_delta import ChannelDelta
from .gated_deltanet import GatedDeltaNetConfig


@dataclass(frozen=True)
class KDAConfig(GatedDeltaNetConfig):
    name = "kda"


class KDA(ChannelDelta):
    Config = KDAConfig
    summary = "Kimi Delta Attention, Gated DeltaNet with a decay for each key channel"

    def __init__(self, d_model: int, config: KDAConfig):
        super().__init__(d_model, config, gates=1)

    def edit(self, k: Tensor, v: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return gates * k, k, v
