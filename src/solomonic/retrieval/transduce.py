"""Transductive inference: the answer to one question by labelled examples, without a model that was trained on them.

    none      the model alone, which has seen no example
    memory    a long-term store of the examples, which its layers attend to while it reads the question and answers
    context   the nearest examples in the prompt, the nearest last
    tuning    a few steps of Adam on the nearest examples, for this question alone
    vote      the label that most of the nearest examples have; no model answers

A question, and an example without its label, is the template up to {label}. A label y = y_1 .. y_n, with what follows it
in the template, has the score (1/n) ln p(y | question); the label with the largest score is the answer. It is the mean,
so that a label of many tokens is not at a disadvantage; among labels of as many tokens it ranks as p does.

The nearest examples are those whose hidden states, their mean over tokens and less the mean of all examples, have the
largest cosine with the question's; or those in the store that its layers attend to most.

Laws: the model is never changed (a copy is tuned); an answer depends on the question, the
examples and the settings, not on other questions; with no example stored, `memory` equals `none`.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from .._utils.spelling import choose
from ..data.tokenizer import Tokenizer
from ..evaluation.score import continuations, reading
from ..memory import Store
from ..model import LanguageModel
from .attach import Attached, Passage
from .examples import Example, labels_of
from .remember import Names, digest, remember

WAYS = ("none", "memory", "context", "tuning", "vote")
NEAR = {"context", "tuning", "vote"}  # the ways that retrieve the nearest examples
RETRIEVALS = ("hidden", "store")
TEMPLATE = "{text}\n=> {label}\n"


@dataclass(frozen=True)
class Settings:
    """neighbours: examples that are retrieved. steps, lr: of tuning. found: tokens that a head finds in the store for each."""

    template: str = TEMPLATE
    neighbours: int = 8
    steps: int = 5
    lr: float = 3e-3
    found: int = 4
    retrieval: str = "hidden"

    def __post_init__(self) -> None:
        for name, least in {"neighbours": 1, "steps": 0, "found": 1}.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise ValueError(f"{name}: expected a whole number >= {least}, got {value!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: expected a number > 0, got {self.lr!r}")
        choose("retrieval", self.retrieval, dict.fromkeys(RETRIEVALS))
        before, label, after = self.template.partition("{label}")
        if not label or "{text}" not in before or "{label}" in after or "{text}" in after:
            raise ValueError(f"template: expected {{text}}, and {{label}} once and after it, got {self.template!r}")

    def question(self, text: str) -> str:
        return self.template.partition("{label}")[0].replace("{text}", text)

    def answer(self, label: str) -> str:
        return label + self.template.partition("{label}")[2]


@dataclass(frozen=True)
class Answer:
    """scores: of each label, in sorted order: mean ln p a token, or votes. seconds: to answer, with retrieval.

    state: bytes that are held meanwhile, besides the model and the examples.
    """

    label: str
    scores: tuple[float, ...]
    seconds: float
    state: int


def remember_examples(
    store: Store,
    model: LanguageModel,
    tokenizer: Tokenizer,
    train: Sequence[Example],
    settings: Settings = Settings(),
    report: Callable[[int], None] = lambda examples: None,
) -> list[int]:
    """Ids of the documents of `train` in `store`, one each, in order; examples that are not there yet are read into it."""
    attached, names, documents = Attached(model, store), Names(store), []
    for example in train:
        question = settings.question(example.text).encode("utf-8", "replace")
        data = question + settings.answer(example.label).encode("utf-8", "replace")
        name = names(example.source, data) if example.source else example.text
        document = remember(attached, tokenizer, name, data, cuts=[len(question)])
        document = document or store.find(name, digest(data))
        assert document is not None
        documents.append(document.id)
        report(1)
    return documents


Scores = tuple[tuple[float, ...], int]
"""The score of each label, and the bytes of state that they took."""


class Transducer:
    """`model` and labelled examples `train`. store, documents: of the examples, as `remember_examples` returns them.

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
        self.model, self.tokenizer, self.store = model, tokenizer, store
        self.train, self.settings = list(train), settings
        self.labels = labels_of(train, ())
        self._answers = [tokenizer.encode(settings.answer(label)) for label in self.labels]
        self._row = {document: row for row, document in enumerate(documents)}
        self._attached: Attached | None = None
        self._watched: Attached | None = None  # which adds to `_weights`
        self._weights: dict[int, float] = {}  # the attention to each example
        if store is not None:
            only = self._row.keys() if len(store.documents()) > len(self._row) else None
            self._attached = Attached(model, store, k=settings.found, only=only)
            self._watched = Attached(model, store, k=settings.found, only=only, watch=self._add_weights)
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
        near: list[int] = []
        retrieval = 0.0  # seconds
        if NEAR & {*ways}:
            self.prepare()
            start = time.perf_counter()
            near = self.nearest(text)
            retrieval = time.perf_counter() - start
        answers = {}
        for way in ways:
            start = time.perf_counter()
            scores, state = getattr(self, f"_{way}")(text, near)
            label = self.labels[max(range(len(scores)), key=scores.__getitem__)]
            seconds = time.perf_counter() - start + (retrieval if way in NEAR else 0.0)
            answers[way] = Answer(label, scores, seconds, state)
        return answers

    def prepare(self, report: Callable[[int], None] = lambda examples: None) -> None:
        """Compute the hidden states of all examples once, where retrieval needs them; later calls do nothing."""
        if self.settings.retrieval == "hidden" and self._hidden is None:
            rows = []
            for example in self.train:
                rows.append(self._vector(example.text))
                report(1)
            vectors = torch.stack(rows)
            self._mean = vectors.mean(0)
            self._hidden = normalize(vectors - self._mean, dim=-1)

    def nearest(self, text: str) -> list[int]:
        """Indices into `train` of the examples nearest to `text`, the nearest first; of equal ones the earlier first."""
        self.prepare()
        count = self.settings.neighbours
        if self.settings.retrieval == "hidden":
            assert self._hidden is not None
            nearness = self._hidden @ normalize(self._vector(text) - self._mean, dim=-1)
            indices: list[int] = nearness.sort(descending=True, stable=True).indices[:count].tolist()
            return indices
        self._weights.clear()
        with reading(self.model) as device:
            assert self._watched is not None
            self._watched(torch.from_numpy(self._question(text))[None].to(device))
        return sorted(self._weights, key=lambda row: (-self._weights[row], row))[:count]

    def _add_weights(self, passages: list[Passage]) -> None:
        for passage in passages:
            row = self._row[passage.document]
            self._weights[row] = self._weights.get(row, 0.0) + passage.weight

    def bytes_of(self, way: str) -> int:
        """Bytes of the examples that this way keeps: in the store, or as texts, labels and hidden states."""
        if way == "none":
            return 0
        if way == "memory" or self.settings.retrieval == "store":
            assert self.store is not None
            return sum(document.bytes for document in self.store.documents() if document.id in self._row)
        self.prepare()
        assert self._hidden is not None
        return self._hidden.nbytes + sum(len((e.text + e.label).encode("utf-8", "replace")) for e in self.train)

    def _none(self, text: str, near: list[int]) -> Scores:
        return self._score(self.model, self._question(text))

    def _memory(self, text: str, near: list[int]) -> Scores:
        assert self._attached is not None
        return self._score(self._attached, self._question(text))

    def _context(self, text: str, near: list[int]) -> Scores:
        parts = [part for row in reversed(near) for part in self._example(self.train[row])]
        return self._score(self.model, np.concatenate([*parts, self._question(text)]))

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
        callable_model = cast(LanguageModel, model)  # an `Attached` is called as a model is
        [scores] = continuations(callable_model, [(context, self._answers)], batch=16)
        means = tuple(log_p / len(tokens) for (log_p, _), tokens in zip(scores, self._answers))
        return means, self.model.state_bytes(len(context))

    def _tuned(self, near: list[int]) -> LanguageModel:
        """A copy of the model after `steps` on the labels of the examples `near`."""
        if self._copy is None:
            self._copy = copy.deepcopy(self.model).eval().requires_grad_(True)
        model, steps = self._copy, self.settings.steps if near else 0
        model.load_state_dict(self.model.state_dict())
        parts = [self._example(self.train[row]) for row in near]
        device, longest = model.device, max((len(a) + len(b) for a, b in parts), default=0)
        tokens = torch.zeros(len(parts), longest, dtype=torch.int64)
        scored = torch.zeros(len(parts), longest, dtype=torch.bool)
        for row, (question, answer) in enumerate(parts):
            end = len(question) + len(answer)
            tokens[row, :end] = torch.from_numpy(np.concatenate([question, answer]))
            scored[row, len(question) : end] = True
        real = scored.flip(1).cumsum(1).flip(1) > 0  # up to the last token that is scored
        tokens, scored, real = (x.to(device) for x in (tokens, scored, real))
        optimizer = torch.optim.Adam(model.parameters(), lr=self.settings.lr)
        for _ in range(steps):
            optimizer.zero_grad()
            logits, _ = model(tokens[:, :-1], mask=real[:, :-1])
            cross_entropy(logits[scored[:, 1:]].float(), tokens[:, 1:][scored[:, 1:]]).backward()
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
    "Settings",
    "Transducer",
    "remember_examples",
]
