"""A store for training: each row of a batch finds tokens of the other rows, as it will find those of documents later.

Gradients flow to what is found, so that keys learn to be found and queries to tell a match from the best of chance. With
entries of one token, a row gets what `attach.Attached` gives it from a store that holds the rows it may see
(`tests/training/test_lookup.py`).
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..ops.memory_attention import Stored
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
        """See `ops.place.Store`. Every token of a row counts, wherever it stands: rows are documents read before."""
        (key, value, bias), (B, T, H, D) = self._kept, q.shape
        G = key.shape[2]
        found = torch.stack([self._best(q[row].detach(), row) for row in range(B)]).view(B, T, H * self.k)
        found = found.sort(-1).values
        visible = found >= 0
        visible[..., 1:] &= found[..., 1:] != found[..., :-1]  # what several heads find is seen once
        at = found.clamp_min(0).flatten()
        key, value = (x.reshape(B * T, G, D)[at].view(B, T, -1, G, D) for x in (key, value))
        return Stored(q, key, value, bias.flatten()[at].view(B, T, -1), visible)

    def _best(self, q: Tensor, row: int) -> Tensor:
        """Rows of the flattened batch (T, H, k) for the queries (T, H, D) of one row, -1 for none."""
        key, _, bias = (x.detach() for x in self._kept)
        (B, T, G, D), H = key.shape, q.shape[1]
        mine = q.float().view(T, G, H // G, D).permute(1, 0, 2, 3).reshape(G, -1, D) * D**-0.5
        logit = mine @ key.float().reshape(B * T, G, D).permute(1, 2, 0) + bias.flatten()
        logit = logit.masked_fill(~self.may_see[row].repeat_interleave(T), -torch.inf)
        top = logit.topk(min(self.k, B * T), -1)
        found = torch.where(top.values > -torch.inf, top.indices, -1)
        found = torch.nn.functional.pad(found, (0, self.k - found.shape[-1]), value=-1)
        return found.view(G, T, H // G, self.k).transpose(0, 1).reshape(T, H, self.k)


__all__ = ["Neighbours"]
