"""`LanguageModel` up to its head, with the arguments of transformers."""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import TransformersKwargs

from .._utils.spelling import unknown
from ..model import Block, LanguageModel
from .cache import SolomonicCache
from .packing import KEYS, Ends, segments

OF_THE_LOSS = ("num_items_in_batch", "shift_labels", "ignore_index")
IDLE = ("return_dict", "tokenizer")  # the second is `generate`'s own, which it passes on when a server calls it
NEVER, ALWAYS = ("output_attentions", "output_router_logits"), ("is_causal", "return_dict")


class SolomonicBlock(GradientCheckpointingLayer, Block):
    """A block that transformers can checkpoint."""


class Backbone(LanguageModel):
    """The model inside every model of `hf.model`; arguments are those of `SolomonicForCausalLM.forward`."""

    Block = SolomonicBlock

    def forward(  # type: ignore[override]  # the arguments are those of transformers
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: SolomonicCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """last_hidden_state (B, T, d_model) is the input of the head."""
        _refuse(kwargs)
        inputs = inputs_embeds if input_ids is None else input_ids
        if inputs is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("expected input_ids or inputs_embeds, one of them, got both or none")
        columns = inputs.shape[:2]
        if len(columns) < 2 or 0 in columns:
            raise ValueError(f"expected (B, T) tokens, at least one of them, got {tuple(columns)}; give a prompt")
        cache = past_key_values
        if cache is not None and not isinstance(cache, SolomonicCache):
            raise ValueError(
                f"past_key_values: expected a SolomonicCache, got {type(cache).__name__}; pass solomonic.hf.SolomonicCache()"
            )
        if use_cache and cache is None:
            cache = SolomonicCache()
        state, before, last = (None, 0, {}) if cache is None else (cache.state, cache.columns, cache.documents)
        mask = _mask(attention_mask, columns, before)
        ends = Ends(**{key: kwargs.get(key) for key in KEYS})
        documents, last = segments(columns, mask, state, last, position_ids, seq_idx, ends)
        x = self.embed(inputs.long(), mask) if inputs_embeds is None else inputs
        trace: list[Tensor] | None = [] if output_hidden_states else None
        x, state = self.hidden(x, state, mask=mask, segments=documents, trace=trace)
        if cache is not None and cache.last is not None and mask is not None:
            x = torch.where((mask.cumsum(1) == 0)[..., None], cache.last[:, None], x)
        if use_cache:
            assert cache is not None
            cache.store(state, x[:, -1].clone(), columns[1], last)
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=cache if use_cache else None,
            hidden_states=None if trace is None else (*trace, x),
        )


def _refuse(kwargs: dict) -> None:
    known = {*TransformersKwargs.__optional_keys__, *OF_THE_LOSS, *IDLE}
    for key, value in kwargs.items():
        if key not in known and value is not None:
            raise unknown("argument", key, known)
        if (key in NEVER and value) or (key in ALWAYS and value is False):
            raise ValueError(f"{key}: expected {key in ALWAYS}, got {value}; there is nothing else here")


def _mask(attention_mask: Tensor | None, columns: torch.Size, before: int) -> Tensor | None:
    """(B, T) bool of the new columns, None where nothing is padding."""
    if attention_mask is None:
        return None
    (B, T), shape = columns, tuple(attention_mask.shape)
    if shape not in ((B, T), (B, before + T)):
        raise ValueError(
            f"attention_mask: expected {(B, T)} or {(B, before + T)}, got {shape}; 0 at padding, 1 elsewhere"
        )
    columns_mask = attention_mask[:, -T:]
    mask = columns_mask.bool()
    if torch.compiler.is_compiling():
        return mask
    if not torch.equal(mask.to(columns_mask.dtype), columns_mask):
        raise ValueError(
            "attention_mask: expected 0 at padding and 1 elsewhere, got others; pass seq_idx for documents"
        )
    return None if mask.all() else mask


__all__ = ["OF_THE_LOSS", "Backbone", "SolomonicBlock"]
