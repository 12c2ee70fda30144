"""What is measured: a training step, a prefill and a decoded token, of layers and of models, against their peers.

Everything that shares a line of the table is measured in rounds in one process, so that its ratios mean something on a busy machine. All
layers have one width, all models one number of parameters (Mamba-2's peer of transformers: those of Mamba-2 without
MLPs, and ours beside it likewise).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._utils.plugins import load_installed
from ..mixers import MIXERS, MixerConfig, build
from ..mixers.attention import Attention, AttentionConfig
from ..mixers.bmojo import BMojo, BMojoConfig
from ..mixers.gated_deltanet import GatedDeltaNetConfig
from ..mixers.mamba2 import Mamba2Config
from ..model import LanguageModel, ModelConfig, state_tensors
from ..ops.sequence import fresh
from ..presets import PRESETS, grouped, preset
from . import fla, flex
from .measure import Work, can_compile, floors, operations, peak_bytes, side_by_side
from .two_calls import TwoCalls

FLEX, FLA = "sliding_window (FlexAttention)", ("gated_deltanet (fla)", "simple_gla (fla)")
MODELS = ("transformer", "sliding_window", "mamba2", "gated_deltanet", "bmojo_f", "bmojo_published", "bmojo")


@dataclass(frozen=True)
class Sizes:
    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None  # of models; None: as many as n_heads, in bmojo one for four
    window: int = 64
    capacity: int = 64
    state_size: int = 32
    vocab_size: int = 257
    batch: int = 1


@dataclass(frozen=True)
class Row:
    """One thing measured. `floor` is the least time that the operations or the bytes of it could take, seconds."""

    scope: str  # layer or model
    work: str  # train, prefill or decode
    length: int
    name: str
    seconds: float
    fast: float
    slow: float
    ratio: float  # the baseline's seconds by these: how many times as fast as it
    memory: int | None
    floor: float


def rows(
    sizes: Sizes,
    lengths: list[int],
    works: list[str],
    scopes: list[str],
    device: torch.device,
    dtype: torch.dtype,
    seconds: float,
    names: list[str] | None = None,
    compiles: bool = False,
) -> Iterator[Row]:
    """Rows as they are measured; `seconds` is the time for each length of each work. The first name is the baseline.

    `compiles`: everything by `torch.compile`, on an accelerator as recorded graphs, which cost no launches.
    """
    if compiles and not can_compile(device):
        raise ValueError(
            "expected a C++ compiler (g++, c++ or clang++) to compile with on a CPU, found none; install one"
        )
    cases = {"layer": _layers, "model": _models}

    def known() -> set[str]:
        return {name for scope in scopes for name in cases[scope](sizes, device, dtype)}

    if names is not None and not set(names) <= known():
        load_installed()
    if names is not None and not known() & set(names):
        raise ValueError(f"--only: none of {', '.join(names)} is measured; leave it out to see the names")
    speed, bandwidth = floors(device, dtype)
    for scope in scopes:
        for work in works:
            absent = absences(scope, work, device)
            for length in lengths:
                modules = {
                    name: make
                    for name, make in cases[scope](sizes, device, dtype).items()
                    if (names is None or name in names) and name not in absent
                }
                yield from _measured(scope, work, length, modules, sizes, device, seconds, speed, bandwidth, compiles)


def absences(scope: str, work: str, device: torch.device) -> dict[str, str]:
    """The peers that cannot do this work on this device, and why."""
    if scope != "layer":
        return {}
    if work == "decode":
        return dict.fromkeys((FLEX, *FLA), "measured without a state, from which decoding goes on")
    reasons = {FLEX: flex.refusal(work, device)} | dict.fromkeys(FLA, fla.refusal(work, device))
    return {name: reason for name, reason in reasons.items() if reason}


def _measured(
    scope: str,
    work: str,
    length: int,
    modules: dict[str, Callable[[], nn.Module]],
    sizes: Sizes,
    device: torch.device,
    seconds: float,
    speed: float,
    bandwidth: float,
    compiles: bool,
) -> Iterator[Row]:
    prepared: dict[str, tuple[Work, float]] = {}
    for name, make in modules.items():
        module = make()
        if work != "decode" or hasattr(module, "init_state"):  # a peer without it has no state to go on from
            run, moved = _work(scope, work, module, length, sizes, device)
            prepared[name] = run, max(operations(run) / speed, moved / bandwidth)
            if compiles:
                module.compile(dynamic=False, mode=None if device.type == "cpu" else "reduce-overhead")
                for _ in range(3):  # compiles, records, and the first to run what was recorded
                    run()
    if not prepared:
        return
    runs = {name: run for name, (run, _) in prepared.items()}
    times = side_by_side(runs, device, seconds)
    baseline = times[next(iter(times))].median
    for name, (run, least) in prepared.items():
        memory = peak_bytes(run, device) if work == "train" else None
        low, high = times[name].spread
        yield Row(
            scope, work, length, name, times[name].median, low, high, baseline / times[name].median, memory, least
        )


def _work(scope: str, work: str, module: Any, length: int, sizes: Sizes, device: torch.device) -> tuple[Work, int]:
    """What to run, and the bytes that it cannot but move: parameters, inputs and outputs, and the state."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    width = next(p for p in module.parameters() if p.dim() > 1)
    shape = (sizes.batch, 1 if work == "decode" else length)
    if scope == "model":
        inputs = torch.randint(sizes.vocab_size, shape, device=device)
        targets = torch.randint(sizes.vocab_size, shape, device=device)
        passing = 0
    else:
        inputs = torch.randn(*shape, sizes.d_model, device=device, dtype=width.dtype)
        targets, passing = torch.randn_like(inputs), 2 * inputs.numel() * inputs.element_size()
    if work == "decode":
        state = module.init_state(sizes.batch, length, device, width.dtype)
        if scope == "model":
            state["position"].fill_(length)
        held = sum(t.numel() * t.element_size() for _, t in state_tensors(state))
        return torch.inference_mode()(lambda: _call(scope, module, inputs, state, length)), weights + 2 * held + passing
    if work == "prefill":
        return torch.inference_mode()(lambda: _call(scope, module, inputs, None, 0)), weights + passing
    inputs = inputs.requires_grad_() if scope == "layer" else inputs

    def step() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        y = _call(scope, module, inputs, None, 0)
        if scope == "model":
            cross_entropy(y.flatten(0, 1).float(), targets.flatten()).backward()
        else:
            y.backward(targets)

    return step, 3 * weights + 2 * passing


