"""A library read once: what a store of whole novels is worth to a model that has not learnt them, and what it costs.

    python benchmarks/novels.py PATH... [--out runs/novels] [--steps N] [--model PRESET] [--seed S]

PATH are novels as text files. A B'MOJO of about a million parameters, of which one layer looks things up, is trained on the
first third of each with `solomonic train --lookup`. The last twentieth of each stays unseen; all before it is added to a
store. Then, without the store, with it, and with both mixed (`solomonic.retrieval.hedge`), in rows of 1,024 tokens that begin from
nothing; what is found is read as sharply as in training, and `--sharpness` times as sharply, which was chosen with a model
of 500 steps (docs/log.md): bits per byte of passages that the store has and the weights have not (the second half), and of the unseen end;
and names: the first name of a person whose full name stands in the store, and not in what the weights have learnt, at
least 10 rows of training away: is the true last name likelier than nine of others?
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
from command_common import existing_file, new_folder, solomonic
from lookup_common import bpe, decoded, looking

from solomonic import preset
from solomonic.checkpoints.folder import load
from solomonic.evaluation.score import continuations
from solomonic.evaluation.text import bits_per_byte, spans
from solomonic.inference.sessions import Session
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.hedge import Hedged
from solomonic.retrieval.remember import remember
from solomonic.retrieval.schema import store_schema

SIZES = {"d_model": 128, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "window": 32, "conv": 4}
LOOKS = 1  # the one layer with an eidetic memory of 64 tokens, and a store
VOCABULARY = 2048
ROW, BYTES = 384, 4  # tokens of a row in training; bytes of a token, at most on average
SETTINGS = f"--length {ROW} --batch-size 12 --lr 6e-3 --lookup 0.45"
LENGTH, PIECES = 1024, 8
NAME = re.compile(rb"\b([A-Z][a-z]{2,}) ([A-Z][a-z]{3,})\b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", type=existing_file)
    parser.add_argument("--out", type=new_folder, default=Path("runs/novels"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--keep", type=float, default=1.0)
    parser.add_argument("--k", type=int, default=2)
    parser.add_argument("--sharpness", type=float, default=3.0)
    parser.add_argument("--model", default="bmojo", choices=("bmojo", "bmojo_published"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", action="store_true", help="search the store exactly")
    args = parser.parse_args()
    books = {path.name: path.read_bytes() for path in args.paths}
    learnt = {name: text[: len(text) // 3] for name, text in books.items()}
    stored = {name: text[: len(text) * 19 // 20] for name, text in books.items()}
    model, tokenizer = trained(learnt, args.out, args.steps, args.model, args.seed)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {sum(map(len, stored.values())):,} bytes to store", flush=True)

    sample = torch.from_numpy(tokenizer.encode(learnt[args.paths[0].name][:20_000]))
    shape = store_schema(model, keep=args.keep, text=sample)
    with open_store(str(args.out / f"store {args.keep:g}"), shape, write=True, approximate=not args.exact) as store:
        began, attached = time.perf_counter(), Attached(model, store, k=args.k)
        for name, text in stored.items():
            remember(attached, tokenizer, name, text)
            print(f"{name}: {len(text):,} bytes, {time.perf_counter() - began:.0f} s", flush=True)
        stats = store.stats()
        read = sum(len(tokenizer.encode(text)) for text in stored.values())
        size_of = sum(map(len, stored.values()))
        results = {
            "parameters": size,
            "bytes": size_of,
            "tokens": read,
            "seconds to add": time.perf_counter() - began,
            "kept": stats["tokens"] / len(shape.layers) / read,
            "store bytes per token": stats["size"] / read,
            "store bytes per byte of text": stats["size"] / size_of,
        }
        sharper = Attached(model, store, k=args.k, sharpness=args.sharpness)
        readers = {"without": model, "as in training": attached, "sharper": sharper}
        readers |= {"hedged": Hedged([model, attached]), "sharper, hedged": Hedged([model, sharper])}
        again = {name: text[len(text) // 2 :] for name, text in stored.items()}
        ends = {name: books[name][len(text) :] for name, text in stored.items()}
        for title, texts in (("passages of the store", again), ("unseen ends", ends)):
            pieces = spans([tokenizer.encode(text) for text in texts.values()], LENGTH, PIECES)
            for which, reader in readers.items():
                began = time.perf_counter()
                bits = bits_per_byte(reader, tokenizer, pieces, LENGTH, batch_tokens=LENGTH)
                half = bits.by_position[LENGTH // 2 :].mean()
                results[f"{title}, {which}"] = [bits.mean, half]
                print(
                    f"{title}, {which}: {bits.mean:.4f}, second half {half:.4f}, {time.perf_counter() - began:.0f} s",
                    flush=True,
                )
        for most in (40, None):
            results |= names(readers, tokenizer, stored, learnt, most)
        results |= cost(model, attached, tokenizer, again)
    (args.out / f"novels {args.keep:g}.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


def trained(learnt: dict[str, bytes], out: Path, steps: int, arch: str, seed: int):
    (out / "learnt").mkdir(parents=True, exist_ok=True)
    for name, text in learnt.items():
        (out / "learnt" / name).write_bytes(text)
    inner = bpe([text.decode("utf-8", "replace") for text in learnt.values()], VOCABULARY)
    inner.save(str(out / "tokenizer.json"))
    config = looking(preset(arch, vocab_size=VOCABULARY, capacity=64, **SIZES), LOOKS)
    (out / "model.json").write_text(json.dumps(config.to_dict()))
    command = ["train", str(out / "learnt"), "--out", str(out / "model"), "--model", str(out / "model.json")]
    command += ["--tokenizer", str(out / "tokenizer.json"), *SETTINGS.split(), "--seed", str(seed), "--resume"]
    solomonic(*command, "--steps", str(steps))
    return load(out / "model")


def names(readers, tokenizer, stored: dict[str, bytes], learnt: dict[str, bytes], most: int | None) -> dict:
    """Share of the `most` frequent full names, None: of all, whose last name is the likeliest of ten, after a sentence
    that ends in the first name."""
    known = {pair for text in learnt.values() for pair in NAME.findall(text)}
    people = {}
    for name, text in stored.items():
        for match in NAME.finditer(text[len(learnt[name]) + 10 * ROW * BYTES :]):
            if match.groups() not in known:
                people.setdefault(match.groups(), []).append(name)
    often = sorted((pair for pair, where in people.items() if len(where) >= 3), key=lambda p: (-len(people[p]), p))[
        :most
    ]
    random = np.random.default_rng(0)
    groups = []
    for first, last in often:
        others = [other for f, other in often if other != last and f != first]
        choices = [last, *(others[i] for i in random.choice(len(others), 9, replace=False))]
        groups.append(
            (
                tokenizer.encode(b"It was then that he saw " + first),
                [tokenizer.encode(b" " + c) for c in choices],
            )
        )
    asked, shares = len(groups), {}
    for which, reader in readers.items():
        scores = continuations(reader, groups, batch=1)
        right = [
            np.argmax([p / len(c) for (p, _), c in zip(row, choices)]) == 0 for row, (_, choices) in zip(scores, groups)
        ]
        shares[f"{asked} names, {which}"] = float(np.mean(right))
        print(f"{asked} names, {which}: {np.mean(right):.3f}", flush=True)
    return shares


def cost(model, attached, tokenizer, texts: dict[str, bytes], count: int = 64) -> dict:
    """Milliseconds of a written token with and without the store, in turns."""
    session = Session().then(tokenizer.encode(next(iter(texts.values()))[:512]).tolist())
    ms = decoded({"without": model, "with": attached}, session, count)
    share = 1 - ms["without"] / ms["with"]
    print(f"ms a token: {ms}, share of the store {share:.0%}", flush=True)
    return {"ms a token": ms, "share of retrieval": share}


if __name__ == "__main__":
    main()
