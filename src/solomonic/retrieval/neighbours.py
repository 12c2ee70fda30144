"""A store for training: each row of a batch finds tokens of the other rows, as it will find tokens of documents later.

Gradients flow to the tokens that are found, so that keys and queries learn to match and not to match by chance. With
entries of one token, a row gets what `attach.Attached` gives it from a store that holds the rows it may see
(`tests/training/test_lookup.py`).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..ops.memory_attention.call import Stored
from ..ops.sequence import Sequences


class Neighbours:
    """`Sequences.store` of one layer: of each query and head, the `k` tokens with the largest logits among rows it may see.

    may_see: (B, B) bool, row by row. admit: whether scores count, as in the layer's eidetic memory.
    """

    def __init__(self, may_see: Tensor, k: int, admit: bool):
        self.may_see, self.k, self.admit = may_see, k, admit

    def keep(self, k: Tensor, v: Tensor, score: Tensor) -> None:
        self._kept = k, v, logsigmoid(score) if self.admit else torch.zeros_like(score)

    def recall(self, q: Tensor, sequences: Sequences) -> Stored | None:
        """As `ops.sequence.Store.recall`. Every token of a row counts, at any position: rows are documents read before."""
        (key, value, bias), (B, T, H, D) = self._kept, q.shape
        G = key.shape[2]
        indices = torch.stack([self._top_k(q[row].detach(), row) for row in range(B)]).view(B, T, H * self.k)
        indices = indices.sort(-1).values
        visible = indices >= 0
        visible[..., 1:] &= indices[..., 1:] != indices[..., :-1]  # what several heads find is attended to once
        at = indices.clamp_min(0).flatten()
        key, value = (x.reshape(B * T, G, D)[at].view(B, T, -1, G, D) for x in (key, value))
        return Stored(q, key, value, bias.flatten()[at].view(B, T, -1), visible)

    def _top_k(self, q: Tensor, row: int) -> Tensor:
        """Indices into the B T tokens of the batch (T, H, k) for the queries (T, H, D) of one row, -1 for none."""
        key, _, bias = (x.detach() for x in self._kept)
        (B, T, G, D), H = key.shape, q.shape[1]
        query = q.float().view(T, G, H // G, D).permute(1, 0, 2, 3).reshape(G, -1, D) * D**-0.5
        logit = query @ key.float().reshape(B * T, G, D).permute(1, 2, 0) + bias.flatten()
        logit = logit.masked_fill(~self.may_see[row].repeat_interleave(T), -torch.inf)
        top = logit.topk(min(self.k, B * T), -1)
        indices = torch.where(top.values > -torch.inf, top.indices, -1)
        indices = torch.nn.functional.pad(indices, (0, self.k - indices.shape[-1]), value=-1)
        return indices.view(G, T, H // G, self.k).transpose(0, 1).reshape(T, H, self.k)


__all__ = ["Neighbours"]
