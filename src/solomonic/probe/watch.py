"""A model at work: what its scans and its attention are given, with a memory taken away or held still.

    with watch(model, without={2: {"eidetic"}}) as seen:
        logits, state = model(tokens)

Inside the block the third layer reads its other memories alone: the softmax runs over what they show, and a fading memory
that is read directly adds nothing. The layer is then, to rounding, the layer that was built without that memory
(`tests/probe/`). While the block lasts, the model's mixers have an `Observer`; other models are not affected.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..mixers.attention import Attention
from ..mixers.base import Mixer, Observer
from ..mixers.bmojo import BMojo
from ..model import LanguageModel, State
from ..ops.memory_attention import Backend
from ..ops.memory_attention.call import AttentionCall
from ..ops.memory_attention.state import has_ring, has_slots, with_ring_of, with_slots_of

MEMORIES = ("window", "fading", "eidetic")
"""The groups of keys that a layer's softmax runs over, in the order of `ops.memory_attention`."""


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
    seen = Seen()
    with ExitStack() as stack:
        for layer, block in enumerate(model.blocks):
            observer = _Layer(seen, layer, without.get(layer, ()))
            for mixer in (module for module in block.mixer.modules() if isinstance(module, Mixer)):
                stack.callback(setattr, mixer, "observer", mixer.observer)
                mixer.observer = observer
        yield seen


class _Layer(Observer):
    """Writes down what a layer's memories are given, and hides those of `without`."""

    def __init__(self, seen: Seen, layer: int, without: Collection[str]):
        self.seen, self.layer, self.without = seen, layer, without

    def attend(self, backend: Backend, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        """What the backend makes of the kept groups' values, over their mass: of values that mark the group."""
        values = call.values
        D = next(v for v in values if v is not None).shape[-1]
        kept = [name not in self.without for name in MEMORIES]
        masses = []
        for first in range(0, len(values), D):
            marks = tuple(None if v is None else _mark(v, i - first) for i, v in enumerate(values))
            masses.append(backend(replace(call, values=marks))[0])
        mass = torch.cat(masses, -1)[..., : len(values)]
        self.seen.mass[self.layer].append(mass.detach())
        shown = tuple(v if v is None or keep else torch.zeros_like(v) for v, keep in zip(values, kept, strict=True))
        y, carried = backend(replace(call, values=shown))
        if all(kept):
            return y, carried
        left = mass[..., kept].sum(-1, keepdim=True)
        return torch.where(left > 0, y / left.clamp_min(1e-30), 0), carried

    def scan(self, **inputs: Tensor) -> None:
        row = {name: inputs[name][0].detach().float() for name in ("k", "q", "v", "log_decay")}
        heads = row["v"].shape[1]
        row |= {name: row[name].repeat_interleave(heads // row[name].shape[1], 1) for name in ("k", "q")}
        for name, what in (("weight", "k"), ("step", "v")):  # Gated KalmaNet weighs keys, Mamba-2 values
            if name in inputs:
                row[what] = row[what] * inputs[name][0].detach().float()[..., None]
        rule = {name: inputs[name][0].detach().float() for name in ("beta", "erase") if name in inputs}
        self.seen.scans[self.layer].append(Scan(**row, **rule))

    def direct(self, f: Tensor) -> Tensor:
        return torch.zeros_like(f) if "fading" in self.without else f


def clamp(before: State, after: State, layer: int, memory: str) -> State:
    """The state `after` a call, but with one memory of a layer as it was `before`: nothing new is written to it.

    "window" and "fading" (the scan's state) hold what they held; "eidetic" keeps its slots, which grow older.
    ValueError for a memory that the layer's state does not have.
    """
    old, new = before["layers"][layer], after["layers"][layer]
    attention, was = (state.get("attention", state) for state in (new, old))
    if memory == "fading" and "fading" in new:
        changed = new | {"fading": old["fading"]}
    elif memory == "fading" and "log_decay" in new:
        changed = old
    elif memory in ("window", "eidetic") and (has_ring if memory == "window" else has_slots)(attention):
        if memory == "window":
            held = with_ring_of(was, attention)
        else:
            held = with_slots_of(was, attention, after["position"] - before["position"])
        changed = new | {"attention": held} if "attention" in new else held
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
