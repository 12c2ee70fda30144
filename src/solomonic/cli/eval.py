"""Say what a trained model is worth: bits per byte by length, retrieval, recall tasks, RULER, BABILong, benchmarks.

With nothing chosen: bits per byte of --data, or of the Python library's own sources.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from .._utils import jsontext
from .._utils.machine import check_fits
from .._utils.spelling import counted, paragraph, unknown
from ..data.tokenizer import Tokenizer
from ..model import LanguageModel
from ..tasks import Task
from ..tasks import names as tasks
from ._device import device, dtype
from ._generation import add_memory, check_memory, remembering
from ._numbers import whole
from ._options import add_data, add_device, add_dtype, add_json, add_lengths, add_model, add_seed, write_json
from ._table import table

if TYPE_CHECKING:
    from ..evaluation.prompts import TextTask

READS, MODELS, WRITES = ("data", "include", "squad", "hotpot", "babi"), ("model",), ("json",)
FALLBACK = (256, 1024, 8192)  # lengths for a model that does not say at what length it was trained
TIMES = (1, 4, 32)  # of the training length
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_TEXT = 16 * 1024**2  # bytes of the documents that are kept
CALL_TOKENS, CALL_LOGITS = 16384, 2**28  # at most in one call of the model
CHUNK = 2048

Report = Callable[[int], None]
Plan = dict[str, tuple[int, Callable[[Report], Iterator[dict[str, Any]]]]]
"""What is to be done: a name, the tokens that it reads, and the numbers as they come."""
SUITES = {"ruler": "share of the answers that are said", "babilong": "share of the questions that are answered right"}
Suite = tuple[str, Callable[[str], list["TextTask"]]]
"""A name of SUITES, and its tasks, given the text that they are hidden in."""


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_model(command)
    add_data(command)
    add_lengths(command, "1, 4 and 32 times the training length")
    add("--text", action="store_true", help="bits per byte, which is the default where no other test is named")
    add("--positions", action="store_true", help="bits per byte by position, too")
    add("--passkey", action="store_true", help="retrieve a number from sentences that repeat")
    add("--needle", action="store_true", help="retrieve a number from the text of --data")
    add(
        "--depths",
        nargs="+",
        type=float,
        metavar="D",
        help="depths of the number in the text (default 0 0.25 0.5 0.75 1)",
    )
    add("--task", nargs="+", metavar="NAME", help=f"{', '.join(tasks())}; NAME:option=value sets an option")
    add(
        "--suite",
        metavar="S",
        help="ruler: its thirteen tasks as text; babilong: the tasks of --babi; both hidden in --data; ruler:vt,cwe takes two",
    )
    add("--squad", metavar="FILE", help="questions of SQuAD for qa_1 of ruler (default: made ones, in --data)")
    add("--hotpot", metavar="FILE", help="questions of HotpotQA for qa_2 of ruler (default: made ones, in --data)")
    add("--babi", metavar="DIR", help="folder of bAbI's tasks, qa1_..._test.txt and so on, for babilong")
    add("--harness", nargs="+", metavar="NAME", help="tasks of lm-evaluation-harness")
    add("--include", metavar="DIR", help="folder of more tasks for --harness")
    add("--limit", type=whole(), metavar="N", help="documents of each task of --harness (default: all)")
    add(
        "--samples",
        type=whole(10**6),
        metavar="N",
        help="pieces of text (default 32), prompts a cell or of a task of --suite (10), rows of a task (64)",
    )
    add_seed(command)
    add_device(command)
    add_dtype(command)
    add_json(command)
    add_memory(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    check_memory(args)
    _check(args)
    where = device(args.device)
    import torch

    from .._utils.progress import Progress
    from ..checkpoints.folder import load
    from ..evaluation import recall

    if args.harness:
        from ..evaluation import harness

        known = harness.known(args.harness, args.include)
    problems = [recall.named(name) for name in args.task or ()]
    suite = _suite(args)
    model, tokenizer = load(args.model, where, dtype(args.dtype))
    trained = trained_length(args.model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about: dict[str, Any] = {
        "model": str(args.model),
        "parameters": parameters,
        "trained_length": trained,
        "device": str(where),
        "dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        "seed": args.seed,
        "versions": {"solomonic": __version__, "torch": torch.__version__},
        "complete": False,
        "memory": args.memory,
        "notes": [],
    }
    with remembering(args, model, tokenizer, on_error="raise") as remembers:
        plan = _plan(args, remembers, tokenizer, problems, suite, trained, about["notes"])

        done: dict[str, Any] = {}
        try:
            total = sum(tokens for tokens, _ in plan.values())
            with Progress(total, "token", "eval") as bar:
                for name, (_, numbers) in plan.items():
                    done[name] = []
                    for entry in numbers(bar.update):
                        done[name].append(entry)
            if args.harness:
                done["harness"] = harness.evaluate(remembers, tokenizer, known, args.limit)
            about["complete"] = True
        finally:
            if any(done.values()) and write_json(args.json, lambda: about | done):
                print("\n\n".join(_tables(about, done, args.positions)))
    return 0


def trained_length(folder: Path) -> int | None:
    """The length that `training.json` or `config.json` of the folder says the model was trained at."""
    for file, key in (("training.json", "length"), ("config.json", "max_position_embeddings")):
        try:
            length = jsontext.read(folder / file, dict, infinite=True)[key]
        except (OSError, ValueError, KeyError):
            continue
        if type(length) is int and length > 0:
            return length
    return None


def _check(args: argparse.Namespace) -> None:
    for name, values, least in (
        ("lengths", args.lengths, 1),
        ("samples", [args.samples], 1),
        ("limit", [args.limit], 1),
    ):
        for value in values or ():
            if value is not None and value < least:
                raise ValueError(f"--{name}: expected whole numbers >= {least}, got {value}")
    for depth in args.depths or ():
        if not 0 <= depth <= 1:
            raise ValueError(f"--depths: expected numbers in [0, 1], got {depth}")
    if (args.include or args.limit) and not args.harness:
        raise ValueError("--include and --limit are for --harness, which names no task")
    if args.depths and not (args.passkey or args.needle):
        raise ValueError("--depths is for --passkey and --needle; ask for one of them")
    suite = (args.suite or "").partition(":")[0]
    if (args.squad, args.hotpot) != (None, None) and suite != "ruler":
        raise ValueError("--squad and --hotpot are for --suite ruler, which is not asked for")
    if args.babi is not None and suite != "babilong":
        raise ValueError("--babi is for --suite babilong, which is not asked for")


def _suite(args: argparse.Namespace) -> Suite | None:
    """The suite of --suite; its questions and stories are read, its text is not."""
    if args.suite is None:
        return None
    from ..evaluation.babilong import babi, babilong
    from ..evaluation.questions import hotpot, squad
    from ..evaluation.ruler import Source, names, ruler

    suite, colon, tasks = args.suite.partition(":")
    chosen = [name.strip() for name in tasks.split(",")] if colon else None
    if suite not in SUITES:
        raise unknown("suite of eval", suite, SUITES)
    if suite == "babilong":
        if args.babi is None:
            raise ValueError("--suite babilong: expected a folder of bAbI's tasks, got none; pass it with --babi")
        stories = babi(args.babi, chosen)
        return suite, lambda text: babilong(stories, Source(text))
    asked = names(chosen)
    for option, path, name in (("squad", args.squad, "qa_1"), ("hotpot", args.hotpot, "qa_2")):
        if path is not None and name not in asked:
            raise ValueError(f"--{option} is for {name} of --suite ruler, which is not asked for")
    questions = None if args.squad is None else squad(args.squad), None if args.hotpot is None else hotpot(args.hotpot)
    return suite, lambda text: ruler(Source(text, questions), asked)


def _plan(
    args: argparse.Namespace,
    model: LanguageModel,
    tokenizer: Tokenizer,
    problems: list[Task],
    suite: Suite | None,
    trained: int | None,
    notes: list[str],
) -> Plan:
    """What was chosen. ValueError for what cannot be done, before anything is."""
    from ..evaluation import recall
    from ..evaluation.retrieval import retrieval, shortest

    others = args.passkey or args.needle or args.task or suite or args.harness
    text = args.text or args.positions or not others or bool(args.data and not (args.needle or suite))
    lengths = sorted({*(args.lengths or ([trained * n for n in TIMES] if trained else FALLBACK))})
    if not (args.lengths or trained) and (text or args.passkey or args.needle or suite):
        notes.append("the folder does not say at what length the model was trained: the lengths are a guess")
    per_call = max(256, min(CALL_TOKENS, CALL_LOGITS // model.config.vocab_size))
    chunk = min(CHUNK, per_call)

    plan: Plan = {}
    reads = text or args.needle or suite
    texts = _texts(args, lengths if text else [0], notes) if reads else []
    documents = [tokenizer.encode(one) for one in texts] if text or args.needle else []
    if text:
        plan["text"] = _text(args, model, tokenizer, documents, lengths, per_call, chunk, notes)
    depths = sorted(set(args.depths or DEPTHS))
    for kind in (kind for kind in ("passkey", "needle") if getattr(args, kind)):
        least = shortest(kind, tokenizer)
        those = [length for length in lengths if length >= least]
        if len(those) < len(lengths):
            if args.lengths or not those:
                raise ValueError(f"--{kind}: expected lengths of {least} tokens or more, got {lengths[0]}")
            notes.append(f"{kind}: asking takes {least} tokens, so not at {lengths[0]}")
        samples = args.samples or 10
        check_fits(16 * samples * max(those), f"{samples:,} prompts of {max(those):,} tokens")

        def cells(
            report: Report, kind: str = kind, those: list[int] = those, samples: int = samples
        ) -> Iterator[dict[str, Any]]:
            settings = (those, depths, samples, args.seed, documents, max(1, per_call // chunk), chunk, report)
            return map(asdict, retrieval(model, tokenizer, kind, *settings))

        plan[kind] = (sum(those) * len(depths) * samples, cells)
    samples = args.samples or 64
    for problem in problems:
        recall.fits(model, problem)
        those = sorted(set(args.lengths or problem.lengths))
        check_fits(64 * max(those), f"rows of {max(those):,} tokens")
        for length in those:
            problem.test_batch(1, length, np.random.default_rng(0))

        def scores(report: Report, problem: Task = problem, those: list[int] = those) -> Iterator[dict[str, Any]]:
            return map(asdict, recall.recall(model, problem, those, samples, args.seed, report))

        plan[f"task {problem.name}"] = (sum(those) * samples, scores)
    if suite:
        prompted = _prompted(args, model, tokenizer, suite, texts, lengths, max(1, per_call // chunk), chunk, notes)
        plan[suite[0]] = prompted
    return plan


def _prompted(
    args: argparse.Namespace,
    model: LanguageModel,
    tokenizer: Tokenizer,
    suite: Suite,
    texts: list[bytes],
    lengths: list[int],
    batch: int,
    chunk: int,
    notes: list[str],
) -> tuple[int, Callable[[Report], Iterator[dict[str, Any]]]]:
    from ..evaluation.prompts import ask, shortest

    name, made = suite
    samples = args.samples or 10
    check_fits((128 + 16 * samples) * max(lengths), f"{samples:,} prompts of {max(lengths):,} tokens")
    tasks = made("\n".join(text.decode("utf-8", "replace") for text in texts))
    cells: dict[int, list[TextTask]] = {}
    for length in lengths:
        least = {task.name: shortest(task, tokenizer, length, samples, args.seed) for task in tasks}
        cells[length] = [task for task in tasks if least[task.name] <= length]
        if beyond := ", ".join(f"{task} ({tokens:,})" for task, tokens in least.items() if tokens > length):
            notes.append(f"{name}: not at {length:,} tokens, for asking takes more: {beyond}")
    if not any(cells.values()):
        raise ValueError(
            f"--suite: expected lengths that a prompt and its answer fit, got {lengths[-1]:,}; {notes[-1]}"
        )

    def scores(report: Report) -> Iterator[dict[str, Any]]:
        for length, fitting in cells.items():
            yield from map(asdict, ask(model, tokenizer, fitting, [length], samples, args.seed, batch, chunk, report))

    return sum(length * len(fitting) for length, fitting in cells.items()) * samples, scores


def _texts(args: argparse.Namespace, lengths: list[int], notes: list[str]) -> list[bytes]:
    """The documents that are long enough to be of use, the first MOST_TEXT bytes of them."""
    from ..data.corpus import documents, library

    needed = (max(lengths) if args.lengths else min(lengths)) + 1
    texts: list[bytes] = []
    size, longest, full = 0, 0, False
    for document in documents(args.data or library(), args.field):
        longest = max(longest, len(document.text))
        if len(document.text) >= needed:
            if full := size >= MOST_TEXT:
                break
            texts.append(document.text[: MOST_TEXT - size])
            size += len(texts[-1])
    what = " ".join(args.data) if args.data else "the Python library's sources"
    if not texts:
        raise ValueError(
            f"{what}: expected a document of {needed} bytes or more, which lengths up to {needed - 1} take, the "
            f"longest has {longest}; pass more text, or smaller --lengths"
        )
    notes.append(
        f"text: {what}, {counted(len(texts), 'document')}, {counted(size, 'byte')}{', the first of more' * full}"
    )
    return texts


def _text(
    args: argparse.Namespace,
    model: LanguageModel,
    tokenizer: Tokenizer,
    documents: list[np.ndarray],
    lengths: list[int],
    per_call: int,
    chunk: int,
    notes: list[str],
) -> tuple[int, Callable[[Report], Iterator[dict[str, Any]]]]:
    from ..evaluation.text import bits_per_byte, buckets, spans

    reach = max(map(len, documents)) - 1
    those = [length for length in lengths if length <= reach]
    if not args.lengths and those and len(those) < len(lengths):
        beyond = ", ".join(str(length) for length in lengths if length > reach)
        notes.append(f"text: the longest document has {reach + 1:,} tokens, so not at {beyond}")
        lengths = those
    pieces = spans(documents, max(lengths), args.samples or 32)
    longest = pieces.shape[1] - 1

    def numbers(report: Report) -> Iterator[dict[str, Any]]:
        for length in lengths:
            bits = bits_per_byte(model, tokenizer, pieces, length, per_call, chunk, report)
            where = [{"first": a, "last": b, "bits_per_byte": mean} for a, b, mean in buckets(bits.by_position)]
            yield {"length": length, "bits_per_byte": bits.mean, "pieces": len(pieces), "positions": where}

    return len(pieces) * sum(longest // length * length for length in lengths), numbers


def _tables(about: dict[str, Any], done: dict[str, Any], positions: bool) -> Iterator[str]:
    trained = f", trained at {counted(about['trained_length'], 'token')}" if about["trained_length"] else ""
    head = f"{about['model']}: {counted(about['parameters'], 'parameter')}{trained}"
    yield "\n".join(map(paragraph, [head, *about["notes"]]))
    for name, entries in done.items():
        if not entries:
            continue
        if name == "text":
            rows = [(e["length"], e["bits_per_byte"], e["pieces"]) for e in entries]
            yield table(("length", "bits per byte", "pieces"), rows)
            if positions:
                yield table(("position", *(f"{e['length']:,}" for e in entries)), _positions(entries))
        elif name in ("passkey", "needle"):
            for measure, what in (("exact", "said exactly"), ("chosen", "likeliest of ten")):
                yield f"{name}, {what}, by length and depth\n" + _by_depth(entries, measure)
        elif name in SUITES:
            yield f"{name}, {SUITES[name]}, by length\n" + _by_length(entries)
        elif name == "harness":
            from ..evaluation.harness import shown

            yield shown(entries)
        else:
            rows = [(e["length"], e["value"], e["samples"]) for e in entries]
            yield f"{entries[0]['task']}\n" + table(("length", entries[0]["metric"].replace("_", " "), "rows"), rows)


def _positions(entries: list[dict[str, Any]]) -> list[list[Any]]:
    """A row a range of positions, a column a length; the last range of a length may end before the row's does."""
    longest = max((e["positions"] for e in entries), key=len)
    return [
        [f"{where['first']}-{where['last']}"]
        + [e["positions"][i]["bits_per_byte"] if i < len(e["positions"]) else None for e in entries]
        for i, where in enumerate(longest)
    ]


def _by_depth(entries: list[dict[str, Any]], measure: str) -> str:
    values = {(e["length"], e["depth"]): e[measure] for e in entries}
    lengths, depths = (list(dict.fromkeys(key[i] for key in values)) for i in (0, 1))
    rows = [[length, *(values.get((length, depth)) for depth in depths)] for length in lengths]
    return table(("length", *(f"{depth:g}" for depth in depths)), rows)


def _by_length(entries: list[dict[str, Any]]) -> str:
    """A row a task, and the mean of those asked, a column a length; None for a task that was not asked at that length."""
    values = {(e["task"], e["length"]): e["value"] for e in entries}
    lengths = list(dict.fromkeys(length for _, length in values))
    longest_first = sorted(values, key=lambda cell: -cell[1])  # what was too long for a short one is in its place there
    tasks = dict.fromkeys(name for name, _ in longest_first)
    rows = [[name, *(values.get((name, length)) for length in lengths)] for name in tasks]
    means = [float(np.mean([value for (_, at), value in values.items() if at == length])) for length in lengths]
    return table(("task", *(f"{length:,}" for length in lengths)), [*rows, ["mean", *means]])
