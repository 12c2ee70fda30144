"""All probes of one model on one text, as plain numbers: what `solomonic probe` writes to probe.json.

B, T, H as everywhere; nats are of the natural logarithm, bits of the binary one.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..mixers import Mixer
from ..mixers.bmojo import BMojo
from ..model import LanguageModel, State
from ..ops.sequence import Sequences
from .gramian import SHARE, frozen_horizon, gramians, horizon
from .system import fit
from .watch import MEMORIES, Scan, clamp, memories, watch

CHUNK = 512
"""Tokens a call; the state carries the rest."""
BLOCK = 128
"""Tokens over which losses are averaged before their spread is taken: neighbours are not independent."""
LEFT = {"1/e": math.exp(-1), "1 %": 0.01}
GRAMIAN_TOKENS = 2048
PROMPT = 64
LEAST = 2048
"""Tokens of the shortest text: what a fit with the default lags and directions takes."""

Report = Callable[[int], None]


def fading_memory(mixer: Mixer) -> Mixer | None:
    """The mixer's fading memory: itself, what a B'MOJO layer has, or None."""
    if isinstance(mixer, BMojo):
        return mixer.fading
    return mixer if mixer.is_fading else None


def in_softmax(mixer: Mixer) -> list[str]:
    """The memories that a layer's softmax runs over; a fading memory that is read directly is not among them."""
    if not isinstance(mixer, BMojo):
        return ["window"]
    config = mixer.config
    has = (config.window, config.fading_span, config.capacity)
    return [name for name, size in zip(MEMORIES, has, strict=True) if size]


