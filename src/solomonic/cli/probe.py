"""Look into a model's memories: what each is worth, how long it holds, how many states it uses.

    solomonic probe runs/books --data other/ --out probe

Writes OUT/probe.html, one page that works offline, and OUT/probe.json, every number, and prints the main ones.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from .._utils import jsontext
from .._utils.files import owned
from .._utils.spelling import paragraph
from ._device import device
from ._numbers import whole
from ._options import add_data, add_device, add_model
from ._table import table

READS, MODELS, MAKES = ("data",), ("model",), ("out",)
EXTRA = "theory"


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_model(command)
    add_data(command)
    add("--tokens", type=whole(), default=8192, metavar="T", help="tokens of one document to read (default 8192)")
    add(
        "--generate",
        type=whole(2**16),
        default=64,
        metavar="N",
        help="tokens to generate under each intervention (default 64)",
    )
    add(
        "--directions",
        type=whole(),
        default=8,
        metavar="N",
        help="principal directions of inputs and outputs (default 8)",
    )
    add("--out", type=Path, default=Path("probe"), metavar="DIR", help="folder of the page (default probe)")
    add_device(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    for name, least in (("tokens", 2), ("generate", 1), ("directions", 1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name}: expected a whole number >= {least}, got {getattr(args, name)}")
    owned(args.out, "a probe", "probe.json")
    where = device(args.device)
    import torch

    from .. import __version__
    from .._utils.files import locked, write
    from .._utils.machine import check_fits
    from .._utils.progress import Progress
    from ..checkpoints.folder import load
    from ..data.corpus import documents, library
    from ..probe.findings import findings
    from ..probe.page import page
    from ..probe.study import LEAST, study, work

    model, tokenizer = load(args.model, where, torch.float32)
    check_fits(32 * args.generate * model.config.vocab_size, f"what the model says at {args.generate:,} tokens")
    best, source = None, ""
    for document in documents(args.data or library(), args.field):
        if best is not None and len(document.text) <= len(best):
            continue
        tokens = tokenizer.encode(document.text[: 16 * args.tokens])[: args.tokens]
        if best is None or len(tokens) > len(best):
            best, source = tokens, document.source
        if len(best) == args.tokens:
            break
    if best is None or len(best) < LEAST:
        got = f"the longest has {len(best)}" if best is not None else "there is none"
        if best is not None and len(best) == args.tokens:
            got += f", all that --tokens {args.tokens} reads of it"
        raise ValueError(f"expected a document of {LEAST} tokens or more, and --tokens as large; {got}")
    with Progress(work(model, len(best), args.generate), "call", "probe") as bar:
        numbers = study(model, best, args.generate, args.directions, bar.update)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    versions = {"solomonic": __version__, "torch": torch.__version__}
    results: dict[str, Any] = {
        "model": str(args.model),
        "parameters": parameters,
        "text": source,
        "versions": versions,
    } | numbers
    results["findings"] = findings(results)
    layers = ", ".join(f"{count} {name}" for name, count in Counter(results["layers"]).items())
    size = len(tokenizer.decode(best.tolist()).encode(errors="replace"))
    note = f"{parameters:,} parameters, layers: {layers}; {len(best):,} tokens ({size:,} bytes) of {source}"
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = page(results, f"Probe of {args.model}", [note, made], tokenizer.decode)
    with locked(args.out, "writing a probe there", folder=True):
        write(args.out / "probe.json", jsontext.write(results, 1))
        write(args.out / "probe.html", text)
    print(
        "\n\n".join(
            [paragraph(f"{args.model}: {note}"), "\n".join(map(paragraph, results["findings"])), *_tables(results)]
        )
    )
    print("\n" + paragraph(f"{args.out / 'probe.html'} has the pictures, probe.json beside it every number"))
    return 0


def _tables(results: dict[str, Any]) -> list[str]:
    from ..probe.findings import uncertain, where

    shown = []
    if results["ablations"]:
        masses = {
            (entry["layer"], name): share
            for entry in results["mass"]
            for name, share in zip(results["groups"], entry["mean"])
            if name in entry["softmax"]
        }
        rows = [
            (
                f"{where(row, results)}, {row['memory']}",
                masses.get((row["layers"][0], row["memory"])) if len(row["layers"]) == 1 else None,
                uncertain(row["more_bits"], row["error"]),
            )
            for row in results["ablations"]
        ]
        shown.append(table(("without", "attention mass", "bits a token more"), rows))
    if results["fading"]:
        rows, systems = [], {system["layer"]: system for system in results["systems"]}
        for entry in results["fading"]:
            system = systems[entry["layer"]]
            lengths = [_between(entry["horizon"][name]) for name in entry["horizon"]]
            order = f"{max(entry['order']):.0f} of {entry['states']}" if entry["order"] else None
            best = max(system["explained"].values())
            name = f"layer {entry['layer']}, {entry['memory']}"
            rows.append((name, *lengths, order, system["correlated"], system["effective"], best))
        head = ("fading memory", *(f"tokens to {name}" for name in entry["horizon"]))
        shown.append(table((*head, "largest order", "correlated", "linear order", "explains"), rows))
    return shown


def _between(tokens: list[float | None]) -> str:
    """The fewest and the most tokens; open where some head's are beyond the text."""
    reached = [count for count in tokens if count is not None]
    if not reached:
        return "beyond"
    return f"{min(reached):.0f}-{max(reached):.0f}" if len(reached) == len(tokens) else f"{min(reached):.0f}-beyond"
