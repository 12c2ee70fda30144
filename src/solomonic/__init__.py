"""Solomonic: sequence models that remember."""

from .model import LanguageModel, ModelConfig
from .presets import PRESETS, preset

__version__ = "0.1.0"
__all__ = ["PRESETS", "LanguageModel", "ModelConfig", "preset"]
