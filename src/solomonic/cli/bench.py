"""Measure speed and memory against peers, side by side.

Layers and models take turns in one process; every ratio is to the first of its table, and above 1 is faster. The floor
is the share of the time that the operations or the bytes of the work would take on this machine at its best.
"""

import argparse
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import torch

from .._utils.machine import check_fits
from .._utils.spelling import aside, counted, paragraph, unknown
from ._device import device
from ._device import dtype as named_dtype
from ._numbers import real, whole
from ._options import STDOUT, add_alias, add_device, add_dtype, add_json, add_lengths, add_plugin, write_json
from ._table import table

if TYPE_CHECKING:
    from ..bench.run import Row

Table = tuple[str, str, int]  # scope, work, length
WRITES = ("json",)
WORKS = ("train", "prefill", "decode")
SCOPES = ("layer", "model")
LENGTHS = {True: [512, 2048, 16384], False: [1024, 4096, 16384, 65536, 131072]}  # on a CPU, elsewhere


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--work", nargs="+", default=WORKS, metavar="W", help=f"{', '.join(WORKS)} (default: all)")
    add("--scope", nargs="+", default=SCOPES, metavar="S", help=f"{', '.join(SCOPES)} (default: both)")
    add_lengths(command, "512 to 16384; 1024 to 131072 on an accelerator")
    add_plugin(command)
    add("--only", nargs="+", metavar="NAME", help="names in the tables to measure; the first in them is the baseline")
    for name, (default, what) in SIZES.items():
        add(_option(name), dest=name, type=whole(), default=default, metavar="N", help=f"{what} (default {default})")
    add_alias(command, "--batch", dest="batch", type=whole())
    add("--seconds", type=real(1e9), default=20.0, metavar="X", help="seconds of measuring for each table (default 20)")
    add_device(command)
    add_dtype(command, "float32; bfloat16 on an accelerator")
    add("--compile", action="store_true", help="compile everything with torch.compile first")
    add_json(command)


SIZES = {
    "d_model": (256, "width"),
    "n_layers": (4, "layers of a model"),
    "n_heads": (4, "heads"),
    "window": (64, "tokens of the window"),
    "capacity": (64, "slots of the eidetic memory"),
    "state_size": (32, "rows of the fading memory's state"),
    "batch": (1, "rows of a batch"),
}


def run(args: argparse.Namespace, words: list[str]) -> int:
    from .._utils.progress import Progress
    from ..bench.run import Sizes, absences, rows

    where = device(args.device)
    on_cpu = where.type == "cpu"
    dtype = named_dtype(args.dtype) or (torch.float32 if on_cpu else torch.bfloat16)
    for names, known, kind in ((args.work, WORKS, "work"), (args.scope, SCOPES, "scope")):
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)
    lengths = args.lengths or LENGTHS[on_cpu]
    for name in ("d_model", "n_layers", "n_heads", "window", "state_size", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"{_option(name)}: expected a whole number >= 1, got {getattr(args, name)}")
    if min(lengths) < 1 or args.seconds <= 0 or args.capacity < 1:
        raise ValueError("expected --lengths >= 1, --capacity >= 1 and --seconds > 0")
    tokens, width = args.batch * max(lengths), args.d_model
    kept = args.window + args.capacity + args.state_size
    floats = args.n_layers * width * (16 * width + 16 * tokens + 4 * args.batch * kept)
    check_fits(4 * floats, "models, what they keep of a text and what training keeps of every token")
    sizes = Sizes(**{f.name: getattr(args, f.name) for f in fields(Sizes) if hasattr(args, f.name)})
    about = f"torch {torch.__version__}, {where}, {str(dtype).removeprefix('torch.')}"
    about += f", {counted(torch.get_num_threads(), 'thread')}"
    about += ", compiled" * args.compile
    prints = args.json != STDOUT
    if prints:
        print(paragraph(about))
    for scope in args.scope:
        for work in args.work:
            for name, reason in absences(scope, work, where).items():
                if args.only is None or name in args.only:
                    aside(f"not measured: {scope}, {work}, {name}: {reason}")
    done: list[Row] = []
    current: Table | None = None
    tables = len(args.scope) * len(args.work) * len(lengths)
    try:
        how = sizes, lengths, args.work, args.scope, where, dtype, args.seconds, args.only, args.compile
        with Progress(tables, "table", "bench") as bar:
            for row in rows(*how):
                if current is not None and current != (row.scope, row.work, row.length):
                    if prints:
                        bar.say(_shown(done, current))
                    bar.update()
                current = (row.scope, row.work, row.length)
                done.append(row)
            bar.update(tables - bar.n)
    finally:
        results = {"about": about, "rows": [asdict(row) for row in done]}
        if current is not None and write_json(args.json, lambda: results):
            print(_shown(done, current), flush=True)
    if not done:
        raise ValueError(f"--only: none of {', '.join(args.only)} is measured; leave it out to see the names")
    return 0


def _option(name: str) -> str:
    return "--batch-size" if name == "batch" else f"--{name.replace('_', '-')}"


def _shown(rows: list["Row"], current: Table) -> str:
    scope, work, length = current
    shown = [row for row in rows if (row.scope, row.work, row.length) == current]
    memory = any(row.memory is not None for row in shown)
    head = [f"{scope}, {work} at {length:,}", "ms", "quartiles", "times as fast", "floor"] + ["MiB"] * memory
    return "\n" + table(head, [_cells(row, memory) for row in shown])


def _cells(row: "Row", memory: bool) -> list[str]:
    cells = [row.name, f"{row.seconds * 1e3:.3g}", f"{row.fast * 1e3:.3g} - {row.slow * 1e3:.3g}"]
    cells += [f"{row.ratio:.2f}", f"{row.floor / row.seconds:.0%}"]
    return cells + [f"{row.memory / 2**20:.1f}" if row.memory is not None else "-"] * memory
