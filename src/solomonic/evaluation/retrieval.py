"""Retrieval: a number stands once in a long text, at some depth, and is asked for at the end.

    passkey   in sentences that repeat. "... A cart stands by the gate. The pass key is 71432. Remember it: ... What is
              the pass key? The pass key is" must go on with " 71432"
    needle    in real text, of a person in a place. "... The locker of Miriam in Lisbon opens with 48213. ..."

After the passkey of arXiv 2305.16300, with words of our own. `length` counts the tokens of the whole prompt, the
question with it, and `depth` in [0, 1] is the share of the filler that stands before the number. The parts are
tokenized one by one, so that lengths and places are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .._utils.spelling import unknown
from ..data.tokenizer import Tokenizer
from .score import ScoredModel, continuations

KINDS = ("passkey", "needle")
FILLER = (
    "The mill is quiet at noon. A cart stands by the gate. Two dogs sleep in the shade. The road goes on to the "
    "village, and the river goes with it. "
)
NAMES = ("Miriam", "Olek", "Tariq", "Ines", "Bashir", "Noor", "Pavel", "Yuna", "Greta", "Samir", "Hanne", "Kofi")
PLACES = ("Lisbon", "Turku", "Accra", "Quito", "Hanoi", "Split", "Cork", "Perth", "Oran", "Leeds", "Varna", "Osaka")
CHOICES = 10  # numbers that an answer is one of; chance is 1 / CHOICES


@dataclass(frozen=True)
class Prompt:
    tokens: np.ndarray  # (length,) int64
    place: int  # of the first token of the sentence with the number
    answers: list[np.ndarray]  # CHOICES numbers as tokens
    right: int  # index of the one in the prompt


@dataclass(frozen=True)
class DepthScore:
    """Of the prompts of one length and depth. `exact`: the share that greedy decoding continues with the number.

    `chosen`: the share where the number is the likeliest of CHOICES random ones of as many digits; chance is 1 / CHOICES.
    """

    length: int
    depth: float
    samples: int
    exact: float
    chosen: float


def shortest(kind: str, tokenizer: Tokenizer) -> int:
    """The most tokens of a prompt without filler."""
    name, place = (max(words, key=lambda word: len(tokenizer.encode(" " + word))) for words in (NAMES, PLACES))
    return sum(len(tokenizer.encode(part)) for part in _parts(kind, name, place, "88888")) + 8


def prompt(
    kind: str,
    tokenizer: Tokenizer,
    length: int,
    depth: float,
    rng: np.random.Generator,
    documents: Sequence[np.ndarray] = (),
) -> Prompt:
    """A prompt of `length` tokens. The same state of `rng` gives the same one at every depth, but for the place.

    `documents`, tokens, are the filler of "needle". ValueError for an unknown kind, a depth out of [0, 1], a
    length under `shortest`, or a needle without documents.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth: expected a number in [0, 1], got {depth}")
    if length < (least := shortest(kind, tokenizer)):
        raise ValueError(f"{kind}: expected a length of {least} tokens or more, which it takes to ask, got {length}")
    numbers = [str(number) for number in 10000 + rng.permutation(90000)[:CHOICES]]
    right = int(rng.integers(CHOICES))
    parts = _parts(kind, str(rng.choice(NAMES)), str(rng.choice(PLACES)), numbers[right])
    head, needle, question = (tokenizer.encode(part) for part in parts)
    room = length - len(head) - len(needle) - len(question)
    filler = _stretch(documents, room, rng) if kind == "needle" else np.resize(tokenizer.encode(FILLER), room)
    before = round(depth * room)
    tokens = np.concatenate([head, filler[:before], needle, filler[before:], question])
    return Prompt(tokens, len(head) + before, [tokenizer.encode(f" {number}") for number in numbers], right)


def retrieval(
    model: ScoredModel,
    tokenizer: Tokenizer,
    kind: str,
    lengths: Sequence[int],
    depths: Sequence[float],
    samples: int = 10,
    seed: int = 0,
    documents: Sequence[np.ndarray] = (),
    batch: int = 8,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda tokens: None,
) -> Iterator[DepthScore]:
    """A score for each length and depth, as they are done. The same seed asks every model of a tokenizer the same.

    Prompts are read in chunks that pass the state on, `batch` at a time; `report` gets the number of tokens read.
    """
    for length in lengths:
        for depth in depths:
            rngs = (np.random.default_rng([seed, length, sample, *kind.encode()]) for sample in range(samples))
            prompts = [prompt(kind, tokenizer, length, depth, rng, documents) for rng in rngs]
            groups = [(p.tokens, p.answers) for p in prompts]
            scores = continuations(model, groups, batch, chunk, partial(_report_tokens, report, length))
            exact = [answers[p.right][1] for p, answers in zip(prompts, scores)]
            chosen = [np.argmax([log_p for log_p, _ in answers]) == p.right for p, answers in zip(prompts, scores)]
            yield DepthScore(length, depth, samples, float(np.mean(exact)), float(np.mean(chosen)))


def _report_tokens(report: Callable[[int], None], length: int, prompts: int) -> None:
    report(prompts * length)


def _parts(kind: str, name: str, place: str, number: str) -> tuple[str, str, str]:
    """The beginning, the sentence with the number, and the question."""
    if kind == "passkey":
        return (
            "One number is hidden in this text. Find it and keep it in mind.\n",
            f"\nThe pass key is {number}. Remember it: {number} is the pass key.\n",
            "\nWhat is the pass key? The pass key is",
        )
    if kind != "needle":
        raise unknown("retrieval", kind, KINDS)
    fact = f"\nThe locker of {name} in {place} opens with"
    return "", f"{fact} {number}.\n", fact


def _stretch(documents: Sequence[np.ndarray], room: int, rng: np.random.Generator) -> np.ndarray:
    """`room` tokens from a random place on, into the documents that follow where one is too short."""
    if not any(len(tokens) for tokens in documents):
        raise ValueError("needle: expected documents to hide a number in, got none; pass text")
    i = int(rng.choice(np.flatnonzero([len(tokens) for tokens in documents])))
    pieces = [documents[i][int(rng.integers(len(documents[i]))) :][:room]]
    while (missing := room - sum(map(len, pieces))) > 0:
        i = (i + 1) % len(documents)
        pieces.append(documents[i][:missing])
    return np.concatenate(pieces)


__all__ = ["CHOICES", "KINDS", "DepthScore", "Prompt", "prompt", "retrieval", "shortest"]
