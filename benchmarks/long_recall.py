"""Facts in text, asked for up to a million tokens later, with and without a store.

    python benchmarks/long_recall.py [--data PATH] [--steps N] [--length T] [--combine HOW] [--seed S] [--store URI] [--json FILE]

Text is words (of PATH, or of the Python library's sources), into which facts are written: a name and its number; at
the end the name again asks for the number. Models of one size are trained on rows of 128 tokens at most that hold
up to 16 facts. Then each reads one text of T tokens with 256 facts in it, 40 of them near each distance from the end,
and is asked for those. The B'MOJO models read it once, writing what leaves their windows to the store, and are asked with and
without it: the state, with window and eidetic memory, is the same.
"""

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from command_common import existing, new_file, stop

from solomonic import LanguageModel, preset
from solomonic._utils.files import write
from solomonic.data.corpus import library
from solomonic.memory import open_store
from solomonic.model import map_state
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.schema import store_schema
from solomonic.tasks.base import IGNORE, Batch, Task
from solomonic.training.config import TrainConfig
from solomonic.training.tasks import fit

WORDS, NAMES, NUMBERS = 500, 256, 32
FIRST_NAME = WORDS
FIRST_NUMBER = FIRST_NAME + NAMES
VOCABULARY = FIRST_NUMBER + NUMBERS
ASKED = 40  # facts near each distance
STORED = ("bmojo", "bmojo_published")  # the models that are asked with a store too


def words(data: Path | None) -> np.ndarray:
    """The text as the numbers of its words, the 499 most frequent by rank and 0 for others."""
    files = sorted(data.rglob("*.txt")) if data and data.is_dir() else [data] if data else library()
    if not files:
        stop(f"{data}: expected a folder with files *.txt, got none")
    text = "\n".join(Path(file).read_text(encoding="utf-8", errors="replace") for file in files)
    tokens = re.findall(r"\w+|[^\w\s]", text.lower())
    rank = {word: i for i, (word, _) in enumerate(Counter(tokens).most_common(WORDS - 1), 1)}
    return np.array([rank.get(word, 0) for word in tokens], dtype=np.int64)


