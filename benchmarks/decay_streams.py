"""The streams that benchmarks/decay.py reads, and the models that it trains to read them."""

import csv
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from solomonic import LanguageModel, preset
from solomonic.tasks.base import Batch, Task
from solomonic.training.config import TrainConfig
from solomonic.training.tasks import fit

BLOCK = 16  # of the models: their window, and an entry of the store
TRAINED_AT = 256


@dataclass
class Stream:
    """tokens (N,). regime (N,): which source each is of. best (N,): nats of one who knows the source, where known."""

    name: str
    tokens: np.ndarray
    regime: np.ndarray
    best: np.ndarray | None = None

    def parts(self, near: int) -> dict[str, np.ndarray]:
        """Masks (N,): the `near` tokens after each switch to a source not seen before, and to one that was; others."""
        at = np.flatnonzero(np.diff(self.regime)) + 1
        seen, new, back = {self.regime[0]}, np.zeros(len(self.tokens), bool), np.zeros(len(self.tokens), bool)
        for begin, end in zip(at, [*at[1:], len(self.tokens)]):
            (back if self.regime[begin] in seen else new)[begin : min(begin + near, end)] = True
            seen.add(self.regime[begin])
        return {"all": np.ones_like(new), "new": new, "back": back, "rest": ~new & ~back}


SYMBOLS = 16
SUCCESSORS = np.array([0.7, 0.2, 0.1])


def chains(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 16, 16): each symbol has three likely successors, and in a twentieth of cases any."""
    table = np.full((count, SYMBOLS, SYMBOLS), 0.05 / SYMBOLS)
    for chain in table:
        for row in chain:
            row[rng.choice(SYMBOLS, 3, replace=False)] += 0.95 * SUCCESSORS
    return table


def walk(table: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """table (B, S, V, V), source (B, T) in [0, S) -> tokens (B, T), and their nats given the source."""
    rows, length = source.shape
    tokens, nats, now = np.zeros((rows, length), np.int64), np.zeros((rows, length)), np.zeros(rows, np.int64)
    each = np.arange(rows)
    for t in range(length):
        p = table[each, source[:, t], now]
        now = (p.cumsum(1) < rng.random((rows, 1))).sum(1).clip(max=SYMBOLS - 1)
        tokens[:, t], nats[:, t] = now, -np.log(p[each, now])
    return tokens, nats


def regimes(count: int, lengths: tuple[int, int], sources: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) in [0, sources): stretches of random length (log-uniform), each of another source than the last."""
    regime, last = [], -1
    while len(regime) < count:
        last = int(rng.choice([s for s in range(sources) if s != last]))
        regime += [last] * int(np.exp(rng.uniform(*np.log(lengths))))
    return np.array(regime[:count])


def markov_stream(seed: int, count: int) -> Stream:
    rng = np.random.default_rng([7, seed])
    regime = regimes(count, (100, 800), 4, rng)
    tokens, best = walk(chains(4, rng)[None], regime[None], rng)
    return Stream(f"markov {seed}", tokens[0], regime, best[0])


class Rows(Task):
    """Rows that `draw` makes, (size, length) tokens, to be predicted."""

    summary, lengths = "rows of a stream", (TRAINED_AT,)

    def __init__(self, name: str, vocab_size: int, draw):
        self.name, self.vocab_size, self.length, self.draw = name, vocab_size, TRAINED_AT, draw

    def train_batch(self, size, rng, progress=1.0):
        tokens = torch.from_numpy(self.draw(size, self.length + 1, rng))
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def test_batch(self, size, length, rng):
        return self.train_batch(size, rng)


