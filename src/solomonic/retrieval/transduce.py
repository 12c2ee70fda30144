"""Transductive inference: the answer to one question by labelled examples, without a model that was trained on them.

    none      the model alone, which has seen no example
    memory    a long-term store of the examples, which its layers attend to while it reads the question and answers
    context   the nearest examples in the prompt, the nearest last
    tuning    a few steps of Adam on the nearest examples, for this question alone
    vote      the label that most of the nearest examples have; no model answers

A question, and an example without its label, is the template up to {label}. A label y = y_1 .. y_n, what follows it in
the template among its tokens, scores (1/n) ln p(y | question); the largest answers. The mean, so that a label of many
tokens is not at a disadvantage; where all have as many, it ranks as p does.

The nearest examples are those whose hidden states, their mean over tokens and less the mean of all examples, have the
largest cosine with the question's; or those in the store that its layers attend to most.

Laws: the model is never changed, not even for a moment (a copy is tuned); an answer depends on the question, the
examples and the settings, not on other questions; with no example stored, `memory` equals `none`.
"""

import copy
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from .._utils.spelling import choose, unknown
from ..data.records import FORMS, LIST, LOOKED_AT, records, text_lines, unfit, utf8
from ..data.tokenizer import Tokenizer
from ..evaluation.score import continuations, reading
from ..memory import Store
from ..model import LanguageModel
from .attach import Attached, Passage
from .remember import Names, digest, remember

WAYS = ("none", "memory", "context", "tuning", "vote")
NEAR = {"context", "tuning", "vote"}  # the ways that retrieve the nearest examples
RETRIEVALS = ("hidden", "store")
FIELDS = ("text", "label")
BABI = "bAbI"
BABI_LINE = re.compile(r"(?P<number>[0-9]+) (?P<text>[^\t]+)(?:\t(?P<answer>[^\t]+)(?:\t[0-9 ]*)?)?")
TEMPLATE = "{text}\n=> {label}\n"


@dataclass(frozen=True)
class Example:
    """source: where it stands, as a person finds it."""

    text: str
    label: str
    source: str = ""


@dataclass(frozen=True)
class Settings:
    """neighbours: examples that are retrieved. steps, lr: of tuning. found: stored tokens a head finds for a token."""

    template: str = TEMPLATE
    neighbours: int = 8
    steps: int = 5
    lr: float = 3e-3
    found: int = 4
    retrieval: str = "hidden"

    def __post_init__(self):
        for name, least in {"neighbours": 1, "steps": 0, "found": 1}.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise ValueError(f"{name}: expected a whole number >= {least}, got {value!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: expected a number > 0, got {self.lr!r}")
        choose("retrieval", self.retrieval, dict.fromkeys(RETRIEVALS))
        before, found, after = self.template.partition("{label}")
        if not found or "{text}" not in before or "{label}" in after or "{text}" in after:
            raise ValueError(f"template: expected {{text}}, and {{label}} once and after it, got {self.template!r}")

    def question(self, text: str) -> str:
        return self.template.partition("{label}")[0].replace("{text}", text)

    def answer(self, label: str) -> str:
        return label + self.template.partition("{label}")[2]


@dataclass(frozen=True)
class Answer:
    """scores: of each label, as they are sorted: mean ln p a token, or votes. seconds: to find it, retrieval included.

    state: bytes that are held meanwhile, besides the model and the examples.
    """

    label: str
    scores: tuple[float, ...]
    seconds: float
    state: int


