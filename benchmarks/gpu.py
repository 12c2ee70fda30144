"""B'MOJO against the Transformer of the same size on an accelerator: training, prefill and decoding, in one command.

    python benchmarks/gpu.py [--json FIGURES.json]               # about 350M parameters, bfloat16
    python benchmarks/gpu.py --toy                               # the same at toy sizes, on any machine

Both models take turns in one process, and a line says what was reached of what is asked: training at 2K, 16K and 64K
tokens (32 rows x 2K, and as many tokens at the other lengths), prefill at the same, decoding of 64 rows after 16K and 128K
tokens, and the peak of memory; then, by `torch.compile` and without launches, decoding and training at 2K once more.
What does not fit on the device is said to be so.
"""

import argparse
import json
from dataclasses import asdict, replace

import torch
from command_common import new_file

from solomonic import preset
from solomonic._utils.files import write
from solomonic.bench.run import Row, Sizes, rows
from solomonic.model import LanguageModel

MODELS = ["transformer", "bmojo"]
LARGE = Sizes(
    d_model=1024, n_layers=24, n_heads=16, n_kv_heads=2, window=512, capacity=512, state_size=64, vocab_size=32768
)
TOY = Sizes(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, window=16, capacity=16, state_size=8, vocab_size=257)
ASKED = {
    ("train", 2048): 1.0,
    ("train", 16384): 2.0,
    ("train", 65536): 6.0,
    ("decode", 16384): 2.0,
    ("decode", 131072): 8.0,
}
TOKENS, DECODED = 65536, 64  # of a training step or a prefill; rows that are decoded at once


def settings(toy: bool) -> list[tuple[str, int, Sizes, bool]]:
    """(work, length, sizes, whether it is compiled): every line of the table."""
    sizes, shrink = (TOY, 64) if toy else (LARGE, 1)
    lines = [(work, length) for work in ("train", "prefill") for length in (2048, 16384, 65536)]
    decoded = [("decode", length) for length in (16384, 131072)]
    lines = [(*line, False) for line in lines + decoded] + [(*line, True) for line in [*decoded, ("train", 2048)]]
    batch = {"decode": DECODED if not toy else 2}
    return [
        (
            work,
            length // shrink,
            replace(sizes, batch=batch.get(work, 1 if toy else max(1, TOKENS // length))),
            compiles,
        )
        for work, length, compiles in lines
    ]


def measured(
    work: str, length: int, sizes: Sizes, compiles: bool, device: torch.device, dtype, seconds: float
) -> dict[str, Row | str]:
    """By model: its row, or why there is none."""
    try:
        both = rows(sizes, [length], [work], ["model"], device, dtype, seconds, MODELS, compiles)
        return {row.name: row for row in both}
    except torch.OutOfMemoryError:
        torch.accelerator.empty_cache()
    alone: dict[str, Row | str] = {}
    for name in MODELS:
        try:
            (alone[name],) = rows(sizes, [length], [work], ["model"], device, dtype, seconds, [name], compiles)
        except torch.OutOfMemoryError:
            torch.accelerator.empty_cache()
            alone[name] = "does not fit on the device"
    return alone


def line(
    work: str, length: int, sizes: Sizes, compiles: bool, by_model: dict[str, Row | str], asked: float | None
) -> str:
    tokens = sizes.batch * (1 if work == "decode" else length)
    cells = [f"{work}, {sizes.batch} x {length:,}{', compiled' * compiles}"]
    for name in MODELS:
        row = by_model[name]
        memory = "" if isinstance(row, str) or row.memory is None else f", {row.memory / 2**30:.1f} GiB"
        cells.append(
            row if isinstance(row, str) else f"{tokens / row.seconds:,.0f}, {row.floor / row.seconds:.0%}{memory}"
        )
    if any(isinstance(by_model[name], str) for name in MODELS):
        ratio = "-"
    else:
        ratio = f"{by_model['transformer'].seconds / by_model['bmojo'].seconds:.2f}"
    return "| " + " | ".join([*cells, ratio, "-" if asked is None else f"{asked:g}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toy", action="store_true", help="toy sizes, on the CPU where there is no accelerator")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring for each line (default 20)")
    parser.add_argument("--json", type=new_file, help="write every number to this file")
    args = parser.parse_args()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None and not args.toy:
        parser.error("there is no accelerator; --toy runs the same at toy sizes")
    device = torch.device("cpu") if accelerator is None else accelerator
    dtype = torch.float32 if accelerator is None else torch.bfloat16
    sizes = TOY if args.toy else LARGE
    dials = {name: value for name, value in asdict(sizes).items() if name != "batch"}
    with torch.device("meta"):
        counts = {n: sum(p.numel() for p in LanguageModel(preset(n, **dials)).parameters()) for n in MODELS}
    print(
        f"torch {torch.__version__}, {device}, {dtype}; parameters: {counts}; floor: share of the least possible time"
    )
    print(
        "| tokens a second, floor, peak memory | transformer | bmojo | times as fast | asked |\n|---|---|---|---|---|"
    )
    written = []
    for (*case, compiles), (work, full, *_) in zip(settings(args.toy), settings(False), strict=True):
        by_model = measured(*case, compiles, device, dtype, args.seconds)
        print(line(*case, compiles, by_model, None if args.toy else ASKED.get((work, full))), flush=True)
        extra = {"batch": case[2].batch, "compiled": compiles}
        written += [asdict(row) | extra for row in by_model.values() if not isinstance(row, str)]
        if args.json:
            write(args.json, json.dumps({"torch": torch.__version__, "device": str(device), "rows": written}, indent=1))


if __name__ == "__main__":
    main()