def _call(scope: str, module: Any, inputs: Tensor, state: Any, before: int) -> Tensor:
    if isinstance(module, LanguageModel):
        return module(inputs, state)[0]
    if scope == "model":
        return module(inputs)
    if not (hasattr(module, "init_state") or isinstance(module, (TwoCalls, flex.FlexWindow))):
        return module(inputs)
    sequences = fresh(inputs.shape[0], inputs.shape[1], inputs.device)
    if state is not None:
        sequences = replace(sequences, position=sequences.position + before, end=sequences.end + before, aligned=False)
    return module(inputs, state, sequences)[0]


def _layers(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], nn.Module]]:
    head = sizes.d_model // sizes.n_heads
    fading = Mamba2Config(sizes.state_size, head_dim=head, expand=1)
    mamba2 = Mamba2Config(sizes.state_size, head_dim=head)
    window = AttentionConfig(sizes.n_heads, window=sizes.window)
    delta = GatedDeltaNetConfig(sizes.n_heads, key_dim=sizes.state_size, value_dim=2 * head)
    bmojo_f = BMojoConfig(fading, window=sizes.window, capacity=0, n_heads=sizes.n_heads, readout="softmax")
    configs: dict[str, MixerConfig] = {
        "attention": AttentionConfig(sizes.n_heads),
        "sliding_window": window,
        "mamba2": mamba2,
        "gated_deltanet": delta,
        "bmojo_f": bmojo_f,
        "bmojo_published": replace(bmojo_f, capacity=sizes.capacity, slot_decay=0),
        "bmojo": replace(
            bmojo_f, fading=mamba2, capacity=sizes.capacity, readout="direct", n_kv_heads=grouped(sizes.n_heads)
        ),
    }

    def ours(config: MixerConfig) -> Callable[[], nn.Module]:
        return lambda: build(config, sizes.d_model).to(device, dtype)

    def theirs() -> nn.Module:
        from .huggingface import mamba2_layer

        return mamba2_layer(mamba2, sizes.d_model).to(device, dtype)

    made = {name: ours(config) for name, config in configs.items()}
    made |= {name: ours(MIXERS[name].Config()) for name in MIXERS.added if name not in made}
    made[FLEX] = lambda: flex.FlexWindow(Attention(sizes.d_model, window).to(device, dtype))
    made[FLA[0]] = lambda: fla.gated_deltanet_layer(delta, sizes.d_model).to(device, dtype)
    made[FLA[1]] = lambda: fla.simple_gla_layer(delta, sizes.d_model).to(device, dtype)
    made["bmojo_f (two calls)"] = lambda: TwoCalls(BMojo(sizes.d_model, bmojo_f).to(device, dtype))
    made["mamba2 (transformers)"] = theirs
    return made


def _models(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], nn.Module]]:
    dials = {name: value for name, value in asdict(sizes).items() if name != "batch"}
    bare = ModelConfig(
        sizes.vocab_size,
        sizes.d_model,
        (Mamba2Config(sizes.state_size, head_dim=sizes.d_model // sizes.n_heads),) * sizes.n_layers,
        d_ff=0,
        tie_embeddings=False,
    )

    def ours(config: ModelConfig) -> Callable[[], nn.Module]:
        return lambda: LanguageModel(config).to(device, dtype)

    def theirs() -> nn.Module:
        from .huggingface import mamba2_model

        return mamba2_model(bare).to(device, dtype)

    made = {name: ours(preset(name, **dials)) for name in (*MODELS, *PRESETS.added)}
    return made | {"mamba2, no MLP": ours(bare), "mamba2, no MLP (transformers)": theirs}


__all__ = ["MODELS", "Row", "Sizes", "absences", "rows"]
