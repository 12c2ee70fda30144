"""Small models in the wrapper, and batches of unequal prompts."""

import pytest
import torch
from torch import Tensor

from solomonic import LanguageModel

from ..laws.cases import VOCABULARY, language_model

pytest.importorskip("transformers", minversion="5.23")


def wrapped(model: LanguageModel, **settings):
    """The same weights in the wrapper."""
    from solomonic.hf import SolomonicConfig, SolomonicForCausalLM

    wrapper = SolomonicForCausalLM(SolomonicConfig(model.config, **settings)).eval()
    wrapper.model.load_state_dict(model.state_dict())
    return wrapper


def wrapper_of(name: str, **settings):
    return wrapped(language_model(name=name), **settings)


def prompts(lengths: list[int], seed: int = 2) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (length,), generator=draw) for length in lengths]


def padded(rows: list[Tensor], side: str, garbage: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of unequal lengths -> tokens (B, T) and mask (B, T) int64, padded on the left, the right, or inside."""
    T = max(len(row) for row in rows)
    tokens, mask = torch.full((len(rows), T), garbage), torch.zeros(len(rows), T, dtype=torch.int64)
    for i, row in enumerate(rows):
        n = len(row)
        at = {"left": range(T - n, T), "right": range(n), "inside": [*range(n - 2), T - 2, T - 1]}[side]
        tokens[i, list(at)], mask[i, list(at)] = row, 1
    return tokens, mask
