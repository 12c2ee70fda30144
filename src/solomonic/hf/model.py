"""`LanguageModel` as models of transformers: without a head, and as a causal language model."""

from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

from ..model import LanguageModel
from .backbone import OF_THE_LOSS, Backbone
from .cache import SolomonicCache
from .config import SolomonicConfig


class SolomonicPreTrainedModel(PreTrainedModel):
    """Any model of this library, under the names and conventions of transformers; weights are `model.` and ours.

    What holds of `LanguageModel` holds here: padding on any side, packed documents and calls that pass the cache on
    change no output.
    """

    config: SolomonicConfig
    config_class = SolomonicConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _input_embed_layer = "embedding"
    _no_split_modules = ["SolomonicBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected: list[str] | None = [r"^model\.head\.", r"^score\."]  # heads of the others
    drawn: ClassVar[tuple[str, ...]] = ()
    """Prefixes of tensors that a checkpoint may lack: transformers draws them, and warns that they are to be trained."""
    of_the_loss: ClassVar[tuple[str, ...]] = ()
    """Those of `OF_THE_LOSS` that the loss of this model takes; it refuses the others."""

    def __init__(self, config: SolomonicConfig):
        super().__init__(config)
        self.model = Backbone(config.language_model())
        self._finish()

    def _finish(self) -> None:
        """Replace the head for tokens by the head of this model."""
        self.model.register_module("head", None)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, state_dict=None, **kwargs
    ):
        """As in transformers, which draws what a checkpoint lacks; here a tensor too few or too many is a ValueError.

        Not so with `output_loading_info`, which returns them, or with a `state_dict`. Only safetensors are read, unless
        `use_safetensors` is False; ValueError for a file that cannot be read.
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
                if odd := [key for key in info[kind] if not key.startswith(cls.drawn)]:
                    raise ValueError(
                        f"{name}: expected the tensors that config.json needs and no others; {min(odd)} {says} "
                        f"({len(odd)} such in all)"
                    )
        return (model, info) if output_loading_info else model

    def read(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: SolomonicCache | None,
        inputs_embeds: Tensor | None,
        use_cache: bool | None,
        output_hidden_states: bool | None,
        seq_idx: Tensor | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The outputs of the backbone; the configuration has the settings that the call leaves at None."""
        for key in OF_THE_LOSS:
            if kwargs.get(key) is not None and key not in self.of_the_loss:
                raise ValueError(f"{key}: expected None, as {type(self).__name__}'s loss does without it; leave it out")
        if use_cache is None:
            use_cache = past_key_values is not None or (self.config.use_cache and not self.training)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if kwargs.get("output_attentions") is None:
            kwargs["output_attentions"] = self.config.output_attentions
        return self.model(
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

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """As in transformers; the configurations follow."""
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.model.config = self.config.language_model()
        return embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initial values for tensors that a checkpoint lacks: those of a new model of the configuration."""
        if isinstance(module, LanguageModel):
            ours = dict(module.named_parameters(remove_duplicate=False))
            if not all(getattr(parameter, "_is_hf_initialized", False) for parameter in ours.values()):
                values = dict(LanguageModel(module.config).named_parameters(remove_duplicate=False))
                for name, parameter in ours.items():
                    initialization.copy_(parameter, values[name])
        elif isinstance(module, nn.Embedding) and module is not self.model.embedding:  # added by a resize
            initialization.normal_(module.weight, std=module.embedding_dim**-0.5)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """As in transformers, which for code outside it would skip modules without parameters of their own."""
        super()._initialize_weights(module)


class SolomonicModel(SolomonicPreTrainedModel):
    """The model without a head, `AutoModel`'s: its outputs are (B, T, d_model)."""

    @can_return_tuple
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
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """last_hidden_state (B, T, d_model); arguments as those of `SolomonicForCausalLM`."""
        inputs = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        return self.read(*inputs, use_cache, output_hidden_states, seq_idx, **kwargs)


class SolomonicForCausalLM(SolomonicPreTrainedModel, GenerationMixin):
    """A language model."""

    accepts_loss_kwargs, of_the_loss = True, OF_THE_LOSS
    _is_stateful = True  # no token can be taken back, as assisted generation would
    _keys_to_ignore_on_load_unexpected = None
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}

    def _finish(self) -> None:
        self.post_init()

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
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids (B, T), or inputs_embeds (B, T, d_model) as the embedding gives them; logits (B, T, V).

        attention_mask (B, T), or (B, columns read before + T): 0 at padding, wherever it is. Logits at padding are those
        of the real token before it, so that `generate` goes on rightly after padding on the right.
        position_ids (B or 1, T): one that does not go on from that of the token before begins a document, as does the
        first of a call with a cache where it is 0 or no larger than the last; nothing else of them is used. seq_idx
        (B, T) numbers the documents, non-decreasing. cu_seq_lens_q (documents + 1,): 0 and where each document of all
        rows, one after the other, ends; not with a cache. Each of these begins documents.
        labels (B, T): the mean cross-entropy of each token given those before it, -100 where it does not count.
        use_cache None: as the configuration says, but not in training. ValueError for anything else, or unknown.
        """
        inputs = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        out = self.read(*inputs, use_cache, output_hidden_states, seq_idx, **kwargs)
        logits = self.model.head(slice_logits_to_keep(out.last_hidden_state, logits_to_keep))
        loss, details = None, {key: kwargs[key] for key in OF_THE_LOSS if kwargs.get(key) is not None}
        if labels is not None or "shift_labels" in details:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **details)
        return CausalLMOutputWithPast(loss, logits, out.past_key_values, out.hidden_states)

    def get_output_embeddings(self) -> nn.Linear:
        return self.model.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.model.head = new_embeddings

    def _prepare_cache_for_generation(self, generation_config, model_kwargs: dict, *args) -> None:
        """Every cache of `generate` is ours. ValueError for another one, and for an empty prompt."""
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(f"cache_implementation: expected None, our state is the cache, got {kind!r}; leave it out")
        mask, cache = model_kwargs.get("attention_mask"), model_kwargs.get("past_key_values")
        if mask is not None and mask.dim() == 2 and cache is None and not mask.any(1).all():
            raise ValueError(
                "attention_mask: expected at least one token in each row, got a row of padding; give a prompt"
            )
        if generation_config.use_cache is not False and cache is None:
            model_kwargs["past_key_values"] = SolomonicCache()


__all__ = ["SolomonicForCausalLM", "SolomonicModel", "SolomonicPreTrainedModel"]
