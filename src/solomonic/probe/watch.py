"""A model at work: what its scans and its attention are given, with a memory taken away or held still.

    with watch(model, without={2: {"eidetic"}}) as seen:
        logits, state = model(tokens)

Inside the block the third layer reads its other memories alone: the softmax runs over what they show, and a fading memory
that is read directly adds nothing. The layer is then, to rounding, the layer that was built without that memory
(`tests/probe/`). Nothing of the model is changed; while
the block lasts, the functions that mixers call are wrapped, in all of the process, so one block at a time.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from torch import Tensor

from ..mixers import attention, bmojo, channel_delta, gated_deltanet, gated_kalmanet, mamba2
from ..mixers.attention import Attention
from ..mixers.bmojo import BMojo
from ..model import LanguageModel, State
from ..ops.memory_attention import BACKENDS, fastest, memory_attention

MEMORIES = ("window", "fading", "eidetic")
"""The groups of keys that a layer's softmax runs over, in the order of `ops.memory_attention`."""

ATTENTION = ((attention, "memory_attention"), (bmojo, "memory_attention"))
SCANS = {
    (mamba2, "ssd"): ("v", "k", "q", "log_decay"),
    (gated_deltanet, "gated_delta"): ("q", "k", "v", "beta", "log_decay"),
    (channel_delta, "channel_delta"): ("q", "k", "erase", "v", "log_decay"),
    (gated_kalmanet, "kalman"): ("q", "k", "v", "weight", "mix", "log_decay"),
}


@dataclass
class Scan:
    """What a fading memory of H heads was given, float32: k, q (T, H, N), v (T, H, P), log_decay (T, H) or (T, H, N).

    A delta rule writes beta (T, H) of its error at k, or, with a decay a channel, all of its error at `erase` (T, H, N);
    both are None where there is no such rule. Of the first row.
    """

    k: Tensor
    q: Tensor
    v: Tensor
    log_decay: Tensor
    beta: Tensor | None = None
    erase: Tensor | None = None

    @property
    def head_decay(self) -> Tensor:
        """(T, H): the mean over the channels of a head."""
        return self.log_decay if self.log_decay.dim() == 2 else self.log_decay.mean(-1)


@dataclass
class Seen:
    """By layer: the scans of each call, and the attention mass (B, T, H, groups) of each call, by MEMORIES."""

    scans: dict[int, list[Scan]] = field(default_factory=lambda: defaultdict(list))
    mass: dict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))


def memories(model: LanguageModel) -> dict[int, tuple[str, ...]]:
    """By layer, the memories that it reads, in the softmax or beside it: all that can be taken away. Full attention has none."""
    found = {}
    for layer, block in enumerate(model.blocks):
        config = block.mixer.config
        if isinstance(block.mixer, BMojo):
            has = (config.window, config.fading is not None, config.capacity)
            found[layer] = tuple(name for name, size in zip(MEMORIES, has, strict=True) if size)
        elif isinstance(block.mixer, Attention) and config.window is not None:
            found[layer] = ("window",)
    return found


