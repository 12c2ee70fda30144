"""B'MOJO (arXiv 2407.06324): a layer that attends to a window and an eidetic memory, and reads a fading memory.

    f = SSM(x)                                      the fading memory's outputs
    window    k_j, v_j = Wk x_j, Wv x_j             i - w < j <= i
    fading    k~_j, v~_j = Wk f_j, Wv f_j           i - w - s < j <= i - w, where `readout` has the softmax
    eidetic   k_j, v_j, j in M(i)                   the best `capacity` by `score`, j <= i - w
    stored    k_j, v_j of a store                   what `Sequences.store` finds for the queries, where there is one
    y_i = Wo (g_i softmax over these) + f_i         where `readout` has the direct one; g a gate a head, see `combine`

The canonical form of a linear system is a direct sum of a nilpotent part, which is eidetic, and an invertible one, which
fades, and both are read out: y = C_e x_e + C_f x_f. The default does so. In the published layer (`readout` "softmax") f is
read as keys and values of tokens that have left the window alone, and the token that is predicted does not read it.

Queries and keys are RMS-normed a head and, but for the eidetic and stored groups, rotated. `tied` shares Wq, Wk, Wv
between x and f (the published layer); untied, the fading memory has its own three. With `conv`, x is what entered the
layer plus a short convolution of it (arXiv 2512.17351), so that the key of a token also depends on the tokens before it,
by which a later query can find what followed them (docs/log.md measures it).

Slots fade: score and logits of a slot lose what the slowest head of the fading memory forgets, times a share that is
learned (`slot_decay`, docs/decay.md); so does the Forgetting Transformer's attention by a gate (arXiv 2503.02130).

Special cases: without capacity the layer is B'MOJO-F; without a fading memory too, sliding-window attention; without a
window, the SSM.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.types import Device

from .._utils.spelling import unknown
from ..layers import RMSNorm, ShortConvolution
from ..ops.innovation import WIDTH, innovation, random_score
from ..ops.memory_attention import memory_attention
from ..ops.memory_attention.composition import compose
from ..ops.memory_attention.state import init_state
from ..ops.sequence import Sequences, join
from .attention import Projections
from .base import Mixer, MixerConfig, Reading, State, is_number

SCORES = {
    "norm": "error of the causal-average predictor of the fading output",
    "cosine": "1 - cosine between the fading output and its prediction",
    "delta": "error of the fading memory's own prediction (delta rule)",
    "write": "the same times the write strength: what the state changed by (arXiv 2607.02303)",
    "learned": "linear in the short-convolved input, trained through the attention",
    "random": "control: any token",
    "recent": "control: the last tokens (of 16 million)",
}

READOUTS = {
    "direct": "beside the softmax, at the token that is predicted (the canonical form)",
    "softmax": "as keys and values of tokens that have left the window (the published layer)",
    "both": "both ways",
}
COMBINE = {
    "sum": "Wo a + f",
    "norm": "Wo RMSNorm(a) + f: each branch has a norm before its projection, as the fading memory's own is",
    "gate": "Wo (sigmoid(Wg x) a) + f, one gate a head",
    "concat": "Wo [a, f]",
}

OF_FADING = ("norm", "cosine", "delta", "write")
EXACT = ("random", "recent")  # scores that are compared as they are, and never lose weight

SLOT_DECAY = 0.05
"""What a slot's score and its logits lose at first while the slowest head of the fading memory forgets by a factor of e. A
layer learns it: text wants more, recall less (docs/decay.md)."""

DECAY_SPEED = 8.0
"""How many times as fast the logarithm of a learned decay moves as other parameters do: text wants a hundred times what
recall does, and both are found in some hundred steps (docs/log.md)."""

FIXED_DECAY = 0.002
"""The same where it is not learned: only scores lose it. Of two tokens with equal scores the later one stays; one whose score
is higher by 1 is replaced once that head has forgotten by a factor of e^500."""

ADMIT_STD = 0.004
"""Initial size of the admission weights. At first only the order of scores counts, so a small size loses nothing; a larger
one would leave noise where no gradient arrives, which ranks the best of many distractors above a poor pair."""

GATE_BIAS = 2.0
"""A gate starts open (0.88) and alike for all tokens, and is open in rows without the fading memory. One that starts at a
half, or at random, or that closes before attention is of use, can keep attention from being learned at all (docs/log.md)."""

FADING_SIZE = 0.1
"""Share of its usual size at which the fading memory's projection starts where it is read beside attention. At full size
it drowns the tokens that have to be copied, and recall is learnt late (docs/log.md)."""


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
    readout: str | None = None  # of the fading memory, one of READOUTS; None: "direct"
    combine: str | None = None  # of attention and a fading memory that is read directly, one of COMBINE; None: "gate"
    slot_decay: float | None = None  # what slots lose of each nat of the clock; None: the constants above; 0: nothing
    learned_decay: bool | None = None  # whether it is learned, and taken from logits too; None: where the score is

    def __post_init__(self) -> None:
        for name, known in (("score", SCORES), ("readout", READOUTS), ("combine", COMBINE)):
            value = getattr(self, name)
            if str(value) not in known and (name == "score" or value is not None):
                raise unknown(name, value, known)
        self.require(
            self.fading is None or isinstance(self.fading, MixerConfig), "fading: a mixer's configuration or None"
        )
        self.require_whole(n_heads=1, n_kv_heads=1, window=0, capacity=0, block=1, span=0, conv=0)
        self.require(self.conv != 1, "conv 0 or >= 2")
        self.require(self.n_heads % self.kv_heads == 0, "n_heads a multiple of n_kv_heads")
        self.require(is_number(self.rotary_base) and self.rotary_base > 0, "rotary_base > 0")
        self.require(self.readout is None or self.fading is not None, "readout None without a fading memory", "readout")
        self.require(
            not self.span or self.reads_softmax, "span 0 or None unless the softmax reads it", "span", "readout"
        )
        self.require(self.attends or self.reads_direct, "window >= 1")
        self.require(
            self.combine is None or (self.attends and self.reads_direct),
            "combine None unless there are two branches, attention and a fading memory that is read directly",
            "combine",
            "readout",
            "window",
        )
        self.require(not self.capacity or 1 <= self.block_size <= self.window, "1 <= block <= window")
        if self.capacity and self.fading is None:
            self.require(self.score not in OF_FADING, "a fading memory, whose error is the score")
        self.require(
            self.slot_decay is None or (is_number(self.slot_decay) and self.slot_decay >= 0),
            "slot_decay a number >= 0",
            "slot_decay",
        )
        self.require(
            not self.slot_decay or self.fading_clock,
            "slot_decay 0 or None without slots or a fading memory, and for scores that never lose weight",
            "slot_decay",
            "capacity",
            "score",
        )
        self.require(
            self.learned_decay is None or type(self.learned_decay) is bool,
            "learned_decay True, False or None",
            "learned_decay",
        )
        self.require(
            not self.learned_decay or (self.fading_clock and self.slot_decay != 0 and self.score == "learned"),
            "learned_decay False or None without slots that fade, and for scores that are not learned",
            "learned_decay",
            "capacity",
            "slot_decay",
            "score",
        )

    @classmethod
    def complete(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings without a readout are from a version whose only readout was the softmax; without `learned_decay`, from
        one whose scores alone decayed."""
        settings = {"learned_decay": False} | settings
        if "readout" in settings or settings.get("fading") is None:
            return settings
        return settings | {"readout": "softmax", "slot_decay": 0}

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def block_size(self) -> int:
        return self.window if self.block is None else self.block

    @property
    def fading_clock(self) -> bool:
        """Whether scores could decay by a clock: that of a fading memory."""
        return self.capacity > 0 and self.fading is not None and not self.exact

    @property
    def exact(self) -> bool:
        """Whether scores are compared as they are, and not rounded."""
        return self.score in EXACT

    @property
    def decay(self) -> float:
        """What slots lose of each nat of the clock, at first where it is learned."""
        if not self.fading_clock:
            return 0.0
        if self.slot_decay is not None:
            return self.slot_decay
        return FIXED_DECAY if self.learned_decay is False or self.score != "learned" else SLOT_DECAY

    @property
    def learns_decay(self) -> bool:
        return self.decay > 0 and self.score == "learned" and self.learned_decay is not False

    @property
    def reads_direct(self) -> bool:
        return self.fading is not None and self.readout != "softmax"

    @property
    def reads_softmax(self) -> bool:
        return self.readout in ("softmax", "both")

    @property
    def combination(self) -> str | None:
        """How attention and fading memory are combined; None where the layer reads one of them only."""
        return (self.combine or "gate") if self.attends and self.reads_direct else None

    @property
    def fading_span(self) -> int:
        """Rows of the fading memory's outputs in the softmax."""
        if not self.reads_softmax:
            return 0
        return self.window if self.span is None else self.span

    @property
    def attends(self) -> bool:
        """Whether there is a softmax at all."""
        return self.window + self.fading_span > 0


