"""B'MOJO (arXiv 2407.06324): one softmax over a window, a fading memory and an eidetic memory.

    f = SSM(x)                                      the fading memory's outputs
    window    k_j, v_j = Wk x_j, Wv x_j             i - w < j <= i
    fading    k~_j, v~_j = Wk f_j, Wv f_j           i - w - s < j <= i - w
    eidetic   k_j, v_j, j in M(i)                   the best `capacity` by `score`, j <= i - w
    stored    k_j, v_j of a store                   what `Place.store` finds for the queries, where there is one

Queries and keys are RMS-normed a head and, but for the eidetic and stored groups, rotated. `tied` shares Wq, Wk, Wv
between x and f (the published layer); untied, the fading memory has its own three. With `conv`, x is what entered the
layer plus a short convolution of it (arXiv 2512.17351), so that a key tells what came before its token: what a later
query looks for, if it is to find what followed (docs/log.md measures it). Without capacity the layer is
B'MOJO-F; without a fading memory too, sliding-window attention; without a window and a span of 1, the SSM's readout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import ShortConvolution
from ..ops.innovation import WIDTH, innovation, random_score
from ..ops.memory_attention import init_state, memory_attention
from ..ops.memory_attention.composition import compose
from ..ops.place import Place, join
from ..spelling import unknown
from .attention import Projections
from .base import Mixer, MixerConfig, State

SCORES = {
    "norm": "error of the causal-average predictor of the fading output",
    "cosine": "1 - cosine between the fading output and its prediction",
    "delta": "error of the fading memory's own prediction (delta rule)",
    "learned": "linear in the short-convolved input, trained through the attention",
    "random": "control: any token",
    "recent": "control: the last tokens (of 16 million)",
}

ADMIT_STD = 0.004
"""Initial size of the admission weights. Only the order of scores counts at first, so that a small start loses
nothing; but what no gradient ever reaches stays, as noise that ranks the best of many distractors above a poor pair."""


@dataclass(frozen=True)
class BMojoConfig(MixerConfig):
    name = "bmojo"
    fading: MixerConfig | None = None
    window: int = 16
    capacity: int = 32
    block: int | None = None  # None: the window
    span: int | None = None  # of the fading memory; None: the window, 0 without a fading memory
    score: str = "learned"
    tied: bool = True
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: as many as n_heads
    rotary_base: float = 10000.0
    qk_norm: bool = True
    conv: int = 0  # width of the short convolution, 0 for none

    def __post_init__(self):
        if str(self.score) not in SCORES:
            raise unknown("score", self.score, SCORES)
        self.require(
            self.fading is None or isinstance(self.fading, MixerConfig), "fading: a mixer's configuration or None"
        )
        self.require_whole(n_heads=1, n_kv_heads=1, window=0, capacity=0, block=1, span=0, conv=0)
        self.require(self.conv != 1, "conv 0 or >= 2")
        self.require(self.n_heads % self.kv_heads == 0, "n_heads a multiple of n_kv_heads")
        self.require(self.rotary_base > 0, "rotary_base > 0")
        self.require(self.window >= 1 or (self.fading is not None and self.fading_span >= 1), "window >= 1")
        self.require(not self.capacity or 1 <= self.block_size <= self.window, "1 <= block <= window")
        if self.capacity and self.fading is None:
            self.require(self.score not in ("norm", "cosine", "delta"), "a fading memory, whose error is the score")

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def block_size(self) -> int:
        return self.window if self.block is None else self.block

    @property
    def fading_span(self) -> int:
        if self.fading is None:
            return 0
        return self.window if self.span is None else self.span


class BMojo(Mixer):
    Config = BMojoConfig
    summary = "B'MOJO: window, fading and eidetic memory in one softmax"

    def __init__(self, d_model: int, config: BMojoConfig):
        super().__init__(d_model, config)
        from . import MIXERS

        self.conv = ShortConvolution(d_model, config.conv) if config.conv else None
        self.project = Projections(d_model, config.n_heads, config.kv_heads, config.qk_norm)
        self.out = nn.Linear(config.n_heads * self.project.dim, d_model, bias=False)
        self.fading = self.project_fading = None
        if config.fading is not None:
            mixer = MIXERS[config.fading.name]
            config.require(mixer.is_fading, f"a fading memory, one of {[n for n, m in MIXERS.items() if m.is_fading]}")
            config.require(mixer.innovates or config.score != "delta", "a delta-rule fading memory for score 'delta'")
            self.fading = mixer(d_model, config.fading)
            if not config.tied:
                self.project_fading = Projections(d_model, config.n_heads, config.kv_heads, config.qk_norm)
        self.learns = config.capacity > 0 and config.score == "learned"
        self.exact = config.score in ("random", "recent")
        if self.learns:
            self.admit_conv = ShortConvolution(d_model)
            self.admit = nn.Linear(d_model, 1)
            nn.init.normal_(self.admit.weight, std=ADMIT_STD)
            nn.init.zeros_(self.admit.bias)

    def init_state(self, batch: int, length: int = 0, device=None, dtype=None) -> State:
        config = self.config
        state = init_state(
            batch,
            config.kv_heads,
            self.project.dim,
            window=config.window,
            span=config.fading_span,
            capacity=config.capacity,
            device=device,
            dtype=dtype,
        )
        state = {"attention": state}
        if self.conv is not None:
            state["conv"] = self.conv.init_state(batch, device, dtype)
        if self.fading is not None:
            state["fading"] = self.fading.init_state(batch, length, device, dtype)
        if self.learns:
            state["admit"] = self.admit_conv.init_state(batch, device, dtype)
        if config.capacity and config.score in ("norm", "cosine"):
            state["predictor"] = torch.zeros(batch, WIDTH, self.out.out_features, device=device)
        return state

    def forward(self, x: Tensor, state: State | None, place: Place) -> tuple[Tensor, State]:
        config = self.config
        state = state or {}
        after: State = {}
        if self.conv is not None:
            near, after["conv"] = self.conv(x, state.get("conv"), place)
            x = x + near
        q, (k, v) = self.project.query(x), self.project.key_value(x)
        fading = errors = f = None
        if self.fading is not None:
            if config.score == "delta" and config.capacity:
                f, errors, after["fading"] = self.fading.innovate(x, state.get("fading"), place)
            else:
                f, after["fading"] = self.fading(x, state.get("fading"), place)
            if config.fading_span:
                project = self.project_fading or self.project
                fading = (q if config.tied else project.query(x), *project.key_value(f))
        score = self._score(x, f, errors, state, after, place) if config.capacity else None
        stored = None
        if place.store is not None:
            place.store.keep(k, v, score)
            stored = place.store.recall(q, place)
        y, after["attention"] = memory_attention(
            q,
            k,
            v,
            state.get("attention"),
            place,
            window=config.window,
            fading=fading,
            span=config.fading_span,
            score=score,
            admit=self.learns,
            exact=self.exact,
            capacity=config.capacity,
            block=config.block_size if config.capacity else max(config.window, 1),
            base=config.rotary_base,
            stored=stored,
        )
        return self.out(y.flatten(2)), after

    def compose(self, states: list[State], lengths: Tensor, how: str) -> State:
        after: State = {}
        for name in ("conv", "admit", "predictor"):
            if name in states[0]:
                after[name] = join([s[name] for s in states], lengths)
        if self.fading is not None:
            after["fading"] = self.fading.compose([s["fading"] for s in states], lengths, how)
        attention = [s["attention"] for s in states]
        after["attention"] = compose(attention, lengths, self.config.block_size, self.exact)
        return after

    def _score(self, x: Tensor, f: Tensor | None, errors: Tensor | None, state: State, after: State, place: Place):
        """(B, T) float32; writes the scores' own states into `after`."""
        kind = self.config.score
        if kind == "learned":
            convolved, after["admit"] = self.admit_conv(x, state.get("admit"), place)
            return self.admit(convolved)[..., 0].float()
        if kind in ("norm", "cosine"):
            score, after["predictor"] = innovation(f, kind, state.get("predictor"), place)
            return score.detach()
        if kind == "delta":
            return errors.detach()
        position = place.position.expand(x.shape[0], -1)
        return random_score(position) if kind == "random" else position.float()
