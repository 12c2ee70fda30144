"""The state of memory attention over documents that were read apart, as if they had been read one after the other."""

import torch
from torch import Tensor

from ..innovation import rank
from ..place import join


def compose(states: list[dict[str, Tensor]], lengths: Tensor, block: int, exact: bool = False) -> dict[str, Tensor]:
    """States of N documents of lengths (N, B) tokens, in their order -> one state.

    The rings are those of the last tokens. The slots hold the best of what any document holds in its own, and of what
    its window still holds that was not offered to them; except what the new window will offer at its next boundary.
    `block` and `exact` are those of `memory_attention`.
    """
    slots = ("slot_k", "slot_v", "slot_score", "slot_age")
    after = {name: join([s[name] for s in states], lengths) for name in states[0] if name not in slots}
    if "slot_k" not in states[0]:
        return after
    ring = torch.arange(states[0]["score"].shape[1], 0, -1, device=lengths.device)
    waiting = _waiting(lengths.sum(0), block)
    later = lengths.sum(0)
    offered = []
    for state, length in zip(states, lengths, strict=True):
        later = later - length
        own = (ring <= _waiting(length, block)) & (ring <= length[:, None])
        age = torch.cat([state["slot_age"], ring.expand(len(length), -1)], 1) + later[:, None]
        score = torch.cat([state["slot_score"], state["score"].masked_fill(~own, -torch.inf)], 1)
        offered.append(
            (
                torch.cat([state["slot_k"], state["k"]], 1),
                torch.cat([state["slot_v"], state["v"]], 1),
                score.masked_fill(age <= waiting, -torch.inf),
                age,
            )
        )
    k, v, score, age = (torch.cat(x, 1) for x in zip(*offered, strict=True))
    order = score.detach() if exact else rank(score)
    best = order.argsort(dim=1, descending=True, stable=True)[:, : states[0]["slot_k"].shape[1]]
    score, age = score.gather(1, best), age.gather(1, best)
    held = score > -torch.inf
    rows = best[..., None, None].expand(-1, -1, *k.shape[2:])
    k, v = (x.gather(1, rows) * held[..., None, None] for x in (k, v))
    return after | dict(zip(slots, (k, v, score, age * held), strict=True))


def _waiting(length: Tensor, block: int) -> Tensor:
    """(B, 1): how many of the last tokens the eidetic memory has not been offered yet, 1 to `block`."""
    return (length - (length - 1) // block * block)[:, None]
