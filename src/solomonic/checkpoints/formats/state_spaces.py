"""Mamba-2 as its authors keep it (state-spaces/mamba): mamba2-130m, 370m, 780m, 1.3b and 2.7b.

Tensors are named as Hugging Face's but for the embeddings. The vocabulary is padded to a multiple of
`pad_vocab_size_multiple`; the logits of the padding are there, as the authors give them. `fused_add_norm`,
`residual_in_fp32` and what initialises or schedules (`IDLE`) change nothing here. Hybrids with attention or MLPs, and
Mamba-1, are refused.
"""

from collections.abc import Mapping

from torch import Tensor

from ...mixers.mamba2 import Mamba2Config
from ...model import ModelConfig
from .base import entry, flag, layer_count, limit, number, renamed, require
from .mamba2 import PARTS

IDLE = ("chunk_size", "use_mem_eff_path", "conv_init", "A_init_range", "dt_min", "dt_max", "dt_init_floor")
HONOURED = ("d_state", "d_conv", "expand", "headdim", "ngroups", "norm_before_gate", "dt_limit", "bias", "conv_bias")
FIXED = {"layer": ("Mamba2",), "D_has_hdim": (False,), "rmsnorm": (True,), "d_ssm": (None,)}


def matches(config: dict) -> bool:
    return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()


def translate(config: dict, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """See `formats`."""
    ssm = entry(config, "ssm_cfg")
    require({"layer": "Mamba1"} | ssm, "ssm_cfg.", **FIXED)
    require(config, rms_norm=(True,), d_intermediate=(0, None), attn_layer_idx=([], (), None))
    for name in ssm.keys() - {*IDLE, *HONOURED, *FIXED}:
        raise ValueError(f"config.json: ssm_cfg.{name} = {ssm[name]!r} is not a setting of Mamba-2 that is known here")
    layer = Mamba2Config(
        state_size=number(ssm, "d_state", 128, int),
        head_dim=number(ssm, "headdim", 64, int),
        expand=number(ssm, "expand", 2),
        n_groups=number(ssm, "ngroups", 1, int),
        conv_width=number(ssm, "d_conv", 4, int),
        bias=flag(ssm, "bias", False),
        conv_bias=flag(ssm, "conv_bias", True),
        time_step_limit=limit(ssm.get("dt_limit", (0, float("inf")))),
        norm_before_gate=flag(ssm, "norm_before_gate", False),
    )
    vocabulary, multiple = number(config, "vocab_size", kind=int), number(config, "pad_vocab_size_multiple", 8, int)
    model = ModelConfig(
        vocab_size=vocabulary + -vocabulary % max(multiple, 1),
        d_model=number(config, "d_model", kind=int),
        layers=(layer,) * layer_count(config, "n_layer", tensors),
        d_ff=0,
        tie_embeddings=flag(config, "tie_embeddings", True),
    )
    return model, renamed(model, PARTS | {"embedding": "backbone.embedding"}, tensors)


__all__ = ["matches", "translate"]
