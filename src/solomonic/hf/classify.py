"""Classifiers on top of a model: of whole texts, reward models among them, and of tokens. C labels."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    ModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
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
    ) -> ModelOutput:
        """logits and, with labels, the loss, as the class says; arguments as those of `SolomonicForCausalLM`."""
        inputs = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        out = self.read(*inputs, use_cache, output_hidden_states, seq_idx, **kwargs)
        return self.classified(out, labels, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    def classified(self, out: BaseModelOutputWithPast, labels: Tensor | None, **given: Any) -> ModelOutput:
        """What a call returns, from what was read; `given` are its other arguments."""
        raise NotImplementedError


class SolomonicForSequenceClassification(Classifier):
    """A label, or numbers, for each text: by its last token.

    logits (B, C), labels (B,) or (B, C) as `problem_type` says. The last token of a row is the last that attention_mask
    has; without one, the last that is no padding.
    """

    accepts_loss_kwargs = False  # a mean over the texts of a call

    def classified(
        self, out: BaseModelOutputWithPast, labels: Tensor | None, **given: Any
    ) -> SequenceClassifierOutputWithPast:
        x, tokens, padding = out.last_hidden_state, given["input_ids"], self.config.pad_token_id
        if given["attention_mask"] is None and tokens is not None and padding is not None:
            at = torch.arange(x.shape[1], device=x.device) * (tokens != padding)
            x = x[torch.arange(x.shape[0], device=x.device), at.argmax(1)]
        else:
            x = x[:, -1]  # at padding it is that of the real token before
        logits, loss = self.score(x), None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, logits=None, config=self.config)
        return SequenceClassifierOutputWithPast(loss, logits, out.past_key_values, out.hidden_states)


class SolomonicForTokenClassification(Classifier):
    """A label for each token, given those before it: logits (B, T, C), labels (B, T), -100 where none counts."""

    accepts_loss_kwargs, of_the_loss = True, ("num_items_in_batch", "ignore_index")

    def classified(self, out: BaseModelOutputWithPast, labels: Tensor | None, **given: Any) -> TokenClassifierOutput:
        logits, loss = self.score(out.last_hidden_state), None
        if labels is not None:
            details = {key: given[key] for key in self.of_the_loss if given.get(key) is not None}
            loss = self.loss_function(logits, labels, self.config, **details)
        return TokenClassifierOutput(loss, logits, out.hidden_states)


__all__ = ["SolomonicForSequenceClassification", "SolomonicForTokenClassification"]
