"""Mamba-2 as Hugging Face keeps it (`model_type` mamba2): mamba2-130m to 2.7b converted, Mamba-Codestral-7B.

`chunk_size`, `time_step_min`, `time_step_max`, `time_step_floor`, `time_step_rank` and `rescale_prenorm_residual` say
how to compute or to begin, and change nothing. `norm_before_gate`, which old files have, is not read by transformers
either: the gate comes first. Residuals are kept in the weights' type, whatever `residual_in_fp32` says.
"""

from collections.abc import Mapping

from torch import Tensor

from ...mixers.mamba2 import Mamba2Config
from ...model import ModelConfig
from .base import flag, layer_count, limit, number, renamed, require

TYPE = "mamba2"

MIXER = "backbone.layers.*.mixer"
PARTS = {
    "embedding": "backbone.embeddings",
    "norm": "backbone.norm_f",
    "head": "lm_head",
    "blocks.*.mixer_norm": "backbone.layers.*.norm",
    "blocks.*.mixer": MIXER,
    "blocks.*.mixer.project": f"{MIXER}.in_proj",
    "blocks.*.mixer.conv": f"{MIXER}.conv1d",
    "blocks.*.mixer.norm": f"{MIXER}.norm",
    "blocks.*.mixer.out": f"{MIXER}.out_proj",
}


def matches(config: dict) -> bool:
    return config.get("model_type") == TYPE


def translate(config: dict, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """See `formats`. The embeddings may be named as the authors' are."""
    require(config, hidden_act=("silu",), quantization_config=(None,))
    width, expand = number(config, "hidden_size", kind=int), number(config, "expand", 2)
    heads, head_dim = number(config, "num_heads", kind=int), number(config, "head_dim", 64, int)
    if expand * width != heads * head_dim:
        raise ValueError(
            "config.json: expected hidden_size x expand = num_heads x head_dim, "
            f"got {width} x {expand:g} and {heads} x {head_dim}"
        )
    eps = number(config, "layer_norm_epsilon", 1e-5)
    layer = Mamba2Config(
        state_size=number(config, "state_size", 128, int),
        head_dim=head_dim,
        expand=expand,
        n_groups=number(config, "n_groups", 8, int),
        conv_width=number(config, "conv_kernel", 4, int),
        bias=flag(config, "use_bias", False),
        conv_bias=flag(config, "use_conv_bias", True),
        time_step_limit=limit(config.get("time_step_limit", (0, float("inf")))),
        norm_eps=eps,
    )
    model = ModelConfig(
        vocab_size=number(config, "vocab_size", kind=int),
        d_model=width,
        layers=(layer,) * layer_count(config, "num_hidden_layers", tensors),
        d_ff=0,
        tie_embeddings=flag(config, "tie_word_embeddings", False),
        norm_eps=eps,
    )
    named = {name.replace("backbone.embedding.", "backbone.embeddings."): x for name, x in tensors.items()}
    return model, renamed(model, PARTS, named)


__all__ = ["PARTS", "TYPE", "matches", "translate"]
