"""The cells of a comparison, architecture x task x seed x learning rate: how each is trained, scored and timed."""

import shlex
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._utils import jsontext
from .._utils.spelling import counted
from ..bench.measure import timed
from ..data.tokenizer import Tokenizer
from ..evaluation.tasks import bound, evaluate
from ..model import LanguageModel
from ..ops.memory_attention.state import has_slots, kept_positions, ring_scores, window_and_capacity
from ..presets import preset
from ..tasks import Task, task
from ..tasks import options as options_of
from ..tasks.base import IGNORE
from ..training.config import TrainConfig
from ..training.history import Diverged
from ..training.identity import of_task
from ..training.tasks import fit
from .suites import Run, Suite


@dataclass(frozen=True)
class Cell:
    arch: str
    task: str  # a run of the suite
    seed: int
    lr: float

    @property
    def key(self) -> str:
        return f"{self.arch}-{self.task}-{self.seed}-{self.lr:g}"


def cells_of(suite: Suite) -> list[Cell]:
    """In the order they are run: one seed of everything, then the next."""
    return [
        Cell(arch, name, seed, lr)
        for seed in range(suite.seeds)
        for name, run in suite.runs.items()
        for arch in suite.archs
        for lr in run.rates(arch)
    ]


def build_task(run: Run) -> Task:
    return task(run.task, **run.options)


def check_task(run: Run) -> Task:
    """The task, of which a row at every test length has been drawn. ValueError where there is none."""
    problem = build_task(run)
    for length in run.lengths or problem.lengths:
        problem.test_batch(1, length, np.random.default_rng(0))
    return problem