def examples(path: str | Path, fields: tuple[str, str] = FIELDS) -> list[Example]:
    """Of a file of records, each with a text and a label, or of bAbI's own form, as `babi` has it.

    The form is told by the extension, as in `corpus.records`, or by how the file begins. A label is text, a whole number
    or a truth. ValueError for a file that is not there, has no examples, or has something else in it.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        came = "a folder" if path.is_dir() else "it is not there"
        raise ValueError(f"{path}: expected a file of labelled examples; {came}")
    content = path.read_bytes()
    form = path.suffix.lower() if path.suffix.lower() in FORMS else _form(path, content)
    if form == BABI:
        if tuple(fields) != FIELDS:
            raise ValueError(
                f"{path}: expected records with {fields[0]!r} and {fields[1]!r}, got bAbI; leave --fields out"
            )
        found = babi(path, content)
    else:
        found = []
        for where, number, value in records(path, content, fields[:1], fields[1:], infinite=True, form=form):
            text, label = (value.get(name) if isinstance(value, dict) else None for name in fields)
            if isinstance(label, float) and label.is_integer():  # as a table with gaps has whole numbers
                label = int(label)
            if type(label) in (bool, int):
                label = str(label).lower()  # as JSON has it
            if not isinstance(text, str) or not isinstance(label, str) or not label:
                has = type(value).__name__
                if isinstance(value, dict):
                    has = ", ".join(f"{name} ({type(one).__name__})" for name, one in value.items())
                raise ValueError(
                    f"{where}: expected an object with a text under {fields[0]!r} and a label, text, a whole number or a "
                    f"truth, under {fields[1]!r}, got {has or 'an empty one'}; --fields names others"
                )
            found.append(Example(utf8(text).decode(), utf8(label).decode(), f"{path}:{number}"))
    if not found:
        raise ValueError(f"{path}: expected labelled examples, got none")
    return found


def babi(path: Path, content: bytes) -> list[Example]:
    """An example a question: the statements of its story so far and the question, a line each; its answer is the label.

        1 Mary moved to the bathroom.
        2 Where is Mary? <tab> bathroom <tab> 1

    A story begins at number 1. ValueError, by line, for what is neither a statement nor a question.
    """
    found: list[Example] = []
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
            found.append(
                Example("\n".join([*story, parts["text"].rstrip()]), parts["answer"].strip(), f"{path}:{number}")
            )
    return found


def _form(path: Path, content: bytes) -> str:
    """Of a file whose extension says nothing."""
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


def check(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """The labels of `train`, sorted. ValueError where there are not two, or `test` has another."""
    labels = sorted({example.label for example in train})
    if len(labels) < 2:
        raise ValueError(f"expected examples of two labels or more, got only {labels[0]!r}")
    for example in test:
        if example.label not in labels:
            raise ValueError(f"{example.source}: {unknown('label', example.label, labels)}, as the training set has")
    return labels


def remember_examples(
    store: Store,
    model: LanguageModel,
    tokenizer: Tokenizer,
    train: Sequence[Example],
    settings: Settings = Settings(),
    report: Callable[[int], None] = lambda examples: None,
) -> list[int]:
    """The documents of `train` in `store`, one each, in their order; those that are not there yet are read into it."""
    attached, names, found = Attached(model, store), Names(store), []
    for example in train:
        question = settings.question(example.text).encode("utf-8", "replace")
        data = question + settings.answer(example.label).encode("utf-8", "replace")
        name = names(example.source, data) if example.source else example.text
        document = remember(attached, tokenizer, name, data, cuts=[len(question)])
        document = document or store.find(name, digest(data))
        found.append(document.id)
        report(1)
    return found


Scores = tuple[tuple[float, ...], int]
"""Of each label, and the bytes of state that they took."""


class Transducer:
    """`model` and labelled examples `train`. store, documents: of the examples, as `remember_examples` gives them.

    ValueError for examples of one label only, or a way or retrieval that lacks a store.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        train: Sequence[Example],
        settings: Settings = Settings(),
        store: Store | None = None,
        documents: Sequence[int] = (),
    ):
        self.model, self.tokenizer, self.train, self.settings, self.store = (
            model,
            tokenizer,
            list(train),
            settings,
            store,
        )
        self.labels = check(train, ())
        self._answers = [tokenizer.encode(settings.answer(label)) for label in self.labels]
        self._row = {document: row for row, document in enumerate(documents)}
        self._attached = self._searched = None
        self._weights: dict[int, float] = {}  # that the search gave to examples
        if store is not None:
            only = self._row.keys() if len(store.documents()) > len(self._row) else None
            self._attached, self._searched = (
                Attached(model, store, k=settings.found, only=only, watch=watch) for watch in (None, self._hear)
            )
        elif settings.retrieval == "store":
            raise ValueError("retrieval: expected a store to search, got none; pass one, or choose hidden")
        self._hidden: Tensor | None = None  # (examples, d_model)
        self._copy: LanguageModel | None = None  # that is tuned

    def answers(self, text: str, ways: Sequence[str] = WAYS) -> dict[str, Answer]:
        """Of each of `ways`. ValueError for an unknown way, one that lacks a store, or tuning that diverged."""
        for way in ways:
            choose("way", way, dict.fromkeys(WAYS))
        if "memory" in ways and self._attached is None:
            raise ValueError("memory: expected a store of the examples, got none")
        near, searched = [], 0.0
        if NEAR & {*ways}:
            self.prepare()
            begun = time.perf_counter()
            near = self.nearest(text)
            searched = time.perf_counter() - begun
        found = {}
        for way in ways:
            begun = time.perf_counter()
            scores, state = getattr(self, f"_{way}")(text, near)
            label = self.labels[max(range(len(scores)), key=scores.__getitem__)]
            seconds = time.perf_counter() - begun + (searched if way in NEAR else 0.0)
            found[way] = Answer(label, scores, seconds, state)
        return found

    def prepare(self, report: Callable[[int], None] = lambda examples: None) -> None:
        """Read all examples once, where retrieval by hidden states needs them; later calls do nothing."""
        if self.settings.retrieval == "hidden" and self._hidden is None:
            rows = []
            for example in self.train:
                rows.append(self._vector(example.text))
                report(1)
            vectors = torch.stack(rows)
            self._mean = vectors.mean(0)
            self._hidden = normalize(vectors - self._mean, dim=-1)

    def nearest(self, text: str) -> list[int]:
        """The examples nearest to `text`, by their places in `train`, the nearest first; the earlier of equal ones."""
        self.prepare()
        count = self.settings.neighbours
        if self.settings.retrieval == "hidden":
            nearness = self._hidden @ normalize(self._vector(text) - self._mean, dim=-1)
            return nearness.sort(descending=True, stable=True).indices[:count].tolist()
        self._weights.clear()
        with reading(self.model) as device:
            self._searched(torch.from_numpy(self._question(text))[None].to(device))
        return sorted(self._weights, key=lambda row: (-self._weights[row], row))[:count]

    def _hear(self, passages: list[Passage]) -> None:
        for passage in passages:
            row = self._row[passage.document]
            self._weights[row] = self._weights.get(row, 0.0) + passage.weight

    def bytes_of(self, way: str) -> int:
        """What is kept of the examples for this way: their place in the store, or texts, labels and hidden states."""
        if way == "none":
            return 0
        if way == "memory" or self.settings.retrieval == "store":
            return sum(document.bytes for document in self.store.documents() if document.id in self._row)
        self.prepare()
        return self._hidden.nbytes + sum(len((e.text + e.label).encode("utf-8", "replace")) for e in self.train)

    def _none(self, text: str, near: list[int]) -> Scores:
        return self._score(self.model, self._question(text))

    def _memory(self, text: str, near: list[int]) -> Scores:
        return self._score(self._attached, self._question(text))

    def _context(self, text: str, near: list[int]) -> Scores:
        shown = [part for row in reversed(near) for part in self._example(self.train[row])]
        return self._score(self.model, np.concatenate([*shown, self._question(text)]))

    def _tuning(self, text: str, near: list[int]) -> Scores:
        try:
            scores, state = self._score(self._tuned(near), self._question(text))
        except ValueError:
            raise ValueError("tuning: expected finite scores, got others; tune with a lower lr") from None
        return scores, state + 4 * sum(p.nbytes for p in self.model.parameters())  # weights, gradients, two moments

    def _vote(self, text: str, near: list[int]) -> Scores:
        votes = [0.0] * len(self.labels)
        for rank, row in enumerate(near):
            votes[self.labels.index(self.train[row].label)] += 1 + 2.0 ** -(rank + 2)  # of equal counts the nearest
        return tuple(votes), 0

    def _score(self, model: LanguageModel | Attached, context: np.ndarray) -> Scores:
        [found] = continuations(model, [(context, self._answers)], batch=16)
        means = tuple(log_p / len(tokens) for (log_p, _), tokens in zip(found, self._answers))
        return means, self.model.state_bytes(len(context))

    def _tuned(self, near: list[int]) -> LanguageModel:
        """A copy of the model after `steps` on the labels of the examples `near`."""
        if self._copy is None:
            self._copy = copy.deepcopy(self.model).eval().requires_grad_(True)
        model, steps = self._copy, self.settings.steps if near else 0
        model.load_state_dict(self.model.state_dict())
        parts = [self._example(self.train[row]) for row in near]
        device, longest = model.embedding.weight.device, max((len(a) + len(b) for a, b in parts), default=0)
        tokens = torch.zeros(len(parts), longest, dtype=torch.int64)
        asked = torch.zeros(len(parts), longest, dtype=torch.bool)
        for row, (question, answer) in enumerate(parts):
            end = len(question) + len(answer)
            tokens[row, :end] = torch.from_numpy(np.concatenate([question, answer]))
            asked[row, len(question) : end] = True
        real = asked.flip(1).cumsum(1).flip(1) > 0  # up to the last token that is asked for
        tokens, asked, real = (x.to(device) for x in (tokens, asked, real))
        optimizer = torch.optim.Adam(model.parameters(), lr=self.settings.lr)
        for _ in range(steps):
            optimizer.zero_grad()
            logits, _ = model(tokens[:, :-1], mask=real[:, :-1])
            cross_entropy(logits[asked[:, 1:]].float(), tokens[:, 1:][asked[:, 1:]]).backward()
            optimizer.step()
        optimizer.zero_grad()
        return model

    def _vector(self, text: str) -> Tensor:
        """(d_model,) float32: the mean of the hidden states of a question."""
        with reading(self.model) as device:
            tokens = torch.from_numpy(self._question(text))[None].to(device)
            hidden, _ = self.model.hidden(self.model.embed(tokens))
            return hidden[0].float().mean(0).cpu()

    def _question(self, text: str) -> np.ndarray:
        return self.tokenizer.encode(self.settings.question(text))

    def _example(self, example: Example) -> tuple[np.ndarray, np.ndarray]:
        return self._question(example.text), self._answers[self.labels.index(example.label)]


__all__ = [
    "NEAR",
    "RETRIEVALS",
    "TEMPLATE",
    "WAYS",
    "Answer",
    "Example",
    "Settings",
    "Transducer",
    "check",
    "examples",
    "remember_examples",
]
