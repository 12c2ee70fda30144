"""What the tasks share whose rows may hold the working before the answer (scratchpads, arXiv 2112.00114)."""

import torch
from torch import Tensor

from ._rows import RowTask


class ScratchpadTask(RowTask):
    """A task with an option `scratchpad`: whether a row holds the working, which the model then has to predict too.

    A model that writes its own working goes wrong with its first wrong token. Greedy decoding writes the row's
    working exactly if every argmax is right when the row itself is the input. So with a scratchpad a position is
    right only if all positions scored before it in its row are right too: the score is that of a model that writes
    its working by greedy decoding, and at the answer it is the share of rows that come to the right answer by the
    right working. Without a scratchpad every position counts for itself.
    """

    scratchpad: bool

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: 1 where the largest logit is the target, and with a scratchpad was so
        at every scored position before; else 0; NaN where IGNORE."""
        return self.joined(super().score(logits, targets))

    def joined(self, scores: Tensor) -> Tensor:
        if not self.scratchpad:
            return scores
        return scores.nan_to_num(1.0).cumprod(1).masked_fill(scores.isnan(), torch.nan)