def build_model(arch: str, run: Run, vocab_size: int, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    dials = run.dials | {"name": arch} | run.archs.get(arch, {})
    return LanguageModel(preset(vocab_size=vocab_size, **dials))


def run_cell(
    cell: Cell,
    run: Run,
    device: torch.device,
    folder: Path,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = warnings.warn,
) -> dict[str, Any]:
    """Train and score one cell, keep its model in `models/KEY`, and return its line.

    A cell that diverges has no scores and no model, and says where. A damaged checkpoint gives a warning, and its cell begins again; one of another run is a ValueError, and stays.
    """
    from ..checkpoints.folder import save  # these take long to import
    from ..checkpoints.training import Damaged

    problem = build_task(run)
    model = build_model(cell.arch, run, problem.vocab_size, cell.seed).to(device)
    config = TrainConfig(run.steps, run.batch_size, cell.lr, cell.seed, **run.train)
    checkpoint = folder / "cells" / f"{cell.key}.safetensors"
    line = asdict(cell) | {
        "params": sum(p.numel() for p in model.parameters()),
        "steps": run.steps,
        "train_length": problem.length,
        "metric": problem.metric,
        "config": model.config.to_dict(),
    }
    try:
        try:
            done = fit(model, problem, config, checkpoint, report, stop)
        except Damaged as error:
            warn(f"{error}; its cell begins again")
            checkpoint.unlink()
            done = fit(model, problem, config, checkpoint, report, stop)
    except Diverged as error:
        return line | {"train_seconds": 0.0, "tokens_per_second": 0.0, "scores": [], "diverged": str(error)}
    assert done.curve  # at least one step was taken
    scored = {
        "train_seconds": round(done.seconds, 2),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        "loss": done.curve[-1][1],
        "curve": done.curve,
        "scores": scores(model, problem, run),
    }
    if any(has_slots(layer.get("attention", {})) for layer in model.init_state(1)["layers"]):
        scored["kept"] = kept_tokens(model, problem)
    save(folder / "models" / cell.key, model, tokenizer_of(problem), card(cell, run, problem, line | scored))
    checkpoint.unlink(missing_ok=True)
    return line | scored


def tokenizer_of(problem: Task) -> Tokenizer:
    """The tokens of a task as text: bytes, or the labels of its tokens with spaces between."""
    if problem.vocab_size == 256 and problem.name == "text":
        return Tokenizer.for_bytes(end=False)
    return Tokenizer.for_words([problem.label(token) for token in range(problem.vocab_size)])


def card(cell: Cell, run: Run, problem: Task, line: dict[str, Any]) -> str:
    """The model card of a cell's model."""
    scored = "".join(
        f"| {score['length']:,} | {score['value']:.4f} |\n" for score in line["scores"] if "position" not in score
    )
    usual = options_of(run.task)
    options = ",".join(f"{name}={value!r}" for name, value in run.options.items() if value != usual[name])
    named = shlex.quote(f"{run.task}:{options}") if options else run.task
    return f"""---
library_name: solomonic
---

# {cell.arch} on {cell.task}

{line["params"]:,} parameters, trained on the task `{run.task}` ({problem.summary}) for {counted(run.steps, "step")} of
{run.batch_size} rows of {problem.length:,} tokens at most, learning rate {cell.lr:g}, seed {cell.seed}, as one cell of a comparison.

| length | {problem.metric.replace("_", " ")} |
|---|---|
{scored}
    solomonic eval FOLDER --task {named}
"""


def scores(model: LanguageModel, problem: Task, run: Run) -> list[dict[str, Any]]:
    """One entry a length. Where the task is by position, all lengths are read off one reading of the longest, so that
    they are of the same rows, and entries of growing positions are added. Where the task knows the best predictor, its
    score on those rows stands beside, and the regret: what is lost beyond it."""
    lengths = run.lengths or problem.lengths
    longest = max(lengths)

    def entry(metric: str, values: np.ndarray, known: np.ndarray | None, length: int, **more: Any) -> dict[str, Any]:
        value = float(np.nanmean(values))
        if problem.chance is not None:
            more |= {"chance": problem.chance}
        if known is not None:
            more |= {"bound": float(np.nanmean(known)), "regret": value - float(np.nanmean(known))}
        return {"metric": metric, "value": value, "length": length} | more

    entries = []
    if not problem.by_position:
        for length in lengths:
            samples = max(run.least_samples, min(run.samples, run.samples * problem.length // length))
            values = evaluate(model, problem, length, samples)
            known = bound(problem, length, samples)
            size = model.state_bytes(length)
            entries.append(entry(problem.metric, values, known, length, state_bytes=size, samples=samples))
        return entries
    values = evaluate(model, problem, longest, run.samples, batch_size=run.samples)
    known = bound(problem, longest, run.samples, batch_size=run.samples)

    def part(begin: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        return values[begin:end], None if known is None else known[begin:end]

    for n in lengths:
        size = model.state_bytes(n)
        entries.append(entry(problem.metric, *part(0, n), n, state_bytes=size, samples=run.samples))
    begin, size = 0, model.state_bytes(longest)
    for position in sorted({min(longest, int(2 ** (i / 2))) for i in range(8, 60)}):
        at = entry(f"{problem.metric}_at", *part(begin, position), longest, position=position, state_bytes=size)
        entries.append(at)
        begin = position
    return entries


@torch.no_grad()
def kept_tokens(model: LanguageModel, problem: Task) -> dict[str, Any]:
    """Which tokens the eidetic memory of each layer holds when the first question of a held-out example is asked."""
    device = next(model.parameters()).device
    batch = problem.test_batch(1, problem.lengths[0], np.random.default_rng(0))
    asked = int((batch.targets[0] != IGNORE).nonzero()[0])
    tokens = batch.tokens[:, : asked + 1] if asked > problem.lengths[0] // 4 else batch.tokens
    state, scores_of = None, [list[float]() for _ in model.blocks]
    for token in tokens.to(device).split(1, 1):
        _, state = model(token, state)
        for layer, layer_scores in zip(state["layers"], scores_of):
            if has_slots(layer.get("attention", {})):
                layer_scores.append(ring_scores(layer["attention"])[0, -1].item())
    assert state is not None  # a batch has tokens
    layers, window, capacity = [], 0, 0
    for i, layer in enumerate(state["layers"]):
        if scores_of[i]:
            window, capacity = window_and_capacity(layer["attention"])
            positions = kept_positions(layer["attention"], state["position"])[0]
            kept = sorted(positions[positions >= 0].tolist())
            layers.append({"layer": i, "kept": kept, "score": [round(x, 4) for x in scores_of[i]]})
    return {
        "tokens": [problem.label(t) for t in tokens[0].tolist()],
        "window": window,
        "capacity": capacity,
        "marked": [m for m in problem.marks(batch) if m < tokens.shape[1]],
        "layers": layers,
    }


@torch.no_grad()
def costs(
    arch: str, run: Run, lengths: tuple[int, ...], device: torch.device, repeats: int = 5
) -> list[dict[str, Any]]:
    """Microseconds a token of reading `length` tokens at once and of reading one more after them, batch 1; medians.

    Untrained weights: the time does not depend on them.
    """
    model = build_model(arch, run, 64, 0).to(device).eval()
    entries = []
    for length in lengths:
        tokens = torch.zeros(1, length, dtype=torch.int64, device=device)
        prefill = [timed(lambda: model(tokens)[1], device) for _ in range(repeats + 1)][1:]
        state, decode = prefill[-1][1], []
        for _ in range(8 * repeats):
            seconds, state = timed(lambda: model(tokens[:, :1], state)[1], device)
            decode.append(seconds)
        us = {
            "prefill_us_per_token": round(statistics.median(seconds for seconds, _ in prefill) / length * 1e6, 3),
            "decode_us_per_token": round(statistics.median(decode[repeats:]) * 1e6, 3),
        }
        entries.append({"length": length, "state_bytes": model.state_bytes(length)} | us)
    return entries


def digest(problem: Task) -> str:
    """Of all that the task draws from, the text of a file among it."""
    return jsontext.digest(of_task(problem))


def cell_of(line: dict[str, Any]) -> Cell:
    return Cell(line["arch"], line["task"], line["seed"], line["lr"])
