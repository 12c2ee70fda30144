"""The comparison: cells (architecture x task x seed x learning rate) that become lines of `results.jsonl`.

A folder holds one comparison: `run.json` (settings, command, versions), `results.jsonl` (a line a finished cell),
`costs.json` (time and state of each architecture against length), `cells/` (checkpoints of cells under way) and
`report.html`. The same command on the same folder goes on where it stopped.
"""

import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._utils import jsontext
from .._utils.files import write
from ..evaluation.tasks import bound, evaluate
from ..model import LanguageModel
from ..ops.memory_attention.state import has_slots, kept_positions, ring_scores, window_and_capacity
from ..presets import preset
from ..tasks import Task, task
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


def build_model(arch: str, run: Run, vocab_size: int, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(preset(arch, vocab_size=vocab_size, **run.dials))


def run_cell(
    cell: Cell,
    run: Run,
    device: torch.device,
    folder: Path,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = warnings.warn,
) -> dict[str, Any]:
    """Train and score one cell; returns its line. A cell that diverges has no scores, and says where.

    A damaged checkpoint is said, and its cell begins again; that of another run is a ValueError, and stays.
    """
    from ..checkpoints.training import Damaged  # takes long to import

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
    scored = {
        "train_seconds": round(done.seconds, 2),
        "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
        "loss": done.curve[-1][1],
        "curve": done.curve,
        "scores": scores(model, problem, run),
    }
    if any(has_slots(layer.get("attention", {})) for layer in model.init_state(1)["layers"]):
        scored["kept"] = kept_tokens(model, problem)
    checkpoint.unlink(missing_ok=True)
    return line | scored


def scores(model: LanguageModel, problem: Task, run: Run) -> list[dict[str, Any]]:
    """One entry a length. Where the task is by position, all lengths are read off one reading of the longest, so that
    they are of the same rows, and entries of growing positions are added. Where the task knows the best predictor, its
    score on those rows stands beside, and the regret: what is lost beyond it."""
    lengths = run.lengths or problem.lengths
    longest = max(lengths)

    def entry(metric: str, values: np.ndarray, known: np.ndarray | None, length: int, **more) -> dict[str, Any]:
        value = float(np.nanmean(values))
        if problem.chance is not None:
            more |= {"chance": problem.chance}
        if known is not None:
            more |= {"bound": float(np.nanmean(known)), "regret": value - float(np.nanmean(known))}
        return {"metric": metric, "value": value, "length": length} | more

    if not problem.by_position:
        found = []
        for length in lengths:
            samples = max(run.least_samples, min(run.samples, run.samples * problem.length // length))
            values = evaluate(model, problem, length, samples)
            known = bound(problem, length, samples)
            sizes = {"state_bytes": model.state_bytes(length), "samples": samples}
            found.append(entry(problem.metric, values, known, length, **sizes))
        return found
    values = evaluate(model, problem, longest, run.samples, batch_size=run.samples)
    known = bound(problem, longest, run.samples, batch_size=run.samples)

    def part(begin: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        return values[begin:end], None if known is None else known[begin:end]

    found = [
        entry(problem.metric, *part(0, n), n, state_bytes=model.state_bytes(n), samples=run.samples) for n in lengths
    ]
    begin = 0
    for position in sorted({min(longest, int(2 ** (i / 2))) for i in range(8, 60)}):
        sizes = {"position": position, "state_bytes": model.state_bytes(longest)}
        found.append(entry(f"{problem.metric}_at", *part(begin, position), longest, **sizes))
        begin = position
    return found


@torch.no_grad()
def kept_tokens(model: LanguageModel, problem: Task) -> dict[str, Any]:
    """Which tokens the eidetic memory of each layer holds when the first question of a held-out example is asked."""
    device = next(model.parameters()).device
    batch = problem.test_batch(1, problem.lengths[0], np.random.default_rng(0))
    asked = int((batch.targets[0] != IGNORE).nonzero()[0])
    tokens = batch.tokens[:, : asked + 1] if asked > problem.lengths[0] // 4 else batch.tokens
    state, seen = None, [[] for _ in model.blocks]
    for token in tokens.to(device).split(1, 1):
        _, state = model(token, state)
        for layer, found in zip(state["layers"], seen):
            if has_slots(layer.get("attention", {})):
                found.append(ring_scores(layer["attention"])[0, -1].item())
    layers, window, capacity = [], 0, 0
    for i, layer in enumerate(state["layers"]):
        if seen[i]:
            window, capacity = window_and_capacity(layer["attention"])
            positions = kept_positions(layer["attention"], state["position"])[0]
            kept = sorted(positions[positions >= 0].tolist())
            layers.append({"layer": i, "kept": kept, "score": [round(x, 4) for x in seen[i]]})
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
    found = []
    for length in lengths:
        tokens = torch.zeros(1, length, dtype=torch.int64, device=device)
        prefill = [_timed(device, lambda: model(tokens)[1]) for _ in range(repeats + 1)][1:]
        state, decode = prefill[-1][1], []
        for _ in range(8 * repeats):
            seconds, state = _timed(device, lambda: model(tokens[:, :1], state)[1])
            decode.append(seconds)
        us = {
            "prefill_us_per_token": round(statistics.median(seconds for seconds, _ in prefill) / length * 1e6, 3),
            "decode_us_per_token": round(statistics.median(decode[repeats:]) * 1e6, 3),
        }
        found.append({"length": length, "state_bytes": model.state_bytes(length)} | us)
    return found


def _timed(device: torch.device, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds a call takes, and its result."""
    begin = time.perf_counter()
    result = call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - begin, result


def settings_of(suite: Suite, device: str, tasks: dict[str, str] | None = None) -> dict[str, Any]:
    """What must be the same for results to stand in one folder; architectures and seeds may be added."""
    runs = {name: asdict(run) for name, run in suite.runs.items()}
    return json.loads(json.dumps({"suite": suite.name, "device": device, "runs": runs, "tasks": tasks or {}}))


def digest(problem: Task) -> str:
    """Of all that the task draws from, the text of a file among it."""
    return jsontext.digest(of_task(problem))


def open_folder(
    folder: Path, suite: Suite, device: str, command: str, tasks: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Make or check the folder of a comparison, write `run.json`, and return the lines it has already.

    tasks: the digest of each run's task. Raises ValueError when the folder holds results of other settings or data.
    """
    settings = settings_of(suite, device, tasks)
    about, results = folder / "run.json", folder / "results.jsonl"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, {folder} is a file")
    lines = read_lines(results)
    if about.exists():
        earlier = _settings_in(about)
        for name, run in settings["runs"].items():
            before = earlier.get("runs", {}).get(name)
            if (
                (before is not None and before != run)
                or earlier.get("device") != device
                or earlier.get("suite") != suite.name
            ):
                raise ValueError(
                    f"{folder} holds results of another configuration (suite {earlier.get('suite')!r} on "
                    f"{earlier.get('device')!r}); choose another --out, or delete that folder"
                )
        known = earlier.get("tasks", {})
        for name, now in settings["tasks"].items():
            if known.get(name, now) != now:
                raise ValueError(
                    f"{folder} holds results of {name} on other data than there is now; choose another --out, or bring "
                    "the data back"
                )
        settings["runs"] = earlier["runs"] | settings["runs"]
        settings["tasks"] = known | settings["tasks"]
    elif results.exists():
        raise ValueError(f"{folder} has results but no run.json that says of what; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write(about, json.dumps(describe(suite, device, command) | {"settings": settings}, indent=1))
    _put_aside(results)
    return lines


def _settings_in(about: Path) -> dict[str, Any]:
    try:
        settings = jsontext.read(about, dict)["settings"]
        if isinstance(settings["runs"], dict) and isinstance(settings.get("tasks", {}), dict):
            return settings
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(
        f"{about}: expected the settings of a comparison, got a file that is damaged; use a copy of it, or another --out"
    )


def describe(suite: Suite, device: str, command: str) -> dict[str, Any]:
    from .. import __version__

    return {
        "command": command,
        "suite": suite.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "threads": torch.get_num_threads(),
        "cells": len(cells_of(suite)),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {
            "solomonic": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def read_lines(results: Path) -> list[dict[str, Any]]:
    """The sound lines of a file of JSON lines: whole, and with the digest that they were written with."""
    return [line for line in map(_cell_line, _texts(results)) if line is not None]


def sound(text: str) -> dict[str, Any] | None:
    """The object of a line, None where it is none, or has changed since it was written."""
    try:
        line = jsontext.parse(text, "line", dict, infinite=True)
        seal = line.pop("digest", None)  # lines of an earlier version have none
        return line if seal in (None, jsontext.digest(line)) else None
    except ValueError:
        return None


def _cell_line(text: str) -> dict[str, Any] | None:
    line = sound(text)
    return line if line is not None and {f.name for f in fields(Cell)} <= line.keys() else None


def append_line(results: Path, line: dict[str, Any]) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"digest": jsontext.digest(line)}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _put_aside(results: Path) -> None:
    """Damaged lines go to a file beside, with a word: their cells are trained again."""
    texts = _texts(results)
    damaged = [text for text in texts if _cell_line(text) is None]
    if not damaged:
        return
    aside = results.with_name("results.damaged")
    print(
        f"solomonic: {results}: {len(damaged)} damaged line{'s' * (len(damaged) > 1)}, now in {aside.name}; what is "
        "missing is trained again",
        file=sys.stderr,
    )
    for path, lines in ((aside, _texts(aside) + damaged), (results, [text for text in texts if text not in damaged])):
        write(path, "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))


def _texts(results: Path) -> list[str]:
    text = results.read_text(encoding="utf-8", errors="surrogateescape") if results.exists() else ""
    return [line for line in text.split("\n") if line.strip()]


def cell_of(line: dict[str, Any]) -> Cell:
    return Cell(line["arch"], line["task"], line["seed"], line["lr"])