def markov_rows(size: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the rows are of one chain, half switch to another one and come back."""
    table = chains(2 * size, rng).reshape(size, 2, SYMBOLS, SYMBOLS)
    cut = np.sort(rng.integers(length, size=(size, 2)), 1)
    cut[rng.random(size) < 0.5] = length
    t = np.arange(length)
    return walk(table, ((t >= cut[:, :1]) & (t < cut[:, 1:])).astype(int), rng)[0]


LEVELS = 32
SHARE = 0.15  # of a series: what its levels are of, and what is trained on


def series(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, levels, regime) of each series, at most 10,400 samples: regime 0, and 1, 2, ... in its labelled windows."""
    windows = json.loads((folder / "nab_windows.json").read_text())
    parts = []
    for path in sorted(folder.glob("*.csv")):
        labelled = next(spans for name, spans in windows.items() if name.endswith("/" + path.name))
        with path.open() as file:
            rows = list(csv.DictReader(file))
        when, value = [row["timestamp"] for row in rows], np.array([float(row["value"]) for row in rows])
        step = -(-len(value) // 10_400)
        value, when = value[::step], when[::step]
        edges = np.unique(np.quantile(value[: int(SHARE * len(value))], np.arange(1, LEVELS) / LEVELS))
        regime = np.zeros(len(value), np.int64)
        for i, (begin, end) in enumerate(labelled, 1):
            regime[[begin <= t + ".000000" <= end for t in when]] = i
        parts.append((path.stem, np.searchsorted(edges, value), regime))
    return parts


def waves(size: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Levels of made series: a wave, an autoregression about it, and a stretch in which both are others."""
    t = np.arange(length)
    rows = []
    for _ in range(size):
        sides = []
        for _ in range(2):
            wave = rng.normal(size=2) @ np.sin(
                2 * np.pi * (t / np.exp(rng.uniform(2, 5.8, (2, 1))) + rng.random((2, 1)))
            )
            noise, x, a, size_ = rng.normal(size=length), 0.0, rng.uniform(0, 0.98), np.exp(rng.uniform(-4, 0))
            kept = [x := a * x + size_ * n for n in noise]
            sides.append(wave + np.array(kept) + rng.normal())
        begin, end = np.sort(rng.integers(length, size=2)) if rng.random() < 0.5 else (length, length)
        x = np.where((t >= begin) & (t < end), sides[1], sides[0])
        rows.append(np.searchsorted(np.quantile(sides[0], np.arange(1, LEVELS) / LEVELS), x))
    return np.array(rows)


def series_rows(parts: list[np.ndarray]):
    def draw(size: int, length: int, rng: np.random.Generator) -> np.ndarray:
        rows = waves(size // 2, length, rng)
        for _ in range(size - len(rows)):
            part = parts[int(rng.integers(len(parts)))]
            begin = int(rng.integers(len(part) - length))
            rows = np.concatenate([rows, part[None, begin : begin + length]])
        return rows

    return draw


def text_stream(parts: list[np.ndarray], seed: int, count: int) -> Stream:
    """Each text goes on where it stopped, from a place drawn at random."""
    rng = np.random.default_rng([8, seed])
    regime = regimes(count, (500, 2500), len(parts), rng)
    tokens = np.zeros(count, np.int64)
    for source, part in enumerate(parts):
        of_source = regime == source
        begin = int(rng.integers(len(part) - count))
        tokens[of_source] = part[begin : begin + of_source.sum()]
    return Stream(f"text {seed}", tokens, regime)


def trained(task: Rows, steps: int, batch: int, lr: float, width: int = 48) -> LanguageModel:
    """Trained with slots for all of a row, as the store gives them; then 16."""
    torch.manual_seed(0)
    config = preset(
        "bmojo", vocab_size=task.vocab_size, d_model=width, window=BLOCK, capacity=TRAINED_AT - BLOCK, conv=4
    )
    first, last = (
        config.layers
    )  # with a short convolution, the first could look up alone what the store has of the last
    config = replace(config, layers=(replace(first, capacity=0), last))
    model, began = LanguageModel(config), time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % (10 * max(1, steps // 100)) == 0:
            print(f"{task.name}: step {step} of {steps}, loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)

    fit(
        model,
        task,
        TrainConfig(steps, batch, lr, fading_dropout=1.0),
        Path("runs/decay") / f"{task.name}.pt",
        report,
        save_every=0,
    )
    first, last = config.layers
    small = LanguageModel(replace(config, layers=(first, replace(last, capacity=16))))
    small.load_state_dict(model.state_dict())
    return small.eval()
