"""Labelled examples from files: records with a text and a label, or bAbI's own form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._utils.spelling import unknown
from ..data.records import FORMS, LIST, LOOKED_AT, records, text_lines, unfit, utf8

FIELDS = ("text", "label")
BABI = "bAbI"
BABI_LINE = re.compile(r"(?P<number>[0-9]+) (?P<text>[^\t]+)(?:\t(?P<answer>[^\t]+)(?:\t[0-9 ]*)?)?")


@dataclass(frozen=True)
class Example:
    """A text and its label. source: the file and line, or record, that it was read from."""

    text: str
    label: str
    source: str = ""


def examples(path: str | Path, fields: tuple[str, str] = FIELDS) -> list[Example]:
    """The examples of a file of records, each with a text and a label under `fields`, or of bAbI's own form (`babi`).

    The extension tells the form, as in `data.records`, or else the beginning of the file. A label is text, a whole number
    or a truth. ValueError for a file that is not there, has no examples, or has something else in it.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        problem = "a folder" if path.is_dir() else "it is not there"
        raise ValueError(f"{path}: expected a file of labelled examples; {problem}")
    content = path.read_bytes()
    form = path.suffix.lower() if path.suffix.lower() in FORMS else _form(path, content)
    if form == BABI:
        if tuple(fields) != FIELDS:
            raise ValueError(
                f"{path}: expected records with {fields[0]!r} and {fields[1]!r}, got bAbI; leave --fields out"
            )
        labelled = babi(path, content)
    else:
        labelled = []
        for where, number, value in records(path, content, fields[:1], fields[1:], form=form):
            text, label = (value.get(name) if isinstance(value, dict) else None for name in fields)
            if isinstance(label, float) and label.is_integer():  # as a table with gaps has whole numbers
                label = int(label)
            if type(label) in (bool, int):
                label = str(label).lower()  # as JSON has it
            if not isinstance(text, str) or not isinstance(label, str) or not label:
                has = type(value).__name__
                if isinstance(value, dict):
                    has = ", ".join(f"{name} ({type(field).__name__})" for name, field in value.items())
                raise ValueError(
                    f"{where}: expected an object with a text under {fields[0]!r} and a label, text, a whole number or a "
                    f"truth, under {fields[1]!r}, got {has or 'an empty one'}; --fields names others"
                )
            labelled.append(Example(utf8(text).decode(), utf8(label).decode(), f"{path}:{number}"))
    if not labelled:
        raise ValueError(f"{path}: expected labelled examples, got none")
    return labelled


def babi(path: Path, content: bytes) -> list[Example]:
    """An example for each question: the statements of its story so far and the question, a line each, with its answer.

        1 Mary moved to the bathroom.
        2 Where is Mary? <tab> bathroom <tab> 1

    A story begins at number 1. ValueError, by line, for what is neither a statement nor a question.
    """
    labelled: list[Example] = []
    story: list[str] = []
    for number, line in text_lines(content):
        parts = BABI_LINE.fullmatch(line.decode("utf-8", "replace"))
        if parts is None:
            raise ValueError(
                f"{path}, line {number}: expected a number and a statement, or a question, its answer and the numbers of "
                f"statements, with tabs between them, got {line[:60]!r}"
            )
        story = [] if parts["number"] == "1" else story
        if parts["answer"] is None:
            story.append(parts["text"])
        else:
            labelled.append(
                Example("\n".join([*story, parts["text"].rstrip()]), parts["answer"].strip(), f"{path}:{number}")
            )
    return labelled


def _form(path: Path, content: bytes) -> str:
    """The form of a file whose extension tells none."""
    if what := unfit(content[:LOOKED_AT]):
        raise ValueError(f"{path}: expected labelled examples, got a file that is {what}")
    _, first = next(text_lines(content))
    if first.lstrip()[:1] in (b"{", b"["):
        return LIST
    if BABI_LINE.fullmatch(first.decode("utf-8", "replace")):
        return BABI
    raise ValueError(
        f"{path}: expected labelled examples, JSON lines (.jsonl), a JSON list (.json), CSV (.csv, .tsv), parquet, or bAbI, got "
        f"something else, which begins with {first[:60].decode('utf-8', 'replace')!r}"
    )


def labels_of(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """The labels of `train`, sorted. ValueError where there are not two, or `test` has another."""
    labels = sorted({example.label for example in train})
    if len(labels) < 2:
        raise ValueError(f"expected examples of two labels or more, got only {labels[0]!r}")
    for example in test:
        if example.label not in labels:
            raise ValueError(f"{example.source}: {unknown('label', example.label, labels)}, as the training set has")
    return labels


__all__ = ["Example", "babi", "examples", "labels_of"]
