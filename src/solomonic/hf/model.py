"""`LanguageModel` as a causal language model of transformers."""

from typing import Unpack

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..mixers import State
from ..model import Block, LanguageModel
from ..spelling import unknown
from .cache import SolomonicCache
from .config import SolomonicConfig

OF_THE_LOSS = ("num_items_in_batch", "shift_labels", "ignore_index")
IDLE = ("return_dict", "tokenizer")  # the second is `generate`'s own, which it passes on when a server calls it
NEVER, ALWAYS = ("output_attentions", "output_router_logits"), ("is_causal", "return_dict")


class SolomonicBlock(GradientCheckpointingLayer, Block):
    """A block that transformers can checkpoint."""


class SolomonicModel(LanguageModel):
    """`LanguageModel` up to its head, with the arguments of transformers; see `SolomonicForCausalLM.forward`."""

    Block = SolomonicBlock

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: SolomonicCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """last_hidden_state (B, T, d_model) is what the head takes."""
        _refuse(kwargs)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected input_ids or inputs_embeds, one of them, got both or none")
        columns = (inputs_embeds if input_ids is None else input_ids).shape[:2]
        cache = past_key_values
        if cache is not None and not isinstance(cache, SolomonicCache):
            raise ValueError(
                f"past_key_values: expected a SolomonicCache, got {type(cache).__name__}; pass solomonic.hf.SolomonicCache()"
            )
        if use_cache and cache is None:
            cache = SolomonicCache()
        state = cache.state if cache is not None else None
        mask = _mask(attention_mask, columns, cache.columns if cache is not None else 0)
        segments = _given(seq_idx, columns) if seq_idx is not None else _segments(position_ids, columns, mask, state)
        x = self.embed(input_ids.long(), mask) if inputs_embeds is None else inputs_embeds
        trace = [] if output_hidden_states else None
        x, state = self.hidden(x, state, mask=mask, segments=segments, trace=trace)
        if cache is not None and cache.last is not None and mask is not None:
            x = torch.where((mask.cumsum(1) == 0)[..., None], cache.last[:, None], x)
        if use_cache:
            cache.store(state, x[:, -1].clone(), columns[1])
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            past_key_values=cache if use_cache else None,
            hidden_states=None if trace is None else (*trace, x),
        )


