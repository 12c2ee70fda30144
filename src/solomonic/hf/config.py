"""`ModelConfig` as a configuration of transformers: config.json is what `formats.solomonic.describe` writes."""

import json
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from ..checkpoints.formats.solomonic import TYPE, describe, model_of
from ..model import ModelConfig

MIRRORED = {"vocab_size": "vocab_size", "tie_word_embeddings": "tie_embeddings"}
"""Settings that transformers sets under its own name; `model` follows."""


class SolomonicConfig(PreTrainedConfig):
    """`model` is a `ModelConfig` or its `to_dict()`, and the one truth; `language_model()` gives it back.

    vocab_size, hidden_size, num_hidden_layers and tie_word_embeddings repeat what `model` says. The first and the last
    may be set, and `model` follows. ValueError for no model, an unknown setting of it, or a repetition that differs.
    """

    model_type = TYPE
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ["past_key_values"]
    auto_map: ClassVar[dict[str, str]] = {}  # TRL asks for it: folders hold no code of their own

    def __init__(self, model: ModelConfig | dict[str, Any] | None = None, use_cache: bool = True, **settings):
        if not isinstance(model, (ModelConfig, dict)):
            raise ValueError(
                f"model: expected a ModelConfig or its to_dict(), got {type(model).__name__}; make one with solomonic.preset"
            )
        of_file = {"model": model, "plugins": settings.pop("plugins", None)}
        model = model_of(of_file) if isinstance(model, dict) else model
        plain = json.loads(json.dumps(describe(model)))  # lists, as a file would give
        if "plugins" in plain:
            settings["plugins"] = plain["plugins"]
        own = {key: plain[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings")}
        for key, value in own.items():
            if settings.pop(key, value) != value:
                raise ValueError(f"{key}: expected {value}, as model says, got another value; change model instead")
        self.model = plain["model"]
        self.use_cache = use_cache
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
        super().__init__(**ids | own | settings)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("hidden_size", "num_hidden_layers") and getattr(self, key, value) != value:
            raise ValueError(
                f"{key}: expected {getattr(self, key)}, as model says, got {value}; make a new configuration"
            )
        super().__setattr__(key, value)
        if key in MIRRORED:
            self.model[MIRRORED[key]] = value

    def language_model(self) -> ModelConfig:
        return ModelConfig.from_dict(self.model)


__all__ = ["SolomonicConfig"]
