"""What a mixer is: the part of a block that moves information between positions.

Laws, tested on every mixer there is (`solomonic.testing`). With y, s = mixer(x, state, sequences):

- Chunk: any split of x into calls that carry the state gives the same y, s and gradients.
- Causality: a change of x at t changes nothing before t.
- Padding and packing: what `sequences` calls padding, or another document, changes nothing.
- Bounded state: the state has the shapes of `init_state(batch, length)`; where `bounded`, at any length.
- Gradient: y and s are differentiable functions of x and of the state.

And of states of chunks that were read apart, with s = mixer.compose(states, lengths, how):

- One: the composition of one state is that state.
- Order: what fades does not depend on the order of the chunks, for "picaso" and "soup".
- Sequence: composing by "sequence" is associative. Where the mixer's inputs do not depend on its state (a model's first
  layer), it is the state after reading the chunks one after the other, and "picaso" the mean over all orders of that;
  but for the seams, where a short convolution would have seen the chunk before, and for transitions other than a
  multiple of the identity (the delta rule's), where it is an approximation.
- Rows: a row of a batch is composed as if it were alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.types import Device

from .._utils.spelling import unknown
from ..ops.composition import compose
from ..ops.memory_attention import Backend
from ..ops.memory_attention.call import AttentionCall
from ..ops.sequence import Sequences, join

LARGEST = 2**31 - 1
"""The largest whole number in a configuration: products of a few of these can still be compared."""

State = dict[str, Any]
"""Nested dictionaries (a model's has a list of its layers') of tensors whose first axis is the batch."""


class Reading(NamedTuple):
    """What a fading memory makes of a call of B rows and T tokens, H heads, K key channels."""

    y: Tensor  # (B, T, d_model)
    state: State
    log_decay: Tensor  # (B, T, H), or (B, T, H, K), <= 0: what each token leaves of the state
    error: Tensor | None = None  # (B, T): |v_t - what the state predicted from k_t| over all heads, where asked for
    written: Tensor | None = None  # (B, T): the same, each head's times its write strength


@dataclass(frozen=True)
class MixerConfig:
    """Settings of a mixer: what distinguishes two layers of the same width."""

    name: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        nested = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), MixerConfig)}
        return {"mixer": self.name} | asdict(self) | {key: value.to_dict() for key, value in nested.items()}

    @classmethod
    def complete(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings as an earlier version stored them, with what it did not name as it was then."""
        return settings

    def require_whole(self, **least: int) -> None:
        """ValueError unless each of these settings is a whole number from the bound given for it to `LARGEST`, or None."""
        for name, bound in least.items():
            value = getattr(self, name)
            optional = next(f for f in fields(self) if f.name == name).default is None
            if not ((value is None and optional) or (type(value) is int and value >= bound)):
                raise ValueError(f"{self.name}: expected {name} to be a whole number >= {bound}, got {value!r}")
            if value is not None and value > LARGEST:
                raise ValueError(f"{self.name}: expected {name} to be at most {LARGEST:,}, got {value!r}")

    def require(self, holds: bool, expected: str, *names: str) -> None:
        """ValueError unless `holds`: it says what was expected, and the values of `names`, or of all settings."""
        if not holds:
            values = ", ".join(f"{name} {getattr(self, name)!r}" for name in names) or asdict(self)
            raise ValueError(f"{self.name}: expected {expected}, got {values}")


def is_number(value: Any) -> bool:
    """Whether it is a number that is finite, also as a float and after a few multiplications."""
    return type(value) in (int, float) and abs(value) <= 1e300


class Observer:
    """Receives the inputs of a layer's memories, and may change what the layer reads. This base class changes nothing."""

    def attend(self, backend: Backend, call: AttentionCall) -> tuple[Tensor, Tensor | None]:
        """Called in place of `backend(call)`; returns what that does: outputs, and the candidates that are kept."""
        return backend(call)

    def scan(self, **inputs: Tensor) -> None:
        """Receives the inputs of a fading memory's scan, under the names of its definition in `ops`."""

    def direct(self, f: Tensor) -> Tensor:
        """Returns what the layer reads of the fading memory's output f (B, T, d_model) beside attention."""
        return f