class SolomonicForCausalLM(PreTrainedModel, GenerationMixin):
    """Any model of this library, under the names and conventions of transformers; weights are `model.` and ours.

    What holds of `LanguageModel` holds here: padding on any side, packed documents and calls that pass the cache on
    change no logits.
    """

    config: SolomonicConfig
    config_class = SolomonicConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _is_stateful = True  # no token can be taken back, as assisted generation would
    _input_embed_layer = "embedding"
    _no_split_modules = ["SolomonicBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}

    def __init__(self, config: SolomonicConfig):
        super().__init__(config)
        self.model = SolomonicModel(config.language_model())
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, state_dict=None, **kwargs
    ):
        """As in transformers, which draws what a checkpoint lacks; here a tensor too few or too many is a ValueError.

        It is not with `output_loading_info`, which tells the caller, nor where a `state_dict` is given. Only safetensors
        are read, unless `use_safetensors` says otherwise; ValueError for one that cannot be read.
        """
        name = pretrained_model_name_or_path
        kwargs = {"use_safetensors": True} | kwargs
        try:
            model, info = super().from_pretrained(
                name, *model_args, output_loading_info=True, state_dict=state_dict, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(f"{name}: expected safetensors files, got one that cannot be read ({error})") from None
        if state_dict is None and not output_loading_info:
            for kind, says in (("missing_keys", "is not there"), ("unexpected_keys", "has no place in the model")):
                if info[kind]:
                    raise ValueError(
                        f"{name}: expected the tensors that config.json needs and no others; {min(info[kind])} {says} "
                        f"({len(info[kind])} such in all)"
                    )
        return (model, info) if output_loading_info else model

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: SolomonicCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_hidden_states: bool | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """input_ids (B, T), or inputs_embeds (B, T, d_model) as the embedding gives them; logits (B, T, V).

        attention_mask (B, T), or (B, columns read before + T): 0 at padding, wherever it is. Logits at padding are those
        of the real token before it, so that `generate` goes on rightly after padding on the right.
        position_ids (B or 1, T): a 0 begins a document, nothing else of them is used. seq_idx (B, T) numbers the
        documents instead, non-decreasing.
        labels (B, T): the mean cross-entropy of each token given those before it, -100 where it does not count.
        use_cache None: as the configuration says, but not in training. ValueError for anything else, or unknown.
        """
        if use_cache is None:
            use_cache = past_key_values is not None or (self.config.use_cache and not self.training)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        out = self.model(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            use_cache,
            output_hidden_states,
            seq_idx,
            **kwargs,
        )
        logits = self.model.head(slice_logits_to_keep(out.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            details = {key: kwargs[key] for key in OF_THE_LOSS if kwargs.get(key) is not None}
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **details)
        return CausalLMOutputWithPast(loss, logits, out.past_key_values, out.hidden_states)

    def get_output_embeddings(self) -> nn.Linear:
        return self.model.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.model.head = new_embeddings

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """As in transformers; the configurations follow."""
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.model.config = self.config.language_model()
        return embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Our initial values for what a checkpoint does not have: those of another model of the configuration."""
        if isinstance(module, LanguageModel):
            parameters = list(module.parameters())
            if not all(getattr(parameter, "_is_hf_initialized", False) for parameter in parameters):
                for parameter, value in zip(parameters, LanguageModel(module.config).parameters(), strict=True):
                    initialization.copy_(parameter, value)
        elif isinstance(module, nn.Embedding) and module is not self.model.embedding:  # added by a resize
            initialization.normal_(module.weight, std=module.embedding_dim**-0.5)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """For code outside transformers it would skip modules without parameters of their own: those above."""
        super()._initialize_weights(module)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs: dict, *args) -> None:
        """Every cache of `generate` is ours. ValueError for one that it is asked to make otherwise."""
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(f"cache_implementation: expected None, our state is the cache, got {kind!r}; leave it out")
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = SolomonicCache()


def _refuse(kwargs: dict) -> None:
    known = {*TransformersKwargs.__optional_keys__, *OF_THE_LOSS, *IDLE}
    for key, value in kwargs.items():
        if key not in known:
            raise unknown("argument", key, known)
        if (key in NEVER and value) or (key in ALWAYS and value is False):
            raise ValueError(f"{key}: expected {key in ALWAYS}, got {value}; there is nothing else here")


def _given(ids: Tensor, columns: torch.Size) -> Tensor:
    return ids.long().expand(columns)


def _mask(attention_mask: Tensor | None, columns: torch.Size, before: int) -> Tensor | None:
    """(B, T) bool of the new columns, None where nothing is padding."""
    if attention_mask is None:
        return None
    (B, T), shape = columns, tuple(attention_mask.shape)
    if shape not in ((B, T), (B, before + T)):
        raise ValueError(
            f"attention_mask: expected {(B, T)} or {(B, before + T)}, got {shape}; 0 at padding, 1 elsewhere"
        )
    mask = attention_mask[:, -T:].bool()
    return None if not torch.compiler.is_compiling() and mask.all() else mask


def _segments(
    position_ids: Tensor | None, columns: torch.Size, mask: Tensor | None, state: State | None
) -> Tensor | None:
    """(B, T) numbers of documents, each begun by a position 0; None where the call is of one document a row."""
    if position_ids is None:
        return None
    begins = _given(position_ids, columns) == 0
    real = torch.ones_like(begins) if mask is None else mask
    number = (begins & real).cumsum(1)
    if state is None:
        number = number - number.gather(1, real.long().argmax(1, keepdim=True))
    if not torch.compiler.is_compiling() and not (number * real).any():
        return None
    return number if state is None else number + state["segment"][:, None]


__all__ = ["SolomonicForCausalLM"]