class Facts(Task):
    """Rows of text with facts, and the questions at the end; what is scored is the number after the name."""

    name, summary = "facts", "facts in text"
    vocab_size, length, lengths = VOCABULARY, 128, (128,)

    def __init__(self, text: np.ndarray, most: int = 16):
        self.text, self.most = text, most

    def train_batch(self, size, rng, progress=1.0):
        grown = min(1.0, progress / 0.6)  # from rows of two facts and hardly any text to full size
        sizes = [n for n in (2, 4, 8, 16) if n <= round(2 * (self.most / 2) ** grown)]
        facts = int(rng.choice(sizes))
        longest = max(4 * sizes[-1], round(8 * (self.length / 8) ** grown))
        length = longest if rng.random() < 0.5 else int(rng.integers(4 * facts, longest + 1))
        return self.rows(size * self.length // length, length, facts, rng)  # as many tokens whatever the length

    def test_batch(self, size, length, rng):
        return self.rows(size, length, self.most, rng)

    def rows(self, size: int, length: int, facts: int, rng: np.random.Generator) -> Batch:
        begin = rng.integers(len(self.text) - length, size=size)
        tokens = self.text[begin[:, None] + np.arange(length)]
        targets = np.full_like(tokens, IGNORE)
        asked = length - 2 * facts
        for row in range(size):
            names = FIRST_NAME + rng.choice(NAMES, facts, replace=False)
            numbers = FIRST_NUMBER + rng.integers(NUMBERS, size=facts)
            at = np.sort(rng.choice(asked // 2, facts, replace=False)) * 2
            write_facts(tokens[row], at, names, numbers)
            order = rng.permutation(facts)
            at = asked + 2 * np.arange(facts)
            write_facts(tokens[row], at, names[order], numbers[order])
            targets[row, at] = numbers[order]
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))


def write_facts(tokens: np.ndarray, at: np.ndarray, names: np.ndarray, numbers: np.ndarray) -> None:
    tokens[at], tokens[at + 1] = names, numbers


def long_text(text: np.ndarray, length: int, distances: list[int], rng) -> tuple[np.ndarray, dict]:
    """One text of `length` tokens with every name's fact in it; for each distance, the (names, numbers) near it."""
    begin = int(rng.integers(len(text)))
    tokens = np.resize(np.roll(text, -begin), length)
    names = FIRST_NAME + rng.permutation(NAMES)
    numbers = FIRST_NUMBER + rng.integers(NUMBERS, size=NAMES)
    places, asked, used = [], {}, 0
    for distance in distances:
        near = min(distance, length - 2 * ASKED)  # within a tenth of it, farther only where there is no room
        low = max(0, length - near - max(near // 10, 4 * ASKED))
        spots = np.arange(low, length - near + 1, 4)
        at = rng.choice(spots[: len(spots)], ASKED, replace=False)
        asked[distance] = (names[used : used + ASKED], numbers[used : used + ASKED])
        places += [*at]
        used += ASKED
    taken = {p // 4 for p in places}
    free = np.setdiff1d(np.arange(length // 4 - 1), [*taken, *(t + 1 for t in taken), *(t - 1 for t in taken)])
    places = np.array([*places, *(4 * rng.choice(free, NAMES - used, replace=False))])
    write_facts(tokens, places, names, numbers)
    return tokens, asked


def read(model, tokens: np.ndarray, chunk: int = 4096):
    state = None
    with torch.inference_mode():
        for part in torch.from_numpy(tokens)[None].split(chunk, 1):
            _x, state = (
                model.hidden(model.embed(part), state) if isinstance(model, LanguageModel) else model(part, state)
            )
    return state


@torch.inference_mode()
def accuracy(model, state, asked: dict) -> dict[int, float]:
    """Share of the numbers that are the likeliest token after its name, for each distance."""
    shares = {}
    for distance, (names, numbers) in asked.items():
        rows = map_state(lambda tensor: tensor.expand(len(names), *tensor.shape[1:]), state)
        questions = torch.from_numpy(names[:, None])
        logits, _ = model(questions, rows)
        shares[distance] = float((logits[:, -1].argmax(-1).numpy() == numbers).mean())
    return shares


def trained(name: str, task: Facts, steps: int, folder: Path, seed: int, **dials) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(preset(name, vocab_size=VOCABULARY, d_model=64, n_layers=2, window=16, **dials))
    began = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % (10 * max(1, steps // 100)) == 0:
            print(f"{name}: step {step} of {steps}, loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)

    config = TrainConfig(steps, 32, 1e-2, fading_dropout=1.0, seed=seed)
    fit(model, task, config, folder / f"{name} {seed}.pt", report)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=existing)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--length", type=int, default=1_050_000)
    parser.add_argument("--distances", type=int, nargs="+", default=[300, 1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--keep", type=float, default=0.05, help="share of the tokens of text that pass the test")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--sharpness", type=float, default=3.0)
    parser.add_argument("--combine", help="of attention and the fading memory of bmojo (default: the layer's)")
    parser.add_argument("--models", nargs="+", default=["bmojo", "sliding_window", "mamba2"])
    parser.add_argument("--n-kv-heads", type=int, default=4, help="key and value heads of the models with a store")
    parser.add_argument("--seed", type=int, default=0, help="of the model and its training; the text stays")
    parser.add_argument("--store", default=None)
    parser.add_argument("--json", type=new_file)
    args = parser.parse_args()
    task = Facts(words(args.data))
    print(f"{len(task.text):,} words of text, {len(np.unique(task.text)):,} different", flush=True)
    tokens, asked = long_text(task.text, args.length, args.distances, np.random.default_rng(1))
    folder, lines = Path("runs/long_recall"), []

    def line(name: str, shares: dict[int, float], **more) -> None:
        lines.append({"model": name, "recall": shares} | more)
        print(name, shares, more, flush=True)

    for name in args.models:
        dials = {"n_kv_heads": args.n_kv_heads} if name in STORED else {}
        dials |= {"combine": args.combine} if name == "bmojo" else {}
        model = trained(name, task, args.steps, folder, args.seed, **dials)
        batch = task.test_batch(32, task.length, np.random.default_rng(5))
        with torch.inference_mode():
            logits, _ = model(batch.tokens)
        right = float(np.nanmean(task.score(logits, batch.targets).numpy()))
        size = sum(p.numel() for p in model.parameters())
        if name not in STORED:
            began = time.perf_counter()
            state = read(model, tokens)
            line(
                name,
                accuracy(model, state, asked),
                as_trained=right,
                parameters=size,
                read_s=time.perf_counter() - began,
            )
            continue
        sample = torch.from_numpy(task.text[:20_000])
        shape = store_schema(model, keep=args.keep, text=sample)
        uri = args.store or tempfile.mkdtemp() + "/store"
        with open_store(uri, shape, write=True) as store:
            began = time.perf_counter()
            with store.document("text") as document:
                writer = Attached(model, store, k=0, writing=document)
                state = read(writer, tokens)
                writer.finish(state)
            seconds = time.perf_counter() - began
            stats = store.stats()
            line(name, accuracy(model, state, asked), as_trained=right, parameters=size, read_s=seconds)
            for sharpness in (1.0, args.sharpness):
                began = time.perf_counter()
                reader = Attached(model, store, k=args.k, own=document.id, sharpness=sharpness)
                shares = accuracy(reader, state, asked)
                line(f"{name}, store, sharpness {sharpness:g}", shares, asked_s=time.perf_counter() - began, **stats)
    if args.json:
        write(args.json, json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
