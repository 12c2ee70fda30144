"""Benchmarks in text: a prompt of any length in tokens, what the model says after it, and a score of that.

A task drafts a prompt whose filler comes in units, sentences, lines or paragraphs; `draw` takes as many as fill a length.
`length` counts the tokens of the prompt and those that may be generated. RULER (`ruler.py`) and BABILong (`babilong.py`)
are lists of such tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..data.tokenizer import Tokenizer
from ..inference.generation import generate
from .score import ScoredModel, reading

TRIES, ENOUGH = 6, 0.99  # texts that are tried for a prompt at most; the share of its tokens that is enough
LONG = 8192  # tokens from which on a longer prompt takes no more to ask
MARGIN = 16  # tokens that may be generated beyond those of the answers

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """A prompt of any length: `text(n)` has n units of what fills it, `least` <= n <= `most`."""

    text: Callable[[int], str]
    answers: list[str]
    written: str  # the answers as a model may write them
    most: int
    least: int = 1
    question: str = ""  # where its words matter to the score


@dataclass(frozen=True)
class TextTask:
    """`draft(rng=, length=)` depends on the generator alone up to where a longer prompt needs more: the same question at
    every length. `score(text, draft)` of what was generated is in [0, 1]."""

    name: str
    draft: Callable[..., Draft]
    room: int  # tokens to generate at most, or more where the answers take more
    score: Callable[[str, Draft], float]


@dataclass(frozen=True)
class Example:
    tokens: np.ndarray  # (T,) int64, the prompt
    draft: Draft
    room: int  # tokens to generate at most; T + room <= length


@dataclass(frozen=True)
class TaskScore:
    """`value`: the mean score over samples; `tokens`: the mean length of the prompts."""

    task: str
    length: int
    samples: int
    value: float
    tokens: float


def ask(
    model: ScoredModel,
    tokenizer: Tokenizer,
    tasks: Sequence[TextTask],
    lengths: Sequence[int],
    samples: int = 10,
    seed: int = 0,
    batch: int = 8,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda tokens: None,
) -> Iterator[TaskScore]:
    """A score for each length and task, as they are done; `report` gets `length` for each prompt.

    The same seed asks the same of every model, and at every length. Decoding is greedy, up to a token that ends a text or the
    tokens that the task allows. ValueError for a length that is too short for a task.
    """
    for length in lengths:
        for task in tasks:
            examples = list(draw(task, tokenizer, length, samples, seed))
            scores = []
            with reading(model):
                for first in range(0, samples, batch):
                    part = examples[first : first + batch]
                    prompts = [one.tokens.tolist() for one in part]
                    most = max(one.room for one in part)
                    texts = generate(model, prompts, max_tokens=most, ends=tokenizer.ends, chunk=chunk)
                    scores += [
                        task.score(tokenizer.decode(text[: one.room]), one.draft) for one, text in zip(part, texts)
                    ]
                    report(length * len(part))
            tokens = float(np.mean([len(one.tokens) for one in examples]))
            yield TaskScore(task.name, length, samples, float(np.mean(scores)), tokens)


def between(units: Sequence[T], own: Sequence[T], depths: np.ndarray) -> list[T]:
    """`units` with `own` between them: each where its depth in [0, 1) says, 0 before the first; depths do not fall."""
    at = [int(depth * (len(units) + 1)) for depth in depths]
    mixed = list(units[: at[0] if at else None])
    for one, start, stop in zip(own, at, [*at[1:], None]):
        mixed += [one, *units[start:stop]]
    return mixed


def shortest(task: TextTask, tokenizer: Tokenizer, length: int, samples: int, seed: int = 0) -> int:
    """The tokens that the prompts of `draw` take at most with the least filler, and those to generate with them."""
    drafts = (_draft(task, min(length, LONG), seed, sample) for sample in range(samples))
    return max(len(tokenizer.encode(d.text(d.least))) + _room(task, tokenizer, d) for d in drafts)


def draw(task: TextTask, tokenizer: Tokenizer, length: int, samples: int, seed: int = 0) -> Iterator[Example]:
    """Prompts that fill `length` tokens, up to a unit of filler, with those to generate.

    How long a text may be is known from the tokens a character of the last one: a prompt is tokenized two or three times,
    and counts as full from 99 in 100 of the tokens on. ValueError for a length that the task does not fit.
    """
    rate = None  # tokens a character
    for sample in range(samples):
        draft = _draft(task, length, seed, sample)
        room = _room(task, tokenizer, draft)
        bare = tokenizer.encode(text := draft.text(draft.least))
        if (least := len(bare) + room) > length:
            raise ValueError(
                f"{task.name}: expected a length of {least:,} tokens or more, which it takes to ask and to answer, got "
                f"{length:,}; take a larger one"
            )
        tokens, rate = _fitted(draft, tokenizer, length - room, bare, rate or len(bare) / len(text))
        yield Example(tokens, draft, room)


def _fitted(draft: Draft, tokenizer: Tokenizer, budget: int, bare: np.ndarray, rate: float) -> tuple[np.ndarray, float]:
    """The longest prompt found of at most `budget` tokens, and its tokens a character: `rate` says how long to try first."""
    best, best_rate = bare, rate
    for attempt in range(TRIES):
        n = _units(draft, budget / rate)
        tokens = tokenizer.encode(text := draft.text(n))
        rate = len(tokens) / len(text)
        if len(best) <= len(tokens) <= budget:
            best, best_rate = tokens, rate
            if len(tokens) >= ENOUGH * budget or _units(draft, budget / rate) == n:
                break
        elif len(tokens) > budget:
            rate *= 1 + 0.002 * 2**attempt
    return best, best_rate


def _units(draft: Draft, size: float) -> int:
    """The most units with which the prompt has at most `size` characters; `least` where none."""
    least, most = draft.least, draft.least + 1
    while most < draft.most and len(draft.text(most)) <= size:
        least, most = most, min(2 * most, draft.most)
    if most == draft.most and len(draft.text(most)) <= size:
        return most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if len(draft.text(middle)) <= size else (least, middle)
    return least


def _draft(task: TextTask, length: int, seed: int, sample: int) -> Draft:
    return task.draft(rng=np.random.default_rng([seed, sample, *task.name.encode()]), length=length)


def _room(task: TextTask, tokenizer: Tokenizer, draft: Draft) -> int:
    return max(task.room, len(tokenizer.encode(draft.written)) + MARGIN)


__all__ = ["LONG", "Draft", "Example", "TaskScore", "TextTask", "ask", "between", "draw", "shortest"]
