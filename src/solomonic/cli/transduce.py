"""Answer questions by labelled examples: memory, context, fine-tuning for one question, and the model without any.

    solomonic transduce MODEL --train examples.jsonl --test questions.jsonl --json answers.json

Either file has records with a text and a label, JSON lines, a JSON list, CSV or parquet, or is one of bAbI's. Of the
training set's labels the likeliest answers; of labels that differ in length, by the mean over their tokens. What Ctrl-C
or a crash left incomplete in the file of --json goes on by the same command; more --ways, or a larger --limit, add to it.
"""

import argparse
import hashlib
import json
import math
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._utils import jsontext
from .._utils.spelling import choose, counted, paragraph, warn
from ..model import LanguageModel
from ._device import device, dtype
from ._generation import check_found
from ._lookup import can_store, warn_unless_it_looks_up
from ._numbers import real, whole
from ._options import add_device, add_dtype, add_k, add_model, k_of
from ._table import table

if TYPE_CHECKING:
    from ..memory import Store

READS, MODELS, WRITES, MAKES = ("train", "test"), ("model",), ("json",), ("store",)
WAYS = ("memory", "context", "tuning", "none", "vote")
SAVED = 20.0  # seconds between two savings of --json


def arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add_model(command)
    add("--train", required=True, metavar="FILE", help="labelled examples")
    add("--test", required=True, metavar="FILE", help="questions with the labels that are right")
    add(
        "--fields",
        nargs=2,
        default=("text", "label"),
        metavar="F",
        help="fields of text and label (default text label)",
    )
    add("--ways", nargs="+", metavar="WAY", help=f"{', '.join(WAYS)} (default: all that the model has)")
    add(
        "--neighbours",
        type=whole(),
        default=8,
        metavar="N",
        help="examples in context, tuned on, that vote (default 8)",
    )
    add("--steps", type=whole(), default=5, metavar="N", help="steps of tuning (default 5)")
    add("--lr", type=real(), default=3e-3, metavar="X", help="learning rate of tuning (default 3e-3)")
    add_k(command)
    add(
        "--retrieval",
        default="hidden",
        metavar="HOW",
        help="how neighbours are found: hidden, by the nearest hidden states, or store, by the attention of its layers "
        "(default hidden)",
    )
    add("--store", metavar="URI", help="store to keep the examples in (default: in memory, for this run)")
    add("--template", metavar="T", help=r"how an example is written (default '{text}\n=> {label}\n')")
    add("--limit", type=whole(), metavar="N", help="the first N questions (default: all)")
    add_device(command)
    add_dtype(command)
    add("--json", type=Path, metavar="FILE", help="write every answer to this file; resume from it")


def run(args: argparse.Namespace, words: list[str]) -> int:
    import torch

    from .._utils.files import locked
    from .._utils.progress import Progress
    from ..checkpoints.folder import fingerprint, load
    from ..retrieval.examples import examples, labels_of
    from ..retrieval.transduce import NEAR, TEMPLATE, Settings, Transducer, remember_examples

    ways = [choose("way", way, dict.fromkeys(WAYS)) or way for way in dict.fromkeys(args.ways or WAYS)]
    template = TEMPLATE if args.template is None else args.template.replace("\\n", "\n").replace("\\t", "\t")
    settings = Settings(template, args.neighbours, args.steps, args.lr, k_of(args), args.retrieval)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit: expected a whole number >= 1, got {args.limit}")
    if args.store is not None and "memory" not in ways and settings.retrieval != "store":
        raise ValueError("--store is for --ways memory and --retrieval store; ask for one of them")
    train, test = (examples(path, tuple(args.fields)) for path in (args.train, args.test))
    labels = labels_of(train, test)
    questions = test[: args.limit]
    model, tokenizer = load(args.model, device(args.device), dtype(args.dtype))
    check_found(model, settings.found)
    stored = "memory" in ways or settings.retrieval == "store"
    if stored and can_store(model):
        warn_unless_it_looks_up(args.model, model)
    elif stored and (args.ways or args.store or settings.retrieval == "store"):
        raise ValueError(
            "memory, --store and --retrieval store: expected a model with an eidetic memory, got one without"
        )
    elif stored:
        warn("this model has no eidetic memory, and so no store: memory is left out")
        ways.remove("memory")
        stored = False
    same = {  # in every run that adds to a file
        "model": fingerprint(model),
        "train": _digest(train),
        "test": _digest(test),
        "settings": asdict(settings),
    }
    with ExitStack() as opened:
        if args.json is not None:
            opened.enter_context(locked(args.json, "writing answers there"))
        answers = _before(args.json, same, len(test))
        store, documents = None, []
        if stored:
            store = opened.enter_context(_store(args.store or "ram:", model))
            with Progress(len(train), "example", "store") as bar:
                documents = remember_examples(store, model, tokenizer, train, settings, bar.update)
        transducer = Transducer(model, tokenizer, train, settings, store, documents)
        if settings.retrieval == "hidden" and NEAR & {*ways}:
            with Progress(len(train), "example", "hidden states") as bar:
                transducer.prepare(bar.update)
        held = {way: transducer.bytes_of(way) for way in ways}

        def results(complete: bool) -> dict[str, Any]:
            seen = {example.text for example in train}
            commonest = Counter(example.label for example in train).most_common(1)[0][0]
            asked = [i for i in sorted(answers) if i < len(questions)]
            return same | {
                "labels": labels,
                "examples": len(train),
                "questions": len(asked),
                "of_them_in_train": sum(test[i].text in seen for i in asked),
                "chance": 1 / len(labels),
                "majority": sum(test[i].label == commonest for i in asked) / max(len(asked), 1),
                "device": str(model.device),
                "versions": {"solomonic": __version__, "torch": torch.__version__},
                "complete": complete,
                "ways": {way: _summary(answers, test, asked, way, held[way]) for way in ways},
                "answers": [
                    {"question": i, "source": test[i].source, "label": test[i].label} | answers[i]
                    for i in sorted(answers)
                ],
            }

        complete, saved = False, time.monotonic()
        try:
            todo = [(i, way) for i in range(len(questions)) for way in ways if way not in answers.get(i, ())]
            with Progress(len(todo), "answer", "transduce") as bar:
                for i, question in enumerate(questions):
                    missing = [way for way in ways if way not in answers.get(i, ())]
                    if missing:
                        new = transducer.answers(question.text, missing)
                        answers.setdefault(i, {}).update({way: asdict(answer) for way, answer in new.items()})
                        bar.update(len(missing))
                    if args.json and time.monotonic() - saved > SAVED:
                        _save(args.json, results(False))
                        saved = time.monotonic()
            complete = True
        finally:
            if answers:
                result = results(complete)
                if args.json:
                    _save(args.json, result)
                print(_shown(result, ways))
    return 0


