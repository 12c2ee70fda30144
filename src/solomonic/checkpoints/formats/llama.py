"""Transformers of Llama's shape as Hugging Face keeps them: Llama, Mistral, Qwen2 and Qwen3.

They differ in what a config.json leaves out (`FAMILIES`), in biases of queries, keys and values (Qwen2), norms of
queries and keys (Qwen3), and in which layers look through a window. The names of transformers 4 (`rope_theta`,
`rope_scaling`) are read as well as those of 5 (`rope_parameters`).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...mixers.attention import AttentionConfig
from ...model import ModelConfig
from .base import entry, flag, layer_count, number, renamed, require

FAMILIES: dict[str, dict[str, Any]] = {  # what stands for a setting that is absent, as transformers has it
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28, "head_dim": 128},
}

PARTS = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "blocks.*.mixer_norm": "model.layers.*.input_layernorm",
    "blocks.*.mlp_norm": "model.layers.*.post_attention_layernorm",
    "blocks.*.mixer.out": "model.layers.*.self_attn.o_proj",
    **{f"blocks.*.mixer.project.{x}": f"model.layers.*.self_attn.{x}_proj" for x in "qkv"},
    **{f"blocks.*.mixer.project.{x}_norm": f"model.layers.*.self_attn.{x}_norm" for x in "qk"},
    **{f"blocks.*.mlp.{x}": f"model.layers.*.mlp.{x}_proj" for x in ("gate", "up", "down")},
}


def matches(config: dict) -> bool:
    return str(config.get("model_type")) in FAMILIES


def translate(config: dict, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """See `formats`. Frequencies of rotary positions that old checkpoints hold are left out: they are computed."""
    family = config["model_type"]
    config = FAMILIES[family] | config
    require(
        config,
        hidden_act=("silu",),
        attention_bias=(False, None),
        mlp_bias=(False, None),
        quantization_config=(None,),
        partial_rotary_factor=(1.0, None),
        is_causal=(True, None),
    )
    width, heads = number(config, "hidden_size", kind=int), number(config, "num_attention_heads", kind=int)
    head_dim = number(config, "head_dim", width // max(heads, 1), int)
    eps = number(config, "rms_norm_eps", 1e-6)
    base, scaling = _rotary(config)
    layers = tuple(
        AttentionConfig(
            n_heads=heads,
            n_kv_heads=number(config, "num_key_value_heads", heads, int),
            window=window,
            rotary_base=base,
            qk_norm=family == "qwen3",
            norm_eps=eps,
            head_dim=head_dim,
            qkv_bias=family == "qwen2",
            rotary_scaling=scaling,
        )
        for window in _windows(config, layer_count(config, "num_hidden_layers", tensors))
    )
    model = ModelConfig(
        vocab_size=number(config, "vocab_size", kind=int),
        d_model=width,
        layers=layers,
        d_ff=number(config, "intermediate_size", kind=int),
        tie_embeddings=flag(config, "tie_word_embeddings", False),
        norm_eps=eps,
    )
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    return model, renamed(model, PARTS, kept)


def _windows(config: dict, layers: int) -> list[int | None]:
    """The window of each layer, None for all of the document."""
    family = config["model_type"]
    mixed = family in ("qwen2", "qwen3")
    slides = flag(config, "use_sliding_window", False) if mixed else family == "mistral"
    slides = slides and config.get("sliding_window") is not None
    known = {"full_attention": None}
    first = layers
    if slides:
        known["sliding_attention"] = number(config, "sliding_window", kind=int)
        first = number(config, "max_window_layers", kind=int) if mixed else 0
    usual = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    types = usual if config.get("layer_types") is None else config["layer_types"]
    fits = isinstance(types, list) and len(types) == layers and all(x in [*known] for x in types)
    if not fits or not (mixed or types == usual):
        raise ValueError(
            f"config.json: layer_types = {types!r} is not supported here, only {layers} x "
            f"{' or '.join(known if mixed else {*usual})} is, as {family}'s windows are set"
        )
    return [known[x] for x in types]


def _rotary(config: dict) -> tuple[float, tuple[float, float, float, float] | None]:
    """Base and scaling (`ops.rotary.Scaling`) of rotary positions."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = entry(config, name)
    base = number(rope, "rope_theta", number(config, "rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    keys = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
    require(rope, f"{name}.", partial_rotary_factor=(1.0, None))
    scaling = None
    if kind in ("linear", "llama3"):
        factor = number(rope, "factor")
        scaling = (factor, 0.0, 1.0, 0.0)
        keys |= {"factor", "original_max_position_embeddings"}
    if kind == "llama3":
        trained = number(config, "max_position_embeddings", 2048)
        length = number(rope | config, "original_max_position_embeddings", trained)
        scaling = (factor, number(rope, "low_freq_factor"), number(rope, "high_freq_factor"), length)
        keys |= {"low_freq_factor", "high_freq_factor"}
    if kind not in ("default", "linear", "llama3") or rope.keys() - keys:
        raise ValueError(
            f"config.json: {name} = {rope!r} is not supported here, only the types default, linear and llama3 are, "
            "the same for all layers"
        )
    return base, scaling


__all__ = ["FAMILIES", "matches", "translate"]
