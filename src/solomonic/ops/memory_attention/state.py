"""The state of memory attention: the names of what it holds, its shapes, and what can be read from it.

    key                  shape                         holds
    k, v                 (B, window, G, D)             the last keys and values, keys before rotation
    k_fading, v_fading   (B, window + span, G, D)      the same of the fading memory's outputs
    score                (B, window) float32           their admission scores
    slot_k, slot_v       (B, capacity, G, D)           keys and values of the tokens in the slots
    slot_score           (B, capacity) float32         their admission scores, -inf in an empty slot
    slot_age             (B, capacity) int64           rows since the token's own, 0 in an empty slot
    lost, slot_lost      (B, window), (B, capacity)    what the scores have lost by the layer's clock
    time                 (B,)                          the clock of the document so far

k and v are there with a window, k_fading and v_fading with a span, score and slot_* with a capacity, lost, slot_lost and
time where scores decay. Sessions and checkpoints store these names. Only this package knows them; others call its
functions.
"""

import torch
from torch import Tensor
from torch.types import Device

from ..innovation import priority
from ..precision import widest

AttentionState = dict[str, Tensor]

RING = ("k", "v")
SLOTS = ("slot_k", "slot_v", "slot_score", "slot_age")


def init_state(
    batch: int,
    heads: int,
    dim: int,
    *,
    window: int,
    span: int,
    capacity: int,
    decays: bool = False,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> AttentionState:
    """The state before the first token: rings of `window` and `window + span` rows of zeros, `capacity` empty slots.

    `decays`: whether scores lose weight by the layer's clock.
    """

    def zeros(*shape: int, dtype: torch.dtype | None = dtype) -> Tensor:
        return torch.zeros(batch, *shape, device=device, dtype=dtype)

    state = {"k": zeros(window, heads, dim), "v": zeros(window, heads, dim)} if window else {}
    if span:
        state |= {"k_fading": zeros(window + span, heads, dim), "v_fading": zeros(window + span, heads, dim)}
    if capacity:
        state |= {
            "score": zeros(window, dtype=torch.float32),
            "slot_k": zeros(capacity, heads, dim),
            "slot_v": zeros(capacity, heads, dim),
            "slot_score": zeros(capacity, dtype=torch.float32) - torch.inf,
            "slot_age": zeros(capacity, dtype=torch.int64),
        }
        if decays:
            wide = widest(torch.device(device or "cpu"))
            state |= {"lost": zeros(window, dtype=wide), "slot_lost": zeros(capacity, dtype=wide)}
            state |= {"time": zeros(dtype=wide)}
    return state


def has_ring(state: AttentionState) -> bool:
    return "k" in state


def has_slots(state: AttentionState) -> bool:
    return "slot_k" in state


def window_and_capacity(state: AttentionState) -> tuple[int, int]:
    """Rows of the ring, and slots, of a state that has both."""
    return state["k"].shape[1], state["slot_k"].shape[1]


def ring(state: AttentionState) -> tuple[Tensor, Tensor, Tensor]:
    """Of the last `window` tokens: keys and values (B, window, G, D), admission scores (B, window)."""
    return state["k"], state["v"], state["score"]


def ring_scores(state: AttentionState) -> Tensor:
    """(B, window) float32: admission scores of the last tokens, the newest last."""
    return state["score"].float()


def kept_positions(state: AttentionState, position: Tensor) -> Tensor:
    """(B, capacity): positions of the tokens in the slots after `position` (B,) tokens, -1 for an empty slot."""
    return (position[:, None] - state["slot_age"]).masked_fill(_empty(state), -1)


def memory_positions(state: AttentionState, position: Tensor, block: int, exact: bool = False) -> Tensor:
    """(B, capacity): positions of M(i) for the row i that follows `position` (B,) tokens, the best first, -1 for none.

    At a multiple of `block` they are chosen anew, from the slots and the last `block` tokens. `block` and `exact` are those of `memory_attention`.
    """
    past = position[:, None] - torch.arange(block, 0, -1, device=position.device)
    offered = (past >= 0) & (position % block == 0)[:, None]
    score = torch.cat([state["slot_score"], ring_scores(state)[:, -block:]], 1)
    lost = torch.cat([state["slot_lost"], state["lost"][:, -block:]], 1) if "lost" in state else None
    absent = torch.cat([_empty(state), ~offered], 1)
    best, order = priority(score, lost, exact).masked_fill(absent, -torch.inf).sort(dim=1, descending=True, stable=True)
    where = torch.cat([position[:, None] - state["slot_age"], past], 1).gather(1, order)
    return where.masked_fill(best == -torch.inf, -1)[:, : state["slot_k"].shape[1]]


def with_ring_of(before: AttentionState, after: AttentionState) -> AttentionState:
    """`after`, with the keys and values of the window as they were `before`."""
    return after | {name: before[name] for name in RING}


def with_slots_of(before: AttentionState, after: AttentionState, passed: Tensor) -> AttentionState:
    """`after`, with the tokens that the slots held `before`, `passed` (B,) tokens ago: they and what their scores lose grow older."""
    slots, empty = {name: before[name] for name in SLOTS}, _empty(before)
    slots["slot_age"] = (before["slot_age"] + passed[:, None]).masked_fill(empty, 0)
    if "slot_lost" in before:
        lost = (after["time"] - before["time"])[:, None]
        slots["slot_lost"] = (before["slot_lost"] + lost).masked_fill(empty, 0)
    return after | slots


def with_empty_slots(state: AttentionState) -> AttentionState:
    """The state of a document whose window has been read and whose slots hold nothing."""
    names = [name for name in state if name.startswith("slot_")]
    return state | {name: torch.full_like(state[name], -torch.inf if name == "slot_score" else 0) for name in names}


def _empty(state: AttentionState) -> Tensor:
    return state["slot_score"] == -torch.inf


__all__ = [
    "AttentionState",
    "has_ring",
    "has_slots",
    "init_state",
    "kept_positions",
    "memory_positions",
    "ring",
    "ring_scores",
    "window_and_capacity",
    "with_empty_slots",
    "with_ring_of",
    "with_slots_of",
]
