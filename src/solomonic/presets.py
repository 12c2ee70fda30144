"""The named architectures of the comparison: the same dials for all, the same number of parameters.

Each is a list of mixers; the width of the MLP is then chosen so that the model has as many parameters as the
Transformer of the same width and depth (to within one MLP column a layer).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from ._utils.plugins import Registry
from ._utils.spelling import unknown
from .mixers import MIXERS, MixerConfig, build, config_from_dict
from .mixers.attention import AttentionConfig
from .mixers.base import LARGEST
from .mixers.bmojo import BMojoConfig
from .mixers.gated_deltanet import GatedDeltaNetConfig
from .mixers.gated_deltanet2 import GatedDeltaNet2Config
from .mixers.gated_kalmanet import GatedKalmaNetConfig
from .mixers.kda import KDAConfig
from .mixers.mamba2 import Mamba2Config
from .mixers.mamba3 import Mamba3Config
from .model import ModelConfig

MOST_LAYERS = 1000

Heads = TypeVar("Heads", GatedDeltaNetConfig, GatedKalmaNetConfig, KDAConfig, GatedDeltaNet2Config)


@dataclass(frozen=True)
class Dials:
    """What every preset is asked for; a preset without some memory leaves that memory's dials alone."""

    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None
    window: int
    capacity: int
    block: int | None
    state_size: int
    expand: float | None
    fading: str
    score: str
    tied: bool
    conv: int
    readout: str
    combine: str | None
    slot_decay: float | None
    learned_decay: bool | None

    def _sized(self, name: str) -> Callable[..., MixerConfig] | None:
        """The method here that sizes the mixer of this name, where there is one."""
        return None if getattr(Dials, name, None) is None else getattr(self, name)

    def attention(self, window: int | None = None) -> AttentionConfig:
        return AttentionConfig(self.n_heads, self.n_kv_heads, window)

    def mamba2(self, expand: float = 2) -> Mamba2Config:
        return Mamba2Config(self.state_size, head_dim=self.d_model // self.n_heads, expand=expand)

    def _heads(self, config: type[Heads], expand: float) -> Heads:
        """Heads of the attention's size; with expand 2 a state of as many numbers as Mamba-2's."""
        heads, dim = self.n_heads, self.d_model // self.n_heads
        return config(heads, key_dim=self.state_size, value_dim=int(expand * dim))

    def gated_deltanet(self, expand: float = 2) -> GatedDeltaNetConfig:
        return self._heads(GatedDeltaNetConfig, expand)

    def gated_kalmanet(self, expand: float = 2) -> GatedKalmaNetConfig:
        """Its state has the keys' second moments on top."""
        return self._heads(GatedKalmaNetConfig, expand)

    def kda(self, expand: float = 2) -> KDAConfig:
        return self._heads(KDAConfig, expand)

    def gated_deltanet2(self, expand: float = 2) -> GatedDeltaNet2Config:
        """Its gates, one a channel, take parameters from the MLP."""
        return self._heads(GatedDeltaNet2Config, expand)

    def mamba3(self, expand: float = 2) -> Mamba3Config:
        """A state of as many numbers as Mamba-2's."""
        return Mamba3Config(self.state_size, head_dim=self.d_model // self.n_heads, expand=expand)

    def bmojo(self, capacity: int, published: bool = False) -> BMojoConfig:
        if self.fading not in MIXERS or not MIXERS[self.fading].is_fading:
            raise unknown("fading memory", self.fading, [name for name, mixer in MIXERS.items() if mixer.is_fading])
        sized = self._sized(self.fading)
        expand = self.expand if self.expand is not None else 1 if published else 2
        n_kv_heads = self.n_kv_heads if self.n_kv_heads is not None or published else grouped(self.n_heads)
        return BMojoConfig(
            fading=sized(expand=expand) if sized else MIXERS[self.fading].Config(),
            window=self.window,
            capacity=capacity,
            block=self.block,
            score=self.score,
            tied=self.tied,
            n_heads=self.n_heads,
            n_kv_heads=n_kv_heads,
            conv=self.conv,
            readout="softmax" if published else self.readout,
            combine=None if published else self.combine,
            slot_decay=0 if published else self.slot_decay,
            learned_decay=None if published else self.learned_decay,
        )

    def mixer(self, settings: Mapping[str, Any]) -> MixerConfig:
        """A layer by its settings, as `mixers.config_from_dict` reads them; what they leave out is as presets have it.

        `fading` may be the name of a mixer. Attention without a `window` is full. ValueError for an unknown mixer or
        setting, naming the near one.
        """
        settings, dials = dict(settings), self
        name, heads, fading = settings.get("mixer"), settings.get("n_heads"), settings.get("fading")
        if not isinstance(name, str) or name not in MIXERS:
            raise unknown("mixer", str(name), MIXERS)
        if type(heads) is int and heads > 0:
            dials = replace(dials, n_heads=heads)
        if name != "bmojo":
            sized = dials._sized(name)
            base = sized() if sized else MIXERS[name].Config()
            return config_from_dict(base.to_dict() | settings)
        if fading is not None:
            inner = dict(fading) if isinstance(fading, Mapping) else {"mixer": fading}
            dials = replace(dials, fading=str(inner.get("mixer")))
        layer = dials.bmojo(dials.capacity).to_dict()
        if fading is not None:
            settings["fading"] = layer["fading"] | inner
        return config_from_dict(layer | settings)


def grouped(n_heads: int) -> int:
    """Heads of keys and values for query heads in groups of four, or a few more where four does not divide them."""
    return max(n for n in range(1, max(1, n_heads // 4) + 1) if n_heads % n == 0)


Preset = Callable[[Dials, int], MixerConfig]

_OWN: dict[str, tuple[str, Preset]] = {
    "transformer": ("full attention in every layer: remembers all, at a cost that grows", lambda d, i: d.attention()),
    "sliding_window": ("attention to the last `window` tokens", lambda d, i: d.attention(d.window)),
    "mamba2": ("Mamba-2 in every layer: fading memory only", lambda d, i: d.mamba2()),
    "gated_deltanet": ("Gated DeltaNet in every layer: fading memory only", lambda d, i: d.gated_deltanet()),
    "kda": ("Kimi Delta Attention in every layer: fading memory only", lambda d, i: d.kda()),
    "gated_deltanet2": ("Gated DeltaNet-2 in every layer: fading memory only", lambda d, i: d.gated_deltanet2()),
    "mamba3": ("Mamba-3 in every layer: fading memory only", lambda d, i: d.mamba3()),
    "gated_kalmanet": ("Gated KalmaNet in every layer: fading memory only", lambda d, i: d.gated_kalmanet()),
    "jamba": (
        "Mamba-2 with a full-attention layer every four (at least one)",
        lambda d, i: d.attention() if i % 4 == min(3, d.n_layers - 1) else d.mamba2(),
    ),
    "samba": (
        "Mamba-2 and sliding-window attention in turn",
        lambda d, i: d.attention(d.window) if i % 2 else d.mamba2(),
    ),
    "bmojo_f": ("B'MOJO-F: window and fading memory in one softmax", lambda d, i: d.bmojo(0, True)),
    "bmojo_published": (
        "B'MOJO as published: window, fading and eidetic memory in one softmax",
        lambda d, i: d.bmojo(d.capacity, True),
    ),
    "bmojo": (
        "B'MOJO: window and eidetic memory in one softmax, the fading memory read beside it",
        lambda d, i: d.bmojo(d.capacity),
    ),
}


def _fault(name: str, value: tuple[str, Preset]) -> str | None:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and callable(value[1]):
        return None
    return "a pair: a line about it, and a function of the dials and the number of a layer that gives the layer's configuration"


PRESETS: Registry[tuple[str, Preset]] = Registry("architecture", _OWN, _fault)
"""A line about each architecture, and what makes its layers, of the dials and the number of the layer, from 0.

A plug-in sets its architectures here: `PRESETS["ema"] = ("an average in every layer", lambda dials, layer: EMAConfig())`.
"""


def preset(
    name: str,
    *,
    vocab_size: int,
    d_model: int = 64,
    n_layers: int = 2,
    n_heads: int | None = None,
    n_kv_heads: int | None = None,
    window: int = 16,
    capacity: int = 32,
    block: int | None = None,
    state_size: int = 16,
    expand: float | None = None,
    fading: str = "mamba2",
    score: str = "learned",
    tied: bool = True,
    conv: int = 0,
    readout: str = "direct",
    combine: str | None = None,
    slot_decay: float | None = None,
    learned_decay: bool | None = None,
    d_ff: int | None = None,
    tie_embeddings: bool = False,
    layers: Sequence[Mapping[str, Any]] | None = None,
) -> ModelConfig:
    """The configuration of a named architecture. ValueError for an unknown name, or a dial below its bound.

    n_heads None: heads of 64 dims from width 256 on, four below. n_kv_heads None: as many, in `bmojo` one for four.
    capacity: slots of the eidetic memory a layer, 0 for B'MOJO-F; block: how often it is renewed, None = the window.
    state_size: rows of the fading memory's state; fading: its mixer in B'MOJO layers; expand: its inner width over
    d_model there, None = 2, as published 1; score: one of `mixers.bmojo.SCORES`.
    conv: width of the short convolution of B'MOJO layers, 0 for none.
    readout, combine: how B'MOJO layers read the fading memory, of `mixers.bmojo.READOUTS` and `COMBINE`; as published,
    "softmax". slot_decay: what kept tokens lose, None = `mixers.bmojo.SLOT_DECAY`, 0 = nothing; learned_decay: whether it
    is learned from there, and logits lose it too, None = where the score is learned.
    d_ff None: as many parameters as the Transformer whose MLP is 8/3 as wide as the model; 0: no MLP.
    layers: an architecture of one's own, of any name: mixers with their settings (`Dials.mixer`), of the first layer, the
    second, ..., from the first again after the last.

    Embeddings enter at size 1 (scaled by the root of d_model): at the small size that is usual with a tied head the
    first layers drown them, and recall is learnt late or never (docs/log.md).
    """
    if layers is None and name not in PRESETS:
        raise unknown("architecture", name, PRESETS)
    sizes = {"d_model": d_model, "n_layers": n_layers, "window": window, "capacity": capacity, "state_size": state_size}
    for dial, value in sizes.items():
        least = 0 if dial == "capacity" else 1
        if type(value) is not int or value < least:
            raise ValueError(f"{name}: expected {dial} >= {least}, a whole number, got {value!r}")
    if n_layers > MOST_LAYERS or max(sizes.values()) > LARGEST:
        raise ValueError(f"{name}: expected at most {MOST_LAYERS:,} layers, and sizes up to {LARGEST:,}, got {sizes}")
    if n_heads is None:
        n_heads = max(4, d_model // 64)
    if type(n_heads) is not int or n_heads < 1 or d_model % (2 * n_heads):
        raise ValueError(
            f"{name}: expected n_heads >= 1 and d_model a multiple of 2 x n_heads, "
            f"got d_model={d_model}, n_heads={n_heads}"
        )
    dials = Dials(
        d_model,
        n_layers,
        n_heads,
        n_kv_heads,
        window,
        capacity,
        block,
        state_size,
        expand,
        fading,
        score,
        tied,
        conv,
        readout,
        combine,
        slot_decay,
        learned_decay,
    )
    if layers is not None and not 1 <= len(layers) <= n_layers:
        raise ValueError(f"{name}: expected layers to be 1 to {n_layers} mixers, as n_layers says, got {len(layers)}")
    mixers = [
        PRESETS[name][1](dials, i) if layers is None else dials.mixer(layers[i % len(layers)]) for i in range(n_layers)
    ]
    if d_ff is None:
        column = 3 * d_model
        budget = n_layers * (
            _parameters(AttentionConfig(n_heads, n_kv_heads), d_model) + column * round(d_model * 8 / 3)
        )
        spent = sum(count * _parameters(layer, d_model) for layer, count in Counter(mixers).items())
        d_ff = max(8, round((budget - spent) / (n_layers * column)))
    return ModelConfig(vocab_size, d_model, tuple(mixers), d_ff, tie_embeddings, embedding_scale=d_model**0.5)


def _parameters(mixer: MixerConfig, d_model: int) -> int:
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in build(mixer, d_model).parameters())
    except (RuntimeError, TypeError, OverflowError):
        raise ValueError(f"expected sizes that a tensor can have, got d_model {d_model}, {mixer}") from None
