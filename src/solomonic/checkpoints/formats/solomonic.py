"""Our own folders: config.json has `to_dict` of the `ModelConfig` under "model", tensors are `model.` and our names."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..._utils.plugins import absent, recorded
from ..._utils.spelling import Unknown
from ...model import ModelConfig
from .base import check_layers, renamed

TYPE = "solomonic"
PREFIX = "model."


class _Ours(dict):
    def __missing__(self, module: str) -> str:
        return PREFIX + module


def matches(config: dict) -> bool:
    return config.get("model_type") == TYPE


def translate(config: dict, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """See `formats`."""
    if not isinstance(config.get("model"), dict):
        raise ValueError("config.json: expected model, the settings of the model; it is not there")
    layers = config["model"].get("layers")
    check_layers("model.layers", len(layers) if isinstance(layers, list) else 0, tensors)
    model = model_of(config)
    return model, renamed(model, _Ours(), tensors)


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """Of "model" in a config.json. ValueError for what cannot be, and for a plug-in that is not loaded, which it names."""
    try:
        return ModelConfig.from_dict(config["model"])
    except Unknown:
        names = absent(config)
        if not names:
            raise
        raise ValueError(
            f"config.json: expected the plug-in {names} to be loaded, which the model's layers are of; name it with --plugin, or "
            "import it before"
        ) from None


def describe(model: ModelConfig, end: int | None = None, ends: Collection[int] = ()) -> dict[str, Any]:
    """The config.json of a model, for `matches` and for Hugging Face's tools.

    `end` is the token that ends a document, and so comes before the next; `ends`, it among them, end a text.
    """
    others = sorted(one for one in ends if one != end)
    return {
        "model_type": TYPE,
        "architectures": ["SolomonicForCausalLM"],
        "model": model.to_dict(),
        "vocab_size": model.vocab_size,
        "hidden_size": model.d_model,
        "num_hidden_layers": len(model.layers),
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": end,
        "eos_token_id": [end, *others] if others else end,
        "pad_token_id": end,
    } | recorded(model.to_dict())


__all__ = ["PREFIX", "TYPE", "describe", "matches", "model_of", "translate"]
