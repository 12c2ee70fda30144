"""RULER (arXiv 2404.06654): its thirteen tasks as text, for any model, at any length in tokens.

    niah_...    sentences "The secret number of quiet-mill is 4810932." in a text; one, several or all keys are asked
    vt          chains of assignments "VAR AXQPZ = 48109", "VAR LWOEI = VAR AXQPZ"; the variables of a value are asked
    cwe, fwe    the words that come most often in a list: ten of them, and three by a zeta law
    qa_1, qa_2  a question about one paragraph, or about two, among others

Tasks, their sizes and their scores are those of RULER, read in the port of
lm-evaluation-harness; the sentences, words and texts are this library's own, so that numbers of the two are not to be
compared. `length` counts the tokens of the prompt and those that may be generated.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .._utils.spelling import unknown
from ..data.tokenizer import Tokenizer
from ..inference.generation import generate
from .ruler_tasks import LONG, TASKS, Draft, Source
from .score import ScoredModel, reading

TRIES, ENOUGH = 6, 0.99  # texts that are tried for a prompt at most; the share of its tokens that is enough


@dataclass(frozen=True)
class Example:
    tokens: np.ndarray  # (T,) int64, the prompt
    answers: list[str]
    room: int  # tokens to generate at most; T + room <= length


@dataclass(frozen=True)
class RulerScore:
    """`value`: the mean over samples of the share of answers that the text holds; of qa, whether it holds one of them.

    `tokens`: the mean length of the prompts.
    """

    task: str
    length: int
    samples: int
    value: float
    tokens: float


def ruler(
    model: ScoredModel,
    tokenizer: Tokenizer,
    source: Source,
    lengths: Sequence[int],
    tasks: Sequence[str] | None = None,
    samples: int = 10,
    seed: int = 0,
    batch: int = 8,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda tokens: None,
) -> Iterator[RulerScore]:
    """A score for each length and task (None: all), as they are done; `report` gets `length` for each prompt.

    The same seed asks the same of every model, and at every length. Decoding is greedy, up to a token that ends a text or the
    tokens that RULER allows, more where the answers take more. ValueError for an unknown task, or a length that is too
    short for one.
    """
    for length in lengths:
        for name in names(tasks):
            examples = list(draw(name, tokenizer, length, source, samples, seed))
            shares = []
            with reading(model):
                for first in range(0, samples, batch):
                    part = examples[first : first + batch]
                    prompts = [one.tokens.tolist() for one in part]
                    most = max(one.room for one in part)
                    texts = generate(model, prompts, max_tokens=most, ends=tokenizer.ends, chunk=chunk)
                    shares += [
                        share(name, tokenizer.decode(text[: one.room]), one.answers) for one, text in zip(part, texts)
                    ]
                    report(length * len(part))
            tokens = float(np.mean([len(one.tokens) for one in examples]))
            yield RulerScore(name, length, samples, float(np.mean(shares)), tokens)


def names(tasks: Sequence[str] | None = None) -> list[str]:
    """`tasks` in RULER's order, all where None. ValueError for one that is not there."""
    for name in tasks or ():
        if name not in TASKS:
            raise unknown("task of ruler", name, TASKS)
    return [name for name in TASKS if tasks is None or name in tasks]


def share(name: str, text: str, answers: Sequence[str]) -> float:
    """RULER's string match: the share of the answers that `text` holds, or for qa whether it holds any, in any case."""
    text = re.sub(r"[\x00-\x1f]", "\n", text).lower()
    held = [answer.lower() in text for answer in answers]
    return float(any(held) if name.startswith("qa") else np.mean(held))


def shortest(name: str, tokenizer: Tokenizer, length: int, source: Source, samples: int, seed: int = 0) -> int:
    """The tokens that the prompts of `draw` take at most with the least filler, and those to generate with them."""
    drafts = (_draft(name, source, min(length, LONG), seed, sample) for sample in range(samples))  # no longer beyond
    return max(len(tokenizer.encode(d.text(d.least))) + _room(name, tokenizer, d) for d in drafts)


def draw(
    name: str, tokenizer: Tokenizer, length: int, source: Source, samples: int, seed: int = 0
) -> Iterator[Example]:
    """Prompts that fill `length` tokens, up to a unit of filler, with those to generate.

    How long a text may be is known from the tokens a character of the last one: a prompt is tokenized two or three times,
    and counts as full from 99 in 100 of the tokens on. ValueError for a length that the task does not fit.
    """
    rate = None  # tokens a character
    for sample in range(samples):
        draft = _draft(name, source, length, seed, sample)
        room = _room(name, tokenizer, draft)
        bare = tokenizer.encode(text := draft.text(draft.least))
        if (least := len(bare) + room) > length:
            raise ValueError(
                f"{name}: expected a length of {least:,} tokens or more, which it takes to ask and to answer, got "
                f"{length:,}; take a larger one"
            )
        tokens, rate = _fitted(draft, tokenizer, length - room, bare, rate or len(bare) / len(text))
        yield Example(tokens, draft.answers, room)


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


def _draft(name: str, source: Source, length: int, seed: int, sample: int) -> Draft:
    rng = np.random.default_rng([seed, sample, *name.encode()])
    return TASKS[name][0](rng=rng, source=source, length=length)


def _room(name: str, tokenizer: Tokenizer, draft: Draft) -> int:
    """Tokens to generate at most: RULER's number, or what the answers take and a few more."""
    return max(TASKS[name][1], len(tokenizer.encode(draft.written)) + 16)


__all__ = ["TASKS", "Example", "RulerScore", "Source", "draw", "names", "ruler", "share", "shortest"]
