"""What the scans and the attention of a model receive while it runs, with a memory taken away or held still.

    with watch(model, without={2: {"eidetic"}}) as seen:
        logits, state = model(tokens)

Inside the block the third layer reads its other memories only: the softmax runs over their keys, and a fading memory that
is read directly adds nothing. Up to rounding the layer then equals one that was built without that memory
(`tests/probe/`). The model's mixers have an `Observer` until the block ends; other models are not affected.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..mixers.attention import Attention
from ..mixers.base import Mixer, Observer
from ..mixers.bmojo import BMojo
from ..model import LanguageModel, State
from ..ops.memory_attention import Backend
from ..ops.memory_attention.call import AttentionCall, Group
from ..ops.memory_attention.state import has_ring, has_slots, with_ring_of, with_slots_of

MEMORIES = ("window", "fading", "eidetic")
"""The groups of keys that a layer's softmax runs over, in the order of `ops.memory_attention`."""


@dataclass
class Scan:
    """Inputs of a fading memory of H heads, float32, of the first row of the batch.

    k, q (T, H, N), v (T, H, P), log_decay (T, H) or (T, H, N). A delta rule writes beta (T, H) of its error at k, or, with
    a decay for each channel, all of its error at `erase` (T, H, N); both are None for memories without such a rule.
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
    """By layer, the memories that can be taken away: those that it reads, in the softmax or beside it. Full attention has none."""
    by_layer: dict[int, tuple[str, ...]] = {}
    for layer, block in enumerate(model.blocks):
        mixer = block.mixer
        if isinstance(mixer, BMojo):
            sizes = (mixer.config.window, mixer.config.fading is not None, mixer.config.capacity)
            by_layer[layer] = tuple(name for name, size in zip(MEMORIES, sizes, strict=True) if size)
        elif isinstance(mixer, Attention) and mixer.config.window is not None:
            by_layer[layer] = ("window",)
    return by_layer


@contextmanager
def watch(model: LanguageModel, without: Mapping[int, Collection[str]] | None = None) -> Iterator[Seen]:
    """Yields what the model's memories receive inside the block; those of `without` (by layer) are taken away.

    A query that has no key left gets 0. ValueError for a layer or a memory that the model does not have.
    """
    without = without or {}
    by_layer = memories(model)
    for layer, names in without.items():
        for name in names:
            if name not in by_layer.get(layer, ()):
                has = ", ".join(f"layer {i}: {' '.join(own)}" for i, own in by_layer.items()) or "none"
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
    """Records what a layer's memories receive, and hides those of `without`."""

    def __init__(self, seen: Seen, layer: int, without: Collection[str]):
        self.seen, self.layer, self.without = seen, layer, without

    def attend(self, backend: Backend, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        """The backend's output for the values of the kept groups, divided by their attention mass.

        The mass of a group is the output for values that mark it.
        """
        kept = [name not in self.without for name in MEMORIES]
        masses = []
        for first in range(0, len(MEMORIES), call.values[0].shape[-1]):
            marks = _changed(call.values, lambda v, i: _mark(v, i - first))
            masses.append(backend(replace(call, values=marks))[0])
        mass = torch.cat(masses, -1)[..., : len(MEMORIES)]
        self.seen.mass[self.layer].append(mass.detach())
        shown = _changed(call.values, lambda v, i: v if kept[i] else torch.zeros_like(v))
        y, carried = backend(replace(call, values=shown))
        if all(kept):
            return y, carried
        left = mass[..., kept].sum(-1, keepdim=True)
        return torch.where(left > 0, y / left.clamp_min(1e-30), 0), carried

    def scan(self, **inputs: Tensor) -> None:
        row = {name: inputs[name][0].detach().float() for name in ("k", "q", "v", "log_decay")}
        heads = row["v"].shape[1]
        row |= {name: row[name].repeat_interleave(heads // row[name].shape[1], 1) for name in ("k", "q")}
        for name, weighed in (("weight", "k"), ("step", "v")):  # Gated KalmaNet weighs keys, Mamba-2 values
            if name in inputs:
                row[weighed] = row[weighed] * inputs[name][0].detach().float()[..., None]
        rule = {name: inputs[name][0].detach().float() for name in ("beta", "erase") if name in inputs}
        self.seen.scans[self.layer].append(Scan(**row, **rule))

    def direct(self, f: Tensor) -> Tensor:
        return torch.zeros_like(f) if "fading" in self.without else f


def clamp(before: State, after: State, layer: int, memory: str) -> State:
    """The state `after` a call, with one memory of a layer as it was `before`: nothing new is written to it.

    "window" and "fading" (the scan's state) are unchanged; "eidetic" keeps its slots, whose tokens grow older.
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


def _changed(values: Group, change: Callable[[Tensor, int], Tensor]) -> Group:
    """`change` of each tensor that is there, and of its number in MEMORIES."""
    window, fading, eidetic = values
    return (
        change(window, 0),
        None if fading is None else change(fading, 1),
        None if eidetic is None else change(eidetic, 2),
    )


def _mark(v: Tensor, at: int) -> Tensor:
    """Zeros in the shape of v, with 1 at index `at` of the last axis, if there is such an index."""
    mark = torch.zeros_like(v)
    if 0 <= at < v.shape[-1]:
        mark[..., at] = 1
    return mark
