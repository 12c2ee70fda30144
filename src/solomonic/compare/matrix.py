"""The cells of a comparison, architecture x task x seed x learning rate: how each is trained, scored and timed."""

import math
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._utils import jsontext
from ..bench.measure import timed
from ..evaluation.tasks import cut, held_out, read
from ..model import LanguageModel
from ..ops.memory_attention.state import has_slots, kept_positions, ring_scores, window_and_capacity
from ..presets import preset
from ..tasks import Task, task
from ..tasks.base import IGNORE, Batch
from ..training.config import TrainConfig
from ..training.history import Diverged
from ..training.identity import of_task
from ..training.tasks import fit
from .statistics import by_unit, ratio
from .suites import Run, Suite

VERSION = 2  # of a line; 1, which said none, had other held-out text, and no sums
TEXT = 200 * 1024  # tokens of held-out text that are scored at every length, where there are so many


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

    A cell that diverges has no scores and no model, and says where. A damaged checkpoint gives a warning, and its cell
    begins again; one of another run is a ValueError, and stays.
    """
    from ..checkpoints.training import Damaged  # these take long to import
    from .models import keep_model

    problem = build_task(run)
    model = build_model(cell.arch, run, problem.vocab_size, cell.seed).to(device)
    config = TrainConfig(run.steps, run.batch_size, cell.lr, cell.seed, **run.train)
    checkpoint = folder / "cells" / f"{cell.key}.safetensors"
    line: dict[str, Any] = asdict(cell) | {
        "version": VERSION,
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
    entries, documents = scores(model, problem, run)
    scored = {
        "train_seconds": round(done.seconds, 2),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        "loss": done.curve[-1][1],
        "curve": done.curve,
        "scores": entries,
    }
    if documents:
        scored["documents"] = documents
    if any(has_slots(layer.get("attention", {})) for layer in model.init_state(1)["layers"]):
        scored["kept"] = kept_tokens(model, problem)
    keep_model(folder / "models" / cell.key, model, problem, run, line | scored)
    checkpoint.unlink(missing_ok=True)
    return line | scored


def scores(model: LanguageModel, problem: Task, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """One entry a length, and the names of the documents that the entries' sums are of, none where rows are drawn.

    A task with documents reads the same text at every length, `TEXT` tokens or more where it has so many: in rows of the
    longest, and cut into rows of each other length. Where another task is by position, all lengths are read off one
    reading of the longest, so that they are of the same rows. Entries of growing positions of the longest are added to
    both. Where the task knows the best predictor, its score on those rows stands beside, and the regret: what is lost
    beyond it.
    """
    lengths = run.lengths or problem.lengths
    longest = max(lengths)

    def entry(values: np.ndarray, batch: Batch, length: int, begin: int, end: int, suffix: str = "") -> dict[str, Any]:
        part = slice(begin, end)
        sums, counts, _ = by_unit(values[:, part], None if batch.documents is None else batch.documents.numpy())
        value, error = ratio(sums, counts)
        made = {"metric": problem.metric + suffix, "value": value, "standard_error": error, "length": length}
        if suffix:
            made["position"] = end
        if problem.chance is not None:
            made["chance"] = problem.chance
        if batch.bound is not None:
            known = float(np.nanmean(batch.bound[:, part].double().numpy()))
            made |= {"bound": known, "regret": value - known}
        made |= {"state_bytes": model.state_bytes(length), "samples": len(values), "count": int(counts.sum())}
        return made | {"sums": [_short(x) for x in sums.tolist()], "counts": _one(counts.tolist())}

    if not problem.by_position:
        entries = []
        for length in lengths:
            samples = max(run.least_samples, min(run.samples, run.samples * problem.length // length))
            batch = held_out(problem, length, samples)
            entries.append(entry(read(model, problem, batch), batch, length, 0, length))
        return entries, []
    samples = run.samples if problem.held_out_rows(longest) is None else max(run.samples, math.ceil(TEXT / longest))
    whole = held_out(problem, longest, samples, batch_size=samples)
    values = read(model, problem, whole)
    entries, documents = [], []
    for n in lengths:
        if whole.documents is None or n == longest:
            entries.append(entry(values, whole, n, 0, n))
        else:
            batch = cut(whole, n)
            entries.append(entry(read(model, problem, batch), batch, n, 0, n))
    if whole.documents is not None:
        documents = [problem.document(index) for index in whole.documents.unique().tolist()]
    begin = 0
    for position in sorted({min(longest, int(2 ** (i / 2))) for i in range(8, 60)}):
        entries.append(entry(values, whole, longest, begin, position, "_at"))
        begin = position
    return entries, documents


def _short(number: float) -> float:
    """To four digits after the point; a whole number as such."""
    return int(number) if number.is_integer() else round(number, 4)


def _one(counts: list[int]) -> int | list[int]:
    """The number itself where all are the same."""
    return counts[0] if len(set(counts)) == 1 else counts


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
