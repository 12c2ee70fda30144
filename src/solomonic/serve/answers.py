"""The text that follows a prompt, piece by piece, up to where it ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.tokenizer import Tokenizer
from ..inference.generation import LOGITS, read, stream
from ..inference.sessions import Session
from ..model import LanguageModel
from .questions import Question

CHUNK = 512
"""Tokens of a prompt that are read in one step, for which other requests wait, and which no cancellation cuts short."""

LEAST = -9999.0
"""What OpenAI writes for the logarithm of a probability near 0; JSON has no infinity."""


@dataclass(frozen=True)
class Scored:
    """A token with ln of its probability, and the likeliest with theirs; where its text begins in the answer's.

    Of a prompt's tokens `offset` is below 0, and of the first nothing is known: `log_p` is None.
    """

    token: int
    log_p: float | None
    top: tuple[tuple[int, float], ...]
    offset: int


@dataclass(frozen=True)
class Piece:
    """More of the answer `index`. tokens: what it has by now. finish: "stop" or "length" with its last piece."""

    index: int
    text: str
    scored: tuple[Scored, ...] = ()
    tokens: int = 0
    finish: str | None = None


def answers(model: LanguageModel, tokenizer: Tokenizer, question: Question) -> Iterator[Piece | None]:
    """Every call of `next` is at most one step of the model; it gives None where no text is ready after it."""
    for p, prompt in enumerate(question.prompts):
        session, scored = Session().then(prompt), []
        if question.echoes and question.top is not None:
            for session, read_tokens in _scored_reading(model, tokenizer, question, p):
                scored += read_tokens
                yield None
        else:
            for session in read(model, session, CHUNK):
                yield None
        for index in range(p * question.n, (p + 1) * question.n):
            if question.echoes:
                finish = None if question.max_tokens else "length"
                yield Piece(index, question.echoes[p], tuple(scored), finish=finish)
            if question.max_tokens:
                yield from _answer(model, tokenizer, question, session, index)


def _scored_reading(
    model: LanguageModel, tokenizer: Tokenizer, question: Question, p: int
) -> Iterator[tuple[Session, list[Scored]]]:
    """Read prompt p but for its last token: after every step the session, and the tokens of the step with their scores."""
    prompt, before, text = question.prompts[p], question.offsets[p], tokenizer.stream()
    session, device, begins = Session().then(prompt), model.device, len(text(prompt[0]))
    yield session, [Scored(prompt[0], None, (), -before)]
    chunk = max(1, min(CHUNK // 4, LOGITS // model.config.vocab_size))
    for start in range(0, len(prompt) - 1, chunk):
        end, scored = min(start + chunk, len(prompt) - 1), []
        with torch.inference_mode():
            logits, state = model(torch.tensor([prompt[start:end]], device=device), session.state)
            for token, row in zip(prompt[start + 1 : end + 1], logits[0].cpu()):
                scored.append(_scored(token, row, question.top, min(begins - before, 0)))
                begins += len(text(token))
        session = Session(state, prompt[end:])
        yield session, scored


def _answer(
    model: LanguageModel, tokenizer: Tokenizer, question: Question, session: Session, index: int
) -> Iterator[Piece | None]:
    sampling = replace(question.sampling, seed=question.sampling.seed + index)
    text, until = tokenizer.stream(), Until(question.stops)
    scored: list[Scored] = []  # whose text is not emitted yet
    rest, count, finish = "", 0, "length"
    drawn = stream(model, session, sampling, max_tokens=question.max_tokens, ends=question.ends, chunk=CHUNK)
    for count, (token, logits, _) in enumerate(drawn, 1):
        if token in question.ends:
            finish = "stop"
            break
        if question.top is not None:
            scored.append(_scored(token, logits, question.top, until.length))
        certain = until.add(text(token))
        if until.ended:
            rest = certain
            break
        if not certain:
            yield None
            continue
        emitted = [token for token in scored if token.offset < until.emitted]
        scored = scored[len(emitted) :]
        yield Piece(index, certain, tuple(emitted), count)
    if not until.ended:
        rest = until.add(text(None)) + until.rest()
    if until.ended:
        finish, scored = "stop", [token for token in scored if token.offset < until.emitted]
    yield Piece(index, rest, tuple(scored), count, finish)


class Until:
    """Text up to the first of `stops` in it. What may be the beginning of one is held until it is known.

    length: characters of all text so far; emitted: of the text that was returned; ended: whether a stop was found.
    """

    def __init__(self, stops: Sequence[str]):
        self.stops, self.held, self.emitted, self.ended = stops, "", 0, False

    @property
    def length(self) -> int:
        return self.emitted + len(self.held)

    def add(self, piece: str) -> str:
        """The text that is certain by now."""
        self.held += piece
        ends = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        self.ended = bool(ends)
        kept = min(ends) if ends else len(self.held) - max((_overlap(self.held, s) for s in self.stops), default=0)
        return self._give(kept)

    def rest(self) -> str:
        """The text that was held, once all has come."""
        return "" if self.ended else self._give(len(self.held))

    def _give(self, length: int) -> str:
        certain, self.held = self.held[:length], self.held[length:]
        self.emitted += len(certain)
        return certain


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _scored(token: int, logits: Tensor, top: int | None, offset: int) -> Scored:
    log_p = logits.double().log_softmax(-1).clamp_min(LEAST)
    best, ids = log_p.topk(min(top or 0, len(log_p)))
    return Scored(token, log_p[token].item(), tuple(zip(ids.tolist(), best.tolist())), offset)


__all__ = ["CHUNK", "Piece", "Scored", "answers"]