def work(model: LanguageModel, length: int, generate: int = 64) -> int:
    """Calls of the model that `study` will report for a text of `length`: one of a token takes about as long as of CHUNK."""
    kept, text, scored = (-(-tokens // CHUNK) for tokens in (min(length, GRAMIAN_TOKENS), length, length - 1))
    count = sum(map(len, memories(model).values()))
    generated = -(-(length // 2) // CHUNK) + (1 + 4 * count) * generate if count else 0
    return kept + text + (1 + len(_plan(model))) * scored + generated


@torch.no_grad()
def study(
    model: LanguageModel,
    tokens: np.ndarray,
    generate: int = 64,
    directions: int = 8,
    report: Report = lambda calls: None,
) -> dict[str, Any]:
    """Every number of `fading`, `systems`, `attention`, `ablations` and `interventions` on tokens (T,), T >= LEAST.

    `report` receives the number of calls of the model as they are made. ValueError for a text that is too short.
    """
    text = torch.as_tensor(np.asarray(tokens, np.int64), device=model.device)[None]
    if text.shape[1] < LEAST:
        raise ValueError(f"expected a text of {LEAST} tokens or more, got {text.shape[1]}")
    mixers = [block.mixer for block in model.blocks]
    results: dict[str, Any] = {
        "tokens": text.shape[1],
        "vocabulary": model.config.vocab_size,
        "layers": [mixer.config.name for mixer in mixers],
        "sizes": [{name: getattr(mixer.config, name, None) for name in ("window", "capacity")} for mixer in mixers],
    }
    results["fading"] = fading(model, text[:, :GRAMIAN_TOKENS], report)
    results["systems"] = systems(model, text, directions, report)
    results |= ablations(model, text, report)
    results["interventions"] = interventions(model, text, generate, report) if memories(model) else []
    results["before"] = text[0, : text.shape[1] // 2][-PROMPT:].tolist()  # the end of what it generates after
    return results


def fading(model: LanguageModel, text: Tensor, report: Report = lambda calls: None) -> list[dict[str, Any]]:
    """By layer with a fading memory, for each head: decay, horizons in tokens, Hankel singular values and order."""
    with watch(model) as seen:
        inputs = layer_inputs(model, text, report)
    entries = []
    for layer, calls in sorted(seen.scans.items()):
        names = [name for name, x in vars(calls[0]).items() if x is not None]
        scan = Scan(**{name: torch.cat([getattr(call, name) for call in calls]).cpu() for name in names})
        mixer = fading_memory(model.blocks[layer].mixer)
        assert mixer is not None  # whose scan was seen
        g = gramians(scan)
        entry = {
            "layer": layer,
            "memory": mixer.config.name,
            "states": scan.k.shape[2],
            "values": scan.v.shape[2],
            "mean_decay": scan.head_decay.double().mean(0).exp().tolist(),
            "horizon": {name: _median(horizon(scan.head_decay, left)) for name, left in LEFT.items()},
            "horizon_frozen": {name: frozen_horizon(scan.head_decay, left).tolist() for name, left in LEFT.items()},
            "hankel": (g.hankel / g.hankel.sum(-1, keepdim=True).clamp_min(1e-30)).mean(0).tolist(),
            "order": g.orders().double().quantile(0.5, 0, interpolation="lower").tolist(),
            "controllability_rank": _rank(g.controllability),
            "observability_rank": _rank(g.observability),
            "share": SHARE,
            "impulse": impulse(mixer, inputs[layer]),
        }
        if mixer.config.name == "gated_kalmanet":  # what reads U is q after the solver, which differs from q
            entry |= {"hankel": None, "order": None, "observability_rank": None}
        entries.append(entry)
    return entries


def impulse(mixer: Mixer, x: Tensor, at: int = 64, seed: int = 0) -> dict[str, Any]:
    """What is left of a change of the state before row `at`, by lag and head, from two runs of the memory itself.

    x (1, T, d_model) is what the memory reads. Size: the norm of the difference over the one that was put in.
    """
    state = mixer(x[:, :at], None, _sequences(x, 0, at))[1]
    noise = torch.Generator().manual_seed(seed)
    name = mixer.fades[-1]
    change = torch.randn(state[name].shape, generator=noise).to(state[name])
    other = state | {name: state[name] + change}
    lags, left, row = [], [], at
    lag = 1
    while at + lag <= x.shape[1]:
        piece, sequences = x[:, row : at + lag], _sequences(x, row, at + lag)
        state, other = mixer(piece, state, sequences)[1], mixer(piece, other, sequences)[1]
        size = (other[name] - state[name]).flatten(2).norm(dim=2) / change.flatten(2).norm(dim=2)
        lags.append(lag)
        left.append(size[0].tolist())
        row, lag = at + lag, 2 * lag
    return {"at": at, "lags": lags, "left": left}


def systems(
    model: LanguageModel, text: Tensor, directions: int = 8, report: Report = lambda calls: None
) -> list[dict[str, Any]]:
    """Each fading memory as a linear system: the share of its outputs' variance that orders 0, 1, 2, 4, ... explain."""
    inputs = layer_inputs(model, text, report)
    entries = []
    for layer, block in enumerate(model.blocks):
        mixer = fading_memory(block.mixer)
        if mixer is None:
            continue
        x, outputs = inputs[layer], []
        state: State | None = None
        for start in range(0, x.shape[1], CHUNK):
            end = min(start + CHUNK, x.shape[1])
            y, state = mixer(x[:, start:end], state, _sequences(x, start, end))
            outputs.append(y[0])
        assert state is not None
        system = fit(x[0].double().cpu().numpy(), torch.cat(outputs).double().cpu().numpy(), directions=directions)
        entries.append(
            {
                "layer": layer,
                "memory": mixer.config.name,
                "states_there": sum(math.prod(t.shape[1:]) for name, t in state.items() if name in mixer.fades),
                "effective": system.effective(),
                "correlated": system.correlated(),
                "explained": {str(order.order): order.explained for order in system.orders},
                "radius": {str(order.order): order.radius for order in system.orders},
                "pulled_in": [order.order for order in system.orders if order.pulled_in],
                "correlations": system.correlations.tolist(),
                "inputs_kept": system.inputs,
                "outputs_kept": system.outputs,
            }
        )
    return entries


def ablations(model: LanguageModel, text: Tensor, report: Report = lambda calls: None) -> dict[str, Any]:
    """The loss in bits a token without each memory of each layer, and without each in all layers; the attention mass.

    Differences are paired, token by token; `error` is their standard error over blocks of BLOCK tokens.
    """
    with watch(model) as seen:
        intact = bits(model, text, report)
    mass = [
        {
            "layer": layer,
            "softmax": in_softmax(model.blocks[layer].mixer),
            "heads": _mass(calls),
            "mean": torch.tensor(_mass(calls)).mean(0).tolist(),
        }
        for layer, calls in sorted(seen.mass.items())
    ]
    rows = []
    for layers, name in _plan(model):
        with watch(model, {layer: {name} for layer in layers}):
            more = bits(model, text, report) - intact
        blocks = more[: len(more) // BLOCK * BLOCK].view(-1, BLOCK).mean(1)
        error = float(blocks.std() / len(blocks) ** 0.5)
        rows.append({"layers": list(layers), "memory": name, "more_bits": float(more.mean()), "error": error})
    return {"bits_per_token": float(intact.mean()), "mass": mass, "ablations": rows, "groups": list(MEMORIES)}


def interventions(
    model: LanguageModel, text: Tensor, length: int = 64, report: Report = lambda calls: None
) -> list[dict[str, Any]]:
    """Generate `length` tokens after the first half of the text, with one memory of a layer taken away or held still.

    `agrees`: tokens that are those of the intact model before the first that is not; `divergence`: nats, the mean over
    the intact model's own tokens of KL(intact, changed). `text` are the tokens.
    """
    prompt = text[:, : text.shape[1] // 2]
    logits, state = _read(model, prompt, report)
    first = logits[:, -1:].argmax(-1)
    intact, reference = _go_on(model, first, state, length)
    report(length)
    entries: list[dict[str, Any]] = [
        {"layer": None, "memory": None, "how": "intact", "agrees": length, "divergence": 0.0, "text": intact}
    ]
    for layer, names in memories(model).items():
        for name in names:
            for how in ("without", "held"):
                without = {layer: {name}} if how == "without" else None
                held = (layer, name) if how == "held" else None
                with watch(model, without):
                    own, _ = _go_on(model, first, state, length, held=held)
                    _, changed = _go_on(model, first, state, length, held=held, forced=intact)
                report(2 * length)
                same = next((i for i, (a, b) in enumerate(zip(intact, own)) if a != b), length)
                kl = (reference.exp() * (reference - changed)).sum(-1).mean()
                entry = {"layer": layer, "memory": name, "how": how, "agrees": same, "divergence": float(kl)}
                entries.append(entry | {"text": own})
    return entries


def layer_inputs(model: LanguageModel, text: Tensor, report: Report = lambda calls: None) -> list[Tensor]:
    """The normed input of each block's mixer, (1, T, d_model). ValueError for activations that are not finite."""
    parts, state = [], None
    for piece in text.split(CHUNK, 1):
        trace: list[Tensor] = []
        last, state = model.hidden(model.embed(piece), state, trace=trace)
        if not all(x.isfinite().all() for x in (*trace, last)):
            raise ValueError(
                "expected finite activations, got NaN or infinity; the model's weights are damaged, or too large"
            )
        parts.append([block.mixer_norm(x) for block, x in zip(model.blocks, trace, strict=True)])
        report(1)
    return [torch.cat(layer, 1) for layer in zip(*parts)]


def bits(model: LanguageModel, text: Tensor, report: Report = lambda calls: None) -> Tensor:
    """text (1, T) -> (T - 1,) float64: bits of each token after the first, read in calls of CHUNK."""
    losses, state = [], None
    for start in range(0, text.shape[1] - 1, CHUNK):
        piece = text[:, start : min(start + CHUNK, text.shape[1] - 1)]
        logits, state = model(piece, state)
        target = text[0, start + 1 : start + 1 + piece.shape[1]]
        losses.append(cross_entropy(logits[0].float(), target, reduction="none").double() / math.log(2))
        report(1)
    return torch.cat(losses).cpu()


def _plan(model: LanguageModel) -> list[tuple[tuple[int, ...], str]]:
    """The ablations: each memory of each layer, then each in all of the layers that have it."""
    by_layer = memories(model)
    everywhere = [(tuple(layer for layer, names in by_layer.items() if name in names), name) for name in MEMORIES]
    single = [((layer,), name) for layer, names in by_layer.items() for name in names]
    return single + [(layers, name) for layers, name in everywhere if len(layers) > 1]


def _read(model: LanguageModel, text: Tensor, report: Report) -> tuple[Tensor, State]:
    state: State | None = None
    for piece in text.split(CHUNK, 1):
        logits, state = model(piece, state)
        report(1)
    assert state is not None
    return logits, state


def _go_on(
    model: LanguageModel,
    token: Tensor,
    state: State,
    length: int,
    held: tuple[int, str] | None = None,
    forced: list[int] | None = None,
) -> tuple[list[int], Tensor]:
    """`length` likeliest tokens, the given one first, or those of `forced`; and the log probabilities after each."""
    tokens, after = [], []
    for i in range(length):
        tokens.append(int(token))
        logits, new = model(token, state)
        state = clamp(state, new, *held) if held else new
        after.append(logits[0, -1].double().log_softmax(-1))
        token = logits[:, -1:].argmax(-1) if forced is None else token.new_tensor([[forced[min(i + 1, length - 1)]]])
    return tokens, torch.stack(after)


def _sequences(x: Tensor, start: int, end: int) -> Sequences:
    position = torch.arange(start, end, device=x.device)[None]
    return Sequences(position, torch.full((x.shape[0],), end, device=x.device), aligned=start == 0)


def _mass(calls: list[Tensor]) -> list[list[float]]:
    """(H, groups): the mean over all tokens."""
    return torch.cat(calls, 1)[0].double().mean(0).tolist()


def _median(x: Tensor) -> list[float | None]:
    """By column; None where it is not reached within the text."""
    middle = x.quantile(0.5, 0, interpolation="lower").tolist()
    return [None if math.isinf(value) else value for value in middle]


def _rank(W: Tensor) -> list[float]:
    """(rows, H, N, N) -> by head, the mean over rows of (sum of eigenvalues)^2 / sum of squares: directions in use."""
    values = torch.linalg.eigvalsh(W).clamp_min(0)
    return (values.sum(-1).square() / values.square().sum(-1).clamp_min(1e-300)).mean(0).tolist()
