"""Measure speed and memory against peers, side by side.

Layers and models take turns in one process; every ratio is to the first of its table, and above 1 is faster. The floor
is the share of the time that the operations or the bytes of the work would take on this machine at its best.
"""

import argparse
from dataclasses import asdict, fields
from pathlib import Path

import torch

from .._utils import jsontext
from .._utils.machine import check_fits
from .._utils.spelling import aside, choose, counted, paragraph, unknown
from ._device import add_device, device
from ._numbers import real, whole
from ._table import table

WRITES = ("json",)
WORKS = ("train", "prefill", "decode")
SCOPES = ("layer", "model")
LENGTHS = {True: [512, 2048, 16384], False: [1024, 4096, 16384, 65536, 131072]}  # on a CPU, elsewhere
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--work", nargs="+", default=WORKS, metavar="W", help=f"of {', '.join(WORKS)} (default: all)")
    add("--scope", nargs="+", default=SCOPES, metavar="S", help=f"of {', '.join(SCOPES)} (default: both)")
    add(
        "--lengths",
        nargs="+",
        type=whole(),
        metavar="T",
        help="tokens (default: 512 to 16384; elsewhere than a CPU 131072)",
    )
    add("--only", nargs="+", metavar="NAME", help="of the names in the tables; the first in them is the baseline")
    for name, (default, what) in SIZES.items():
        add(
            f"--{name.replace('_', '-')}",
            type=whole(),
            default=default,
            metavar="N",
            help=f"{what} (default {default})",
        )
    add("--seconds", type=real(1e9), default=20.0, metavar="X", help="of measuring for each table (default 20)")
    add_device(command)
    add("--dtype", metavar="T", help=f"{' or '.join(DTYPES)} (default: bfloat16 on an accelerator)")
    add("--compile", action="store_true", help="everything by torch.compile (which takes its time first)")
    add("--json", type=Path, metavar="FILE", help="write every number to this file")


SIZES = {
    "d_model": (256, "width"),
    "n_layers": (4, "layers of a model"),
    "n_heads": (4, "heads"),
    "window": (64, "tokens of the window"),
    "capacity": (64, "slots of the eidetic memory"),
    "state_size": (32, "rows of the fading memory's state"),
    "batch": (1, "rows of a batch"),
}


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    from .._utils.files import write
    from .._utils.progress import Progress
    from ..bench.run import Sizes, absences, rows

    where = device(chosen.device)
    on_cpu = where.type == "cpu"
    dtype = choose("dtype", chosen.dtype or ("float32" if on_cpu else "bfloat16"), DTYPES)
    for given, known, kind in ((chosen.work, WORKS, "work"), (chosen.scope, SCOPES, "scope")):
        for name in given:
            if name not in known:
                raise unknown(kind, name, known)
    lengths = chosen.lengths or LENGTHS[on_cpu]
    for name in ("d_model", "n_layers", "n_heads", "window", "state_size", "batch"):
        if getattr(chosen, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected a whole number >= 1, got {getattr(chosen, name)}")
    if min(lengths) < 1 or chosen.seconds <= 0 or chosen.capacity < 1:
        raise ValueError("expected --lengths >= 1, --capacity >= 1 and --seconds > 0")
    tokens, width = chosen.batch * max(lengths), chosen.d_model
    kept = chosen.window + chosen.capacity + chosen.state_size
    floats = chosen.n_layers * width * (16 * width + 16 * tokens + 4 * chosen.batch * kept)
    check_fits(4 * floats, "models, what they keep of a text and what training keeps of every token")
    sizes = Sizes(**{f.name: getattr(chosen, f.name) for f in fields(Sizes) if hasattr(chosen, f.name)})
    about = f"torch {torch.__version__}, {where}, {str(dtype).removeprefix('torch.')}"
    about += f", {counted(torch.get_num_threads(), 'thread')}"
    about += ", compiled" * chosen.compile
    print(paragraph(about))
    for scope in chosen.scope:
        for work in chosen.work:
            for name, reason in absences(scope, work, where).items():
                if chosen.only is None or name in chosen.only:
                    aside(f"not measured: {scope}, {work}, {name}: {reason}")
    done, current = [], None
    try:
        how = sizes, lengths, chosen.work, chosen.scope, where, dtype, chosen.seconds, chosen.only, chosen.compile
        with Progress(len(chosen.scope) * len(chosen.work) * len(lengths), "table", "bench") as bar:
            for row in rows(*how):
                if current not in (None, (row.scope, row.work, row.length)):
                    bar.say(_shown(done, current))
                    bar.update()
                current = (row.scope, row.work, row.length)
                done.append(row)
            bar.update(bar.total - bar.n)
    finally:
        if chosen.json and done:
            write(chosen.json, jsontext.write({"about": about, "rows": [asdict(row) for row in done]}, 1, missing=True))
        if current is not None:
            print(_shown(done, current), flush=True)
    if not done:
        raise ValueError(f"--only: none of {', '.join(chosen.only)} is measured; leave it out to see the names")
    return 0


def _shown(rows: list, current: tuple) -> str:
    scope, work, length = current
    shown = [row for row in rows if (row.scope, row.work, row.length) == current]
    memory = any(row.memory is not None for row in shown)
    head = [f"{scope}, {work} at {length:,}", "ms", "quartiles", "times as fast", "floor"] + ["MiB"] * memory
    return "\n" + table(head, [_cells(row, memory) for row in shown])


def _cells(row, memory: bool) -> list[str]:
    cells = [row.name, f"{row.seconds * 1e3:.3g}", f"{row.fast * 1e3:.3g} - {row.slow * 1e3:.3g}"]
    cells += [f"{row.ratio:.2f}", f"{row.floor / row.seconds:.0%}"]
    return cells + [f"{row.memory / 2**20:.1f}" if row.memory is not None else "-"] * memory