class Mixer(nn.Module, ABC):
    Config: ClassVar[type[MixerConfig]]
    config: MixerConfig  # an instance of `Config`
    out: nn.Linear  # its last projection
    observer: Observer | None = None
    summary: ClassVar[str]
    bounded: bool = True  # whether the state stops growing
    is_fading: ClassVar[bool] = False  # whether it can be the fading memory of a B'MOJO layer: a `FadingMixer`
    fades: ClassVar[tuple[str, ...]] = ()  # leaves S that a row takes to exp(g) S + ..., g summed in leaf `log_decay`
    innovates: ClassVar[bool] = False  # whether it knows its own prediction error

    def __init__(self, d_model: int, config: MixerConfig):
        super().__init__()
        self.config = config

    @property
    def outputs(self) -> list[nn.Linear]:
        """The projections whose sum the mixer returns: what a model scales down by its depth at the start."""
        return [self.out]

    @abstractmethod
    def forward(self, x: Tensor, state: State | None, sequences: Sequences) -> tuple[Tensor, State]:
        """(B, T, d_model), the state before (None = nothing before) -> (B, T, d_model), the state after."""

    @abstractmethod
    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        """Zeros in the shapes of the state after `length` tokens; for `length` 0, the state that None stands for."""

    def compose(self, states: list[State], lengths: Tensor, how: str) -> State:
        """One state for N chunks that were read apart, each from nothing: of their lengths (N, B) in tokens, in order.

        What fades is combined by `how`, one of `ops.composition.METHODS`. What is verbatim, a ring of the last rows, is
        that of the chunks one after the other, whatever `how`. ValueError for a mixer that is not bounded.
        """
        if not self.bounded:
            raise ValueError(
                f"{self.config.name}: expected a bounded state, got one that keeps every token at its position in its own "
                "document; read the documents one after the other, or use a model without full attention"
            )
        combined = (*self.fades, "log_decay")
        after = {name: join([s[name] for s in states], lengths) for name in states[0] if name not in combined}
        if self.fades:
            clock = torch.stack([s["log_decay"] for s in states])
            after |= {name: compose(torch.stack([s[name] for s in states]), clock, how) for name in self.fades}
            after["log_decay"] = clock.sum(0)
        return after


class FadingMixer(Mixer):
    """A mixer whose state fades, and that says how fast."""

    is_fading = True

    @abstractmethod
    def read(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool = False) -> Reading:
        """`forward`, with the decays, and with `innovate` the prediction errors, which only mixers that `innovates` have."""

    @overload
    def forward(
        self, x: Tensor, state: State | None, sequences: Sequences, innovate: None = None
    ) -> tuple[Tensor, State]: ...

    @overload
    def forward(self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool) -> Reading: ...

    def forward(
        self, x: Tensor, state: State | None, sequences: Sequences, innovate: bool | None = None
    ) -> tuple[Tensor, State] | Reading:
        """As any mixer; with `innovate` true or false, what `read` returns, through a call that wrappers of the module see."""
        return self.read(x, state, sequences)[:2] if innovate is None else self.read(x, state, sequences, innovate)


def config_from_dict(settings: dict[str, Any], known: Mapping[str, type[Mixer]]) -> MixerConfig:
    """The inverse of `to_dict`. ValueError for an unknown mixer or setting, naming the near one."""
    settings = dict(settings)
    name = settings.pop("mixer", None)
    if not isinstance(name, str) or name not in known:
        raise unknown("mixer", str(name), known)
    config = known[name].Config
    settings = config.complete(settings)
    allowed = [f.name for f in fields(config)]
    for key, value in settings.items():
        if key not in allowed:
            raise unknown(f"setting of {name}", key, allowed)
        if isinstance(value, dict) and key == "fading":  # the one setting that is a mixer, which has none of its own
            inner = value.get("mixer")
            if not isinstance(inner, str) or inner not in known or not known[inner].is_fading:
                raise unknown("mixer", str(inner), [name for name, mixer in known.items() if mixer.is_fading])
            settings[key] = config_from_dict(value, known)
        elif not _alike(value, next(f.default for f in fields(config) if f.name == key)):
            raise ValueError(f"{name}: expected {key} to be of the kind of its default, got {value!r}")
    try:
        return config(**settings)
    except TypeError:
        raise ValueError(f"{name}: expected settings as `to_dict` gives them, got {settings}") from None


def _alike(value: Any, default: Any) -> bool:
    """Whether a setting is true or false, a finite number or text where its default is; None is alike to anything."""
    if isinstance(default, (bool, str)):
        return type(value) is type(default)
    return not isinstance(default, (int, float)) or is_number(value)
