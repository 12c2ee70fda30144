"""Classifiers on top of a model: of whole texts, reward models among them, and of tokens. C labels."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.modeling_outputs import SequenceClassifierOutputWithPast, TokenClassifierOutput
from transformers.utils.generic import can_return_tuple

from .cache import SolomonicCache
from .model import SolomonicPreTrainedModel


class Classifier(SolomonicPreTrainedModel):
    """`score` (C, d_model), drawn anew where a checkpoint has none."""

    drawn = ("score.",)
    _keys_to_ignore_on_load_unexpected = [r"^model\.head\."]

    def _finish(self) -> None:
        self.num_labels = self.config.num_labels
        self.score = nn.Linear(self.config.hidden_size, self.num_labels, bias=False)
        super()._finish()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.score:
            initialization.normal_(module.weight, std=module.in_features**-0.5)


class SolomonicForSequenceClassification(Classifier):
    """A label, or numbers, for each text: by its last token."""

    accepts_loss_kwargs = False  # a mean over the texts of a call

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
        output_hidden_states: bool | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:
        """logits (B, C); arguments as those of `SolomonicForCausalLM`, labels (B,) or (B, C) as `problem_type` says.

        The last token of a row is the last that attention_mask has; without one, the last that is no padding.
        """
        inputs = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        out = self.read(*inputs, use_cache, output_hidden_states, seq_idx, **kwargs)
        x, padding = out.last_hidden_state, self.config.pad_token_id
        if attention_mask is None and input_ids is not None and padding is not None:
            at = torch.arange(x.shape[1], device=x.device) * (input_ids != padding)
            x = x[torch.arange(x.shape[0], device=x.device), at.argmax(1)]
        else:
            x = x[:, -1]  # at padding it is that of the real token before
        logits, loss = self.score(x), None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, logits=None, config=self.config)
        return SequenceClassifierOutputWithPast(loss, logits, out.past_key_values, out.hidden_states)


class SolomonicForTokenClassification(Classifier):
    """A label for each token, given those before it."""

    accepts_loss_kwargs, of_the_loss = True, ("num_items_in_batch", "ignore_index")

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
        output_hidden_states: bool | None = None,
        seq_idx: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """logits (B, T, C); arguments as those of `SolomonicForCausalLM`, labels (B, T), -100 where none counts."""
        inputs = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        out = self.read(*inputs, use_cache, output_hidden_states, seq_idx, **kwargs)
        logits, loss = self.score(out.last_hidden_state), None
        if labels is not None:
            details = {key: kwargs[key] for key in self.of_the_loss if kwargs.get(key) is not None}
            loss = self.loss_function(logits, labels, self.config, **details)
        return TokenClassifierOutput(loss, logits, out.hidden_states)


__all__ = ["SolomonicForSequenceClassification", "SolomonicForTokenClassification"]
