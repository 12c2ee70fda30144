"""Predict bits by all programs that print them (Solomonoff): bounds, shortest programs, complexities.

Programs are run in Levin's phases until the budget is spent or until Ctrl-C, which shows what was found by then; with
--length, every program of so many instructions instead. Beside them stand context-tree weighting, xz and, with --model,
a trained model's prediction from the same bits.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._utils.spelling import counted, paragraph
from ._numbers import COUNT, whole
from ._options import add_device, add_json, add_plugin, write_json
from ._table import table

if TYPE_CHECKING:
    from ..theory.solomonoff.inference import Answer
    from ..theory.solomonoff.outcomes import Hit

READS, MODELS, WRITES = ("bits",), ("model",), ("json",)
EXTRA = "theory"
MOST_BITS = 100_000
SECONDS = 10.0


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("bits", metavar="BITS", help="0101101..., or a text file of them; white space does not count")
    add("--seconds", type=float, metavar="S", help=f"budget in seconds (default {SECONDS:g}, where no budget is named)")
    add("--steps", type=whole(COUNT), metavar="N", help="budget in steps of the machine")
    add("--phases", type=whole(), metavar="K", help="no further than Levin's phase K: programs of |p| + log2 t <= K")
    add("--length", type=whole(), metavar="L", help="every program of L instructions or fewer, instead of phases")
    add("--each", type=whole(COUNT), default=1000, metavar="T", help="steps of each program of --length (default 1000)")
    add("--depth", type=whole(), default=8, metavar="D", help="bits of context of the context trees (default 8)")
    add("--show", type=whole(1000), default=5, metavar="P", help="programs to show (default 5)")
    add(
        "--continue",
        type=whole(100_000),
        default=24,
        dest="bits_on",
        metavar="B",
        help="bits that they print next (default 24)",
    )
    add("--model", type=Path, metavar="FOLDER", help="a trained model whose tokenizer has a token for 0 and for 1")
    add_plugin(command)
    add_device(command)
    add("--twice", action="store_true", help="run the search twice, to show that all of the work is done again")
    add_json(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    data = read(args.bits)
    _check(args)
    from .._utils.progress import Progress
    from ..theory.solomonoff import compiled
    from ..theory.solomonoff.inference import infer

    model = None if args.model is None else in_context(args.model, data, args.device)
    budget = {"steps": args.steps, "last": args.phases, "length": args.length, "each": args.each}
    budgeted = any(budget[name] for name in ("steps", "last", "length"))
    budget["seconds"] = args.seconds or (None if budgeted else SECONDS)

    with Progress(unit="program", what="solomonoff") as bar:
        compiled.ready()
        before = 0

        def progress(phase: int, programs: int, steps: int) -> None:
            bar.set_note(f"phase {phase}" if phase else "every program")
            bar.update(before + programs - bar.n)

        answer = infer(data, depth=args.depth, keep=args.show, progress=progress, **budget)
        again = None
        if args.twice and answer.stopped != "interrupted":
            done = [phase.k for phase in answer.phases if phase.complete]
            same = (
                budget | {"seconds": None, "steps": None, "last": None if args.length else done[-1]} if done else budget
            )
            before = bar.n
            again = infer(data, depth=args.depth, keep=args.show, progress=progress, **same)
    numbers = _numbers(answer, again, model, args.bits_on)
    if write_json(args.json, lambda: numbers):
        print("\n\n".join(_shown(numbers)))
    return 130 if "interrupted" in (answer.stopped, again and again.stopped) else 0


def read(bits: str) -> tuple[int, ...]:
    """The bits of an argument, or of the file that it names. ValueError where there is something else, saying where."""
    if not bits.strip():
        raise ValueError("BITS: expected 0 and 1, got nothing; pass bits such as 010101, or a file of them")
    text, where = bits, "BITS"
    if set(bits) - set("01 \n\t"):
        path = Path(bits)
        if len(bits) < 1024 and path.is_file():
            text, where = path.read_bytes().decode("latin-1"), str(path)
        elif not set(bits) & set("01") or "/" in bits or "." in bits:
            raise ValueError(f"{bits}: expected bits, such as 010101, or a file of them; there is no such file")
    read_bits = []
    for place, character in enumerate(text, start=1):
        if character in "01":
            read_bits.append(int(character))
        elif not character.isspace():
            raise ValueError(f"{where}: expected 0 and 1 alone, got {character!r} at character {place}; take it out")
    if not read_bits:
        raise ValueError(f"{where}: expected 0 and 1, got no bit; pass a file of bits")
    if len(read_bits) > MOST_BITS:
        raise ValueError(f"{where}: expected at most {MOST_BITS:,} bits, got {len(read_bits):,}; take a part of them")
    return tuple(read_bits)


def _check(args: argparse.Namespace) -> None:
    for name in ("seconds", "steps", "phases", "length", "each", "depth", "show"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name}: expected more than 0, got {value:g}")
    if args.bits_on < 0:
        raise ValueError(f"--continue: expected a whole number >= 0, got {args.bits_on}")
    for name, most in (("phases", 62), ("length", 24), ("depth", 24)):
        if (getattr(args, name) or 0) > most:
            raise ValueError(f"--{name}: expected at most {most}, got {getattr(args, name)}")
    if args.phases and args.length:
        raise ValueError("--length is instead of phases: leave out --phases or --length")


def in_context(folder: Path, data: tuple[int, ...], device: str | None) -> dict[str, Any]:
    """What a trained model says of the next bit after reading `data`, and its code length of what it read.

    Its probabilities of the two tokens are normalised to 1; the first bit, before which it has read nothing, costs 1.
    ValueError where its tokenizer does not read a bit as a token.
    """
    import torch

    from ..checkpoints.folder import load
    from ._device import device as named

    where = named(device)
    model, tokenizer = load(folder, where)
    tokens = [int(token) for token in tokenizer.encode("".join(map(str, data)))]
    ids = [tokenizer.encode(bit).tolist() for bit in "01"]
    if any(len(tokens_of_bit) != 1 for tokens_of_bit in ids) or tokens != [ids[bit][0] for bit in data]:
        raise ValueError(f"--model: expected a tokenizer that reads every bit as one token; that of {folder} does not")
    with torch.no_grad():
        logits, _ = model(torch.tensor([tokens], device=where))
    pair = logits[0].double().log_softmax(-1)[:, [ids[0][0], ids[1][0]]].cpu()
    log_p = pair.log_softmax(-1)
    bits = -log_p[:-1].gather(1, torch.tensor(data[1:], dtype=torch.int64)[:, None]).sum().item() / float(
        torch.log(torch.tensor(2.0))
    )
    return {
        "model": str(folder),
        "one": log_p[-1, 1].exp().item(),
        "bits": 1 + bits,
        "mass_on_bits": pair[-1].exp().sum().item(),
    }


def _numbers(answer: "Answer", again: "Answer | None", model: dict[str, Any] | None, bits_on: int) -> dict[str, Any]:
    from ..theory.solomonoff.reference import continuation, layout

    found, n = answer.outcomes, len(answer.data)
    mixed, shares = answer.mixture()
    literal = answer.literal

    def hit(program: "Hit") -> dict[str, Any]:
        out, why = continuation(program.program, n + bits_on, program.steps + 100_000)
        return {
            "program": program.program,
            "layout": layout(program.program),
            "instructions": len(program.program),
            "bits": program.length,
            "steps": program.steps,
            "kt": program.kt,
            "goes_on": out[n:],
            "then": why,
        }

    def work(search: "Answer") -> dict[str, Any]:
        phases = [vars(phase) for phase in search.phases]
        total = {"programs": search.programs, "steps": search.steps, "seconds": search.seconds}
        return total | {"programs_per_second": search.programs / max(search.seconds, 1e-9), "phases": phases}

    return {
        "version": __version__,
        "data": "".join(map(str, answer.data)),
        "next": {
            str(bit): {
                "lower": float(found.bounds(bit)[0]),
                "upper": float(found.bounds(bit)[1]),
                "of_programs_found": found.estimate(bit),
                "mixture": mixed if bit else 1 - mixed,
                "context_trees": answer.tree if bit else 1 - answer.tree,
                "model": None if model is None else model["one"] if bit else 1 - model["one"],
            }
            for bit in (0, 1)
        },
        "shares": shares,
        "printed": float(found.printed),
        "undecided": float(found.undecided),
        "undecided_after": float(found.undecided_after),
        "complexity": dict(zip(("lower", "upper"), answer.complexity)),
        "kt": dict(zip(("lower", "upper"), answer.kt)),
        "programs": [hit(one) for one in found.shortest],
        "least_kt": hit(found.least) if found.least else None,
        "literal": {"instructions": len(literal.program), "bits": literal.length, "kt": literal.kt},
        "bits": {"data": n, "context_trees": answer.tree_bits, "xz": answer.xz_bits, "model": model and model["bits"]},
        "model": model,
        "work": work(answer),
        "again": work(again) if again else None,
        "stopped": answer.stopped,
    }


def _shown(numbers: dict[str, Any]) -> Iterator[str]:
    bits, both = numbers["data"], numbers["next"]
    shown = bits if len(bits) <= 80 else bits[:60] + " ... " + bits[-15:]
    yield paragraph(f"{counted(len(bits), 'bit')}: {shown}")

    columns = ["lower", "upper", "of_programs_found", "mixture", "context_trees", "model"]
    columns = [name for name in columns if name != "model" or numbers["model"]]
    rows = [(bit, *(_small(both[bit][name]) for name in columns)) for bit in "01"]
    shares = ", ".join(f"{name} {share:.3f}" for name, share in numbers["shares"].items())
    notes = [f"undecided: {numbers['undecided']:.3f} of all programs, and {_small(numbers['undecided_after'])}"]
    notes[0] += f" that printed the bits but no further one; found to print them: {_small(numbers['printed'])}"
    notes.append(f"in the mixture, after the bits: {shares}")
    if not numbers["programs"]:
        notes.append("no program was found that prints the bits: the mixture falls back on context trees and coins")
    elif numbers["shares"]["programs"] < 0.5:
        notes.append("the programs found explain the bits less well than the fallback does")
    yield (
        table(("next bit", *(name.replace("_", " ") for name in columns)), rows)
        + "\n"
        + "\n".join(map(paragraph, notes))
    )

    if numbers["programs"]:
        head = ("shortest programs", "bits", "steps", "Kt", "goes on")
        yield table(head, [_row(one) for one in numbers["programs"]])
    least = numbers["least_kt"]
    if least and least["program"] not in [one["program"] for one in numbers["programs"]]:
        yield table(("program of the least Kt", "bits", "steps", "Kt", "goes on"), [_row(least)])

    bounds: list[tuple[str, float | None, float]] = [
        ("-log2 M", *(numbers["complexity"][side] for side in ("lower", "upper"))),
        ("Levin's Kt", *(numbers["kt"][side] for side in ("lower", "upper"))),
        ("literal program", None, numbers["literal"]["bits"]),
        ("the bits themselves", None, float(len(bits))),
        ("context trees", None, numbers["bits"]["context_trees"]),
        ("xz", None, float(numbers["bits"]["xz"])),
    ]
    if numbers["model"]:
        bounds.append((f"model {numbers['model']['model']}", None, numbers["bits"]["model"]))
    yield table(("complexity, bits", "at least", "at most"), bounds)

    yield "\n".join(map(paragraph, _work(numbers)))


def _work(numbers: dict[str, Any]) -> Iterator[str]:
    work, again = numbers["work"], numbers["again"]
    done = [phase["k"] for phase in work["phases"] if phase["complete"] and phase["k"]]
    where = f"phases 1 to {done[-1]}" if done else "every program" if not work["phases"][-1]["k"] else "no phase whole"
    ended = {"budget": "; the budget is spent", "interrupted": "; interrupted", "": ""}[numbers["stopped"]]
    yield f"{_effort(work)} ({where}{ended})"
    if again:
        first = [phase for phase in work["phases"] if phase["complete"]]
        same = f"{sum(p['programs'] for p in first):,}" if first else "as many as there was time for"
        yield f"asked again: {_effort(again)}; the first time the same phases took {same}"
        yield "nothing was kept: the programs are the same, and so is the work"


def _effort(work: dict[str, Any]) -> str:
    speed = work["programs_per_second"] / 1e6
    done = f"{counted(work['programs'], 'program')}, {counted(work['steps'], 'step')}"
    return f"{done}, {work['seconds']:.1f} s, {speed:.1f} million programs/s"


def _row(one: dict[str, Any]) -> tuple:
    why = {"": " ...", "asks": " then asks for more", "silent": " then nothing", "slow": " then?", "wide": " then?"}
    return one["layout"], one["bits"], one["steps"], one["kt"], one["goes_on"] + why[one["then"]]


def _small(mass: float | None) -> str:
    return "-" if mass is None else f"{mass:.4g}"
