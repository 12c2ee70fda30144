"""Bits per byte against length, on books: about 5 million parameters each, the same tokens, the same text to score.

    python benchmarks/books.py PATH... --out runs/books

trains the architectures one after the other with `solomonic train`, goes on where it was stopped, and prints the table
of docs/training.md. PATH are books as text files; the last twentieth of each is held out. All held-out text is read in
rows of the training length, of 4 and of 32 times it, each row from nothing.
"""

import argparse
import json
import sys
from pathlib import Path

from command_common import existing, new_folder, solomonic

from solomonic.checkpoints.folder import load
from solomonic.evaluation.text import bits_per_byte, spans
from solomonic.presets import PRESETS
from solomonic.training.rows import read

ARCHS = ("bmojo", "bmojo_published", "transformer", "mamba2", "gated_deltanet", "sliding_window")
TIMES = (1, 4, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=existing, metavar="PATH")
    parser.add_argument("--out", type=new_folder, default=Path("runs/books"))
    parser.add_argument("--arch", nargs="+", choices=PRESETS, default=ARCHS)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = f"--steps {args.steps} --length {args.length} --batch-size 16 --lr 3e-3 --eval-every 100"
    settings = f"{settings} --seed {args.seed}".split()
    lengths = [times * args.length for times in TIMES]
    titles = " | ".join(f"at {length:,} ({times}x)" for length, times in zip(lengths, TIMES))
    lines = [
        f"| | parameters | {titles} | second half of {lengths[-1]:,} | state at {lengths[-1]:,} |",
        "|---" * (len(lengths) + 4) + "|",
    ]
    for arch in args.arch:
        out = args.out / arch
        command = ["train", *map(str, args.paths), "--model", arch, "--out", str(out), *settings, "--resume"]
        solomonic(*command, "--eval-tokens", "32768")
        model, tokenizer = load(out)
        text = spans(read(out / "run").held_out.documents(), lengths[-1], sys.maxsize)
        bits = [bits_per_byte(model, tokenizer, text, length) for length in lengths]
        record = json.loads((out / "training.json").read_text())
        cells = [f"{b.mean:.3f}" for b in bits] + [f"{bits[-1].by_position[-lengths[-1] // 2 :].mean():.3f}"]
        state = f"{model.state_bytes(lengths[-1]) / 1024:,.0f} KiB"
        lines.append(f"| `{arch}` | {record['parameters']:,} | {' | '.join(cells)} | {state} |")
        print(lines[-1], f"{text.size:,} bytes scored, {record['seconds'] / 60:.0f} minutes", flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
