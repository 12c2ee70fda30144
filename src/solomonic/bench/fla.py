"""Layers of flash-linear-attention: Gated DeltaNet and simple GLA, on CUDA devices."""

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..mixers.gated_deltanet import GatedDeltaNetConfig


def refusal(work: str, device: torch.device) -> str | None:
    """Why they cannot do this work there, or None where they can."""
    if device.type != "cuda":
        return f"flash-linear-attention's kernels are for CUDA devices, and this is {device.type}"
    if find_spec("fla") is None:
        return "flash-linear-attention is not installed; pip install 'solomonic[gpu]'"
    return None


class _Layer(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def gated_deltanet_layer(config: GatedDeltaNetConfig, d_model: int) -> nn.Module:
    """(B, T, d_model) -> (B, T, d_model), of the shape of ours."""
    from fla.layers import GatedDeltaNet

    expand = config.value_dim / config.key_dim
    sizes = {"hidden_size": d_model, "num_heads": config.n_heads, "head_dim": config.key_dim, "expand_v": expand}
    return _Layer(GatedDeltaNet(**sizes, conv_size=config.conv_width, layer_idx=0))


def simple_gla_layer(config: GatedDeltaNetConfig, d_model: int) -> nn.Module:
    """(B, T, d_model) -> (B, T, d_model), with a state of as many numbers."""
    from fla.layers.simple_gla import SimpleGatedLinearAttention

    keys, values = (config.n_heads * dim / d_model for dim in (config.key_dim, config.value_dim))
    sizes = {"hidden_size": d_model, "num_heads": config.n_heads, "expand_k": keys, "expand_v": values}
    return _Layer(SimpleGatedLinearAttention(**sizes, use_short_conv=True, conv_size=config.conv_width, layer_idx=0))


__all__ = ["gated_deltanet_layer", "refusal", "simple_gla_layer"]