def _store(uri: str, model: LanguageModel) -> "Store":
    """The store at `uri` as it is, made where it is not there."""
    from ..memory import Absent, open_store
    from ..retrieval.schema import store_schema

    try:
        open_store(uri).close()
    except Absent:
        return open_store(uri, store_schema(model), write=True)
    return open_store(uri, write=True)


def _digest(examples: list) -> str:
    rows = json.dumps([(example.text, example.label) for example in examples])
    return hashlib.blake2b(rows.encode(), digest_size=16).hexdigest()


def _before(path: Path | None, same: dict[str, Any], count: int) -> dict[int, dict[str, Any]]:
    """The answers that the file of an earlier run has, by question. ValueError where it is another run's."""
    if path is None or not path.is_file():
        return {}
    try:
        read = jsontext.read(path, dict)
        was = {name: read[name] for name in same}
        answers = {a["question"]: {way: a[way] for way in WAYS if way in a} for a in read["answers"]}
        sound = all(
            type(i) is int
            and 0 <= i < count
            and all(
                isinstance(a["label"], str) and type(a["seconds"]) is float and type(a["state"]) is int
                for a in by_way.values()
            )
            for i, by_way in answers.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, was = False, same
    if was != same:
        other = next(name for name in same if was[name] != same[name])
        raise ValueError(f"--json: {path} has the answers of a run with another {other}; name another file")
    if not sound:
        raise ValueError(f"--json: expected a file of answers to go on with, or none, got {path}; name another file")
    return answers


def _save(path: Path, result: dict[str, Any]) -> None:
    from .._utils.files import write

    write(path, jsontext.write(result, 1))


def _summary(answers: dict, test: list, asked: list[int], way: str, held: int) -> dict[str, Any]:
    """accuracy and its standard error, over the questions that are answered; the largest state; bytes of examples."""
    mine = [(answers[i][way], test[i].label) for i in asked if way in answers[i]]
    if not mine:
        return {"questions": 0}
    accuracy = sum(answer["label"] == label for answer, label in mine) / len(mine)
    return {
        "questions": len(mine),
        "accuracy": accuracy,
        "error": math.sqrt(accuracy * (1 - accuracy) / len(mine)),
        "seconds": sum(answer["seconds"] for answer, _ in mine) / len(mine),
        "state_bytes": max(answer["state"] for answer, _ in mine),
        "store_bytes": held,
    }


def _shown(result: dict[str, Any], ways: list[str]) -> str:
    examples = f"{counted(result['examples'], 'example')} of {counted(len(result['labels']), 'label')}"
    asked = f"{examples}; {counted(result['questions'], 'question')}"
    least = f"accuracy by chance {result['chance']:.3f}, of the commonest label {result['majority']:.3f}"
    lines = [paragraph(f"{asked}; {least}")]
    if again := result["of_them_in_train"]:
        stand = f"{counted(again, 'question')} {'stands' if again == 1 else 'stand'}"
        lines.append(paragraph(f"{stand} in the training set, word for word"))
    names = ("questions", "accuracy", "error", "seconds", "state_bytes", "store_bytes")
    rows = [[way, *(result["ways"][way].get(name) for name in names)] for way in ways]
    head = ("way", "questions", "accuracy", "standard error", "seconds each", "state bytes", "store bytes")
    return "\n".join([*lines, table(head, rows)])
