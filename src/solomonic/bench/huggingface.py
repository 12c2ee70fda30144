"""Hugging Face's Mamba-2, of the shape of ours: its plain torch path on a CPU, its kernels where it finds them."""

import torch
from torch import Tensor, nn
from transformers import Mamba2Config as TheirConfig
from transformers import Mamba2ForCausalLM

from ..mixers.mamba2 import Mamba2Config
from ..model import ModelConfig


def mamba2_layer(config: Mamba2Config, d_model: int) -> nn.Module:
    """(B, T, d_model) -> (B, T, d_model)."""
    return Mamba2ForCausalLM(_config(config, d_model, layers=1, vocab_size=8)).backbone.layers[0].mixer


def mamba2_model(config: ModelConfig) -> nn.Module:
    """tokens (B, T) -> logits (B, T, V), as many layers and parameters as the model of `config`, which has no MLP."""
    layers = [layer for layer in config.layers if isinstance(layer, Mamba2Config)]
    if config.d_ff or len(layers) < len(config.layers):
        raise ValueError("expected a model of Mamba-2 layers alone, without MLPs")
    return _Logits(Mamba2ForCausalLM(_config(layers[0], config.d_model, len(layers), config.vocab_size)))


class _Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, use_cache=False).logits


def _config(config: Mamba2Config, d_model: int, layers: int, vocab_size: int) -> TheirConfig:
    return TheirConfig(
        hidden_size=d_model,
        num_hidden_layers=layers,
        vocab_size=vocab_size,
        state_size=config.state_size,
        head_dim=config.head_dim,
        num_heads=int(config.expand * d_model) // config.head_dim,
        expand=config.expand,
        n_groups=config.n_groups,
        conv_kernel=config.conv_width,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        dtype=torch.float32,
    )


__all__ = ["mamba2_layer", "mamba2_model"]
