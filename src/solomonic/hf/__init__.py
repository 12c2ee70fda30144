"""The models for Hugging Face's tools: one wrapper for all mixers, known to the Auto classes once this is imported.

`AutoModelForCausalLM.from_pretrained(folder)` reads what `solomonic.checkpoints.folder` writes, and the other way round;
`AutoModel` and the classifiers read the same folders, without the head.
"""

import transformers

from .cache import SolomonicCache
from .classify import SolomonicForSequenceClassification, SolomonicForTokenClassification
from .config import SolomonicConfig
from .model import SolomonicForCausalLM, SolomonicModel

transformers.AutoConfig.register(SolomonicConfig.model_type, SolomonicConfig, exist_ok=True)
for auto, model in (
    (transformers.AutoModel, SolomonicModel),
    (transformers.AutoModelForCausalLM, SolomonicForCausalLM),
    (transformers.AutoModelForSequenceClassification, SolomonicForSequenceClassification),
    (transformers.AutoModelForTokenClassification, SolomonicForTokenClassification),
):
    auto.register(SolomonicConfig, model, exist_ok=True)

__all__ = [
    "SolomonicCache",
    "SolomonicConfig",
    "SolomonicForCausalLM",
    "SolomonicForSequenceClassification",
    "SolomonicForTokenClassification",
    "SolomonicModel",
]
