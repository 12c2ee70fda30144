"""The state of memory attention over documents that were read apart, as if they had been read one after the other."""

import torch
from torch import Tensor

from ..innovation import standing
from ..sequence import join
from .state import AttentionState


def compose(states: list[AttentionState], lengths: Tensor, block: int, exact: bool = False) -> AttentionState:
    """States of N documents of lengths (N, B) tokens, in their order -> one state.

    The rings are those of the last tokens. The slots hold the best of what any document holds in its own, and of what
    its window still holds that was not offered to them; except what the new window will offer at its next boundary.
    Scores lose what the clocks of the later documents add. `block` and `exact` are those of `memory_attention`.
    """
    decays = "lost" in states[0]
    if decays:
        end = torch.stack([s["time"] for s in states])
        later = end.sum(0) - end.cumsum(0)  # of the documents after each
        ring = torch.arange(states[0]["lost"].shape[1], 0, -1, device=lengths.device)
        states = [
            s | {"lost": s["lost"] + t * (ring <= n[:, None]), "slot_lost": s["slot_lost"] + t}
            for s, t, n in zip(states, later[..., None], lengths, strict=True)
        ]
    slots = [name for name in states[0] if name.startswith("slot_")]
    after = {name: join([s[name] for s in states], lengths) for name in states[0] if name not in (*slots, "time")}
    if not slots:
        return after
    ring = torch.arange(states[0]["score"].shape[1], 0, -1, device=lengths.device)
    waiting = _waiting(lengths.sum(0), block)
    behind = lengths.sum(0)
    offered = []
    for state, length in zip(states, lengths, strict=True):
        behind = behind - length
        own = (ring <= _waiting(length, block)) & (ring <= length[:, None])
        age = torch.cat([state["slot_age"], ring.expand(len(length), -1)], 1) + behind[:, None]
        score = torch.cat([state["slot_score"], state["score"].masked_fill(~own, -torch.inf)], 1)
        candidates = {
            "slot_k": torch.cat([state["slot_k"], state["k"]], 1),
            "slot_v": torch.cat([state["slot_v"], state["v"]], 1),
            "slot_score": score.masked_fill(age <= waiting, -torch.inf),
            "slot_age": age,
        }
        if decays:
            candidates["slot_lost"] = torch.cat([state["slot_lost"], state["lost"]], 1)
        offered.append(candidates)
    offered = {name: torch.cat([x[name] for x in offered], 1) for name in offered[0]}
    order = standing(offered["slot_score"], offered.get("slot_lost"), exact)
    best = order.argsort(dim=1, descending=True, stable=True)[:, : states[0]["slot_k"].shape[1]]
    held = offered["slot_score"].gather(1, best) > -torch.inf
    for name, x in offered.items():
        shape = *best.shape, *[1] * (x.dim() - 2)
        x = x.gather(1, best.view(shape).expand(-1, -1, *x.shape[2:]))
        after[name] = x.where(held.view(shape), -torch.inf if name == "slot_score" else 0)
    return after | ({"time": end.sum(0)} if decays else {})


def _waiting(length: Tensor, block: int) -> Tensor:
    """(B, 1): how many of the last tokens the eidetic memory has not been offered yet, 1 to `block`."""
    return (length - (length - 1) // block * block)[:, None]
