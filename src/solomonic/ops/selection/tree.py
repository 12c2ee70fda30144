"""All memories of a call at once: keep the best of each block, then of ever larger runs of blocks.

"The best `capacity` of two sets" is associative, so a parallel prefix over blocks (Hillis and Steele, 1986) gives the
memory after every block in log2(T / block) rounds of batched sorts. Nothing depends on the data but the indices.

Documents may begin anywhere, so the boundaries of a row of queries need not be the call's multiples of `block`. Still
no `block` successive rows hold two of them: between two boundaries of a document lie `block` rows, and a document
that begins has nothing to keep until `block` rows later. So rows [q block, (q + 1) block) see at most two memories:
set q before their one event, set q + 1 from the event on.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..sequence import Sequences

NEVER = -(1 << 31)  # before any coordinate


class Sets(NamedTuple):
    candidates: Tensor  # (B, Q + 1, capacity) int64: their numbers, -1 = none
    event: Tensor  # (B or 1, Q) int64: the row from which set q + 1 replaces set q; T where there is none
    carried: Tensor  # (B, capacity) int64: the memory after the last real row


def events(sequences: Sequences, block: int) -> tuple[Tensor, Tensor]:
    """(B or 1, Q) int64: the row of each block from which the memory is a new one, T where none, and of those that have
    one the row where the document began, NEVER where there is none."""
    T = sequences.position.shape[1]
    Q = -(-T // block)
    row = torch.arange(Q * block, device=sequences.position.device).view(Q, block)
    position = torch.nn.functional.pad(sequences.position, (0, Q * block - T)).view(-1, Q, block)
    happens = (position % block == 0) & (position > 0) & (row < sequences.last()[:, :, None])
    happening = happens.any(-1)
    event = torch.where(happening, (happens * row).sum(-1), T)
    return event, torch.where(happening, event - (happens * position).sum(-1), NEVER)


def select(score: Tensor, coordinate: Tensor, sequences: Sequences, block: int, capacity: int) -> Sets:
    """score (B, S), -inf at an empty slot; coordinate (B, S) int64. See the package's docstring."""
    B, S = score.shape
    T = sequences.position.shape[1]
    W = S - T - capacity
    event, start = events(sequences, block)
    Q, happening = event.shape[1], event < T

    added = event.clamp_max(T)[..., None] - block + torch.arange(block, device=score.device) + W + capacity
    added = added.expand(B, -1, -1)
    added_score = score.gather(1, added.flatten(1)).view_as(added).masked_fill(~happening[..., None], -torch.inf)
    slots = torch.arange(capacity, device=score.device).expand(B, 1, -1)
    best = _merge(added_score, added, capacity)
    best_score = torch.cat([score[:, None, :capacity], best[0]], 1)
    index = torch.cat([slots, best[1]], 1)
    start = torch.nn.functional.pad(start, (1, 0), value=NEVER).expand(B, -1)
    step = 1
    while step <= Q:
        older = coordinate.gather(1, index[:, :-step].flatten(1)).view_as(index[:, :-step])
        ended = older < start[:, step:, None]
        older_score = best_score[:, :-step].masked_fill(ended, -torch.inf)
        merged = _merge(
            torch.cat([older_score, best_score[:, step:]], -1),
            torch.cat([index[:, :-step], index[:, step:]], -1),
            capacity,
        )
        best_score = torch.cat([best_score[:, :step], merged[0]], 1)
        index = torch.cat([index[:, :step], merged[1]], 1)
        start = torch.cat([start[:, :step], torch.maximum(start[:, step:], start[:, :-step])], 1)
        step *= 2

    current = coordinate.gather(1, index[:, -1]) >= sequences.last() - sequences.end[:, None]
    index = index.masked_fill(best_score == -torch.inf, -1)
    return Sets(index, event, index[:, -1].masked_fill(~current, -1))


def _merge(score: Tensor, index: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """The best `capacity` of (..., n) candidates, oldest first among equals (they come in order of age)."""
    short = capacity - score.shape[-1]
    if short > 0:
        score = torch.nn.functional.pad(score, (0, short), value=-torch.inf)
        index = torch.nn.functional.pad(index, (0, short))
    score, order = score.sort(dim=-1, descending=True, stable=True)
    return score[..., :capacity], index.gather(-1, order[..., :capacity])
