"""The models for Hugging Face's tools: one wrapper for all mixers, known to the Auto classes once this is imported.

`AutoModelForCausalLM.from_pretrained(folder)` reads what `solomonic.folder` writes, and the other way round.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from .cache import SolomonicCache
from .config import SolomonicConfig
from .model import SolomonicForCausalLM

AutoConfig.register(SolomonicConfig.model_type, SolomonicConfig, exist_ok=True)
AutoModelForCausalLM.register(SolomonicConfig, SolomonicForCausalLM, exist_ok=True)

__all__ = ["SolomonicCache", "SolomonicConfig", "SolomonicForCausalLM"]