class BMojo(Mixer):
    Config = BMojoConfig
    config: BMojoConfig
    summary = "B'MOJO: attention to a window and an eidetic memory, beside a fading memory"

    def __init__(self, d_model: int, config: BMojoConfig):
        super().__init__(d_model, config)
        from . import MIXERS

        self.conv = ShortConvolution(d_model, config.conv) if config.conv else None
        self.project: Projections | None = None
        self.project_fading: Projections | None = None
        self.norm: RMSNorm | None = None
        self.gate: nn.Linear | None = None
        self.fading: Mixer | None = None
        if config.attends:
            self.project = Projections(d_model, config.n_heads, config.kv_heads, config.qk_norm)
            inner = config.n_heads * self.project.dim
            self.norm = RMSNorm(inner) if config.combination == "norm" else None
            if config.combination == "gate":
                self.gate = nn.Linear(d_model, config.n_heads)
                nn.init.zeros_(self.gate.weight)
                nn.init.constant_(self.gate.bias, GATE_BIAS)
            self.out = nn.Linear(inner + (d_model if config.combination == "concat" else 0), d_model, bias=False)
        if config.fading is not None:
            mixer = MIXERS[config.fading.name]
            config.require(mixer.is_fading, f"a fading memory, one of {[n for n, m in MIXERS.items() if m.is_fading]}")
            known = mixer.innovates or config.score not in ("delta", "write")
            config.require(known, f"a delta-rule fading memory for score {config.score!r}")
            self.fading = mixer(d_model, config.fading)
            if config.fading_span and not config.tied:
                self.project_fading = Projections(d_model, config.n_heads, config.kv_heads, config.qk_norm)
            if config.attends and config.reads_direct:
                with torch.no_grad():
                    for output in self.fading.outputs:
                        output.weight *= FADING_SIZE
        self.learns = config.capacity > 0 and config.score == "learned"
        self.exact = config.exact
        self.decays = config.decay > 0
        self.decay: nn.Parameter | None = None
        if config.learns_decay:
            self.decay = nn.Parameter(torch.zeros(1))
        if self.learns:
            self.admit_conv = ShortConvolution(d_model)
            self.admit = nn.Linear(d_model, 1)
            nn.init.normal_(self.admit.weight, std=ADMIT_STD)
            nn.init.zeros_(self.admit.bias)

    @property
    def outputs(self) -> list[nn.Linear]:
        if self.config.attends:
            return [self.out]
        assert self.fading is not None
        return self.fading.outputs

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        config = self.config
        state: State = {}
        if self.project is not None:
            state["attention"] = init_state(
                batch,
                config.kv_heads,
                self.project.dim,
                window=config.window,
                span=config.fading_span,
                capacity=config.capacity,
                decays=self.decays,
                device=device,
                dtype=dtype,
            )
        if self.conv is not None:
            state["conv"] = self.conv.init_state(batch, device, dtype)
        if self.fading is not None:
            state["fading"] = self.fading.init_state(batch, length, device, dtype)
        if self.learns:
            state["admit"] = self.admit_conv.init_state(batch, device, dtype)
        if config.capacity and config.score in ("norm", "cosine"):
            state["predictor"] = torch.zeros(batch, WIDTH, self.out.out_features, device=device)
        return state

    def forward(self, x: Tensor, state: State | None, sequences: Sequences) -> tuple[Tensor, State]:
        config = self.config
        state = state or {}
        after: State = {}
        if self.conv is not None:
            near, after["conv"] = self.conv(x, state.get("conv"), sequences)
            x = x + near
        reading: Reading | None = None
        if self.fading is not None:
            innovate = config.capacity > 0 and config.score in ("delta", "write")
            reading = self.fading(x, state.get("fading"), sequences, innovate)
            after["fading"] = reading.state
        if not config.attends:
            return self._direct(reading), after
        a, after["attention"] = self._attend(x, reading, state, after, sequences)
        if self.norm is not None:
            a = self.norm(a)
        if self.gate is not None:
            gate = self.gate(x).sigmoid()
            if sequences.dropped is not None:
                gate = gate.masked_fill(sequences.dropped[:, None, None], 1)
            a = (a.unflatten(2, (config.n_heads, -1)) * gate[..., None]).flatten(2)
        if not config.reads_direct:
            return self.out(a), after
        f = self._direct(reading)
        if sequences.dropped is not None:
            f = f.masked_fill(sequences.dropped[:, None, None], 0)
        return self.out(torch.cat([a, f], -1)) if config.combination == "concat" else self.out(a) + f, after

    def _direct(self, reading: Reading | None) -> Tensor:
        """What is read of the fading memory beside attention (B, T, d_model)."""
        assert reading is not None
        return reading.y if self.observer is None else self.observer.direct(reading.y)

    def _attend(
        self, x: Tensor, reading: Reading | None, state: State, after: State, sequences: Sequences
    ) -> tuple[Tensor, State]:
        """What the softmax reads (B, T, H D), and the attention's state; writes the scores' states into `after`."""
        config, project = self.config, self.project
        assert project is not None
        q, (k, v) = project.query(x), project.key_value(x)
        fading = score = clock = stored = None
        if reading is not None and config.fading_span:
            project = self.project_fading or project
            fading = (q if config.tied else project.query(x), *project.key_value(reading.y))
        if config.capacity:
            score = self._score(x, reading, state, after, sequences)
        if reading is not None and self.decays:
            share = config.decay if self.decay is None else config.decay * (DECAY_SPEED * self.decay.float()).exp()
            clock = share * -reading.log_decay.detach().float().flatten(2).amax(-1)
        if sequences.store is not None:
            assert score is not None
            sequences.store.keep(k, v, score)
            stored = sequences.store.recall(q, sequences)
        y, attention = memory_attention(
            q,
            k,
            v,
            state.get("attention"),
            sequences,
            window=config.window,
            fading=fading,
            span=config.fading_span,
            score=score,
            clock=clock,
            fades=self.decay is not None,
            admit=self.learns,
            exact=self.exact,
            capacity=config.capacity,
            block=config.block_size if config.capacity else max(config.window, 1),
            base=config.rotary_base,
            stored=stored,
            observe=None if self.observer is None else self.observer.attend,
        )
        return y.flatten(2), attention

    def compose(self, states: list[State], lengths: Tensor, how: str) -> State:
        after: State = {}
        for name in ("conv", "admit", "predictor"):
            if name in states[0]:
                after[name] = join([s[name] for s in states], lengths)
        if self.fading is not None:
            after["fading"] = self.fading.compose([s["fading"] for s in states], lengths, how)
        if self.config.attends:
            attention = [s["attention"] for s in states]
            after["attention"] = compose(attention, lengths, self.config.block_size, self.exact)
        return after

    def _score(self, x: Tensor, reading: Reading | None, state: State, after: State, sequences: Sequences) -> Tensor:
        """(B, T) float32; writes the scores' own states into `after`."""
        kind = self.config.score
        score: Tensor | None
        if kind == "learned":
            convolved, after["admit"] = self.admit_conv(x, state.get("admit"), sequences)
            score = self.admit(convolved)[..., 0]
            return score.float()
        if kind in OF_FADING:
            assert reading is not None
            if kind in ("norm", "cosine"):
                score, after["predictor"] = innovation(reading.y, kind, state.get("predictor"), sequences)
            else:
                score = reading.error if kind == "delta" else reading.written
            assert score is not None
            return score.detach()
        position = sequences.position.expand(x.shape[0], -1)
        return random_score(position) if kind == "random" else position.float()