@contextmanager
def watch(model: LanguageModel, without: Mapping[int, Collection[str]] | None = None) -> Iterator[Seen]:
    """Inside the block, what the model's memories are given, with those of `without` (by layer) taken away.

    A query that nothing is left for gets 0. ValueError for a layer or a memory that the model does not have.
    """
    without = without or {}
    there = memories(model)
    for layer, names in without.items():
        for name in names:
            if name not in there.get(layer, ()):
                has = ", ".join(f"layer {at}: {' '.join(have)}" for at, have in there.items()) or "none"
                raise ValueError(f"no memory {name!r} in layer {layer}: expected one of those there are, {has}")
    seen, current = Seen(), []

    def attend(queries, keys, values, *rest):
        """What the fastest backend makes of the kept groups' values, over their mass: of values that mark the group."""
        layer, some = current[-1], next(v for v in values if v is not None)
        backend, D = BACKENDS[fastest(some)], some.shape[-1]
        kept = [i >= len(MEMORIES) or MEMORIES[i] not in without.get(layer, ()) for i in range(len(values))]
        masses = []
        for first in range(0, len(values), D):
            marks = tuple(None if v is None else _mark(v, i - first) for i, v in enumerate(values))
            masses.append(backend(queries, keys, marks, *rest)[0])
        mass = torch.cat(masses, -1)[..., : len(values)]
        seen.mass[layer].append(mass.detach())
        shown = tuple(v if v is None or keep else torch.zeros_like(v) for v, keep in zip(values, kept, strict=True))
        y, carried = backend(queries, keys, shown, *rest)
        if all(kept):
            return y, carried
        left = mass[..., kept].sum(-1, keepdim=True)
        return torch.where(left > 0, y / left.clamp_min(1e-30), 0), carried

    def attention_probe(*call, **settings):
        return memory_attention(*call, **settings | {"backend": "probe"})

    def scan_probe(scan, names):
        def recorded(*call, **settings):
            given = dict(zip(names, call))
            row = {name: given[name][0].detach().float() for name in ("k", "q", "v", "log_decay")}
            heads = row["v"].shape[1]
            row |= {name: row[name].repeat_interleave(heads // row[name].shape[1], 1) for name in ("k", "q")}
            weight = given.get("weight")
            if weight is not None:  # each key is written with its weight
                row["k"] = row["k"] * weight[0].detach().float()[..., None]
            step = settings.get("step")
            if step is not None:
                row["v"] = row["v"] * step[0].detach().float()[..., None]
            rule = {name: given[name][0].detach().float() for name in ("beta", "erase") if name in given}
            seen.scans[current[-1]].append(Scan(**row, **rule))
            return scan(*call, **settings)

        return recorded

    def left_layer(*_) -> None:
        current.pop()

    with ExitStack() as stack:
        stack.enter_context(patch.dict(BACKENDS, probe=attend))
        for module, name in ATTENTION:
            stack.enter_context(patch.object(module, name, attention_probe))
        for (module, name), names in SCANS.items():
            stack.enter_context(patch.object(module, name, scan_probe(getattr(module, name), names)))
        for layer, block in enumerate(model.blocks):
            direct = getattr(block.mixer, "direct", None)
            if direct is not None and "fading" in without.get(layer, ()):
                stack.callback(direct.register_forward_hook(lambda *call: torch.zeros_like(call[-1])).remove)
            for hook in (
                block.mixer.register_forward_pre_hook(lambda *_, layer=layer: current.append(layer)),
                block.mixer.register_forward_hook(left_layer, always_call=True),
            ):
                stack.callback(hook.remove)
        yield seen


def clamp(before: State, after: State, layer: int, memory: str) -> State:
    """The state `after` a call, but with one memory of a layer as it was `before`: nothing new is written to it.

    "window" and "fading" (the scan's state) hold what they held; "eidetic" keeps its slots, which grow older.
    ValueError for a memory that the layer's state does not have.
    """
    old, new = before["layers"][layer], after["layers"][layer]
    rings, slots = ("k", "v"), ("slot_k", "slot_v", "slot_score", "slot_age")
    attention, was = (state.get("attention", state) for state in (new, old))
    if memory == "fading" and "fading" in new:
        changed = new | {"fading": old["fading"]}
    elif memory == "fading" and "log_decay" in new:
        changed = old
    elif memory in ("window", "eidetic") and (rings if memory == "window" else slots)[0] in attention:
        held = {name: was[name] for name in (rings if memory == "window" else slots)}
        if memory == "eidetic":
            passed = (after["position"] - before["position"])[:, None]
            empty = held["slot_score"] == -torch.inf
            held["slot_age"] = (held["slot_age"] + passed).masked_fill(empty, 0)
            if "slot_lost" in was:
                passed = (attention["time"] - was["time"])[:, None]
                held["slot_lost"] = (was["slot_lost"] + passed).masked_fill(empty, 0)
        changed = new | {"attention": attention | held} if "attention" in new else attention | held
    else:
        raise ValueError(f"layer {layer} has no {memory!r} memory to hold still; its state has {', '.join(new)}")
    layers = [*after["layers"]]
    layers[layer] = changed
    return after | {"layers": layers}


def _mark(v: Tensor, at: int) -> Tensor:
    """The shape of v, 1 at one place of its last axis, nowhere where it has no such place."""
    mark = torch.zeros_like(v)
    if 0 <= at < v.shape[-1]:
        mark[..., at] = 1
    return mark
