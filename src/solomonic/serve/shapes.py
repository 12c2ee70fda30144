"""Answers as OpenAI writes them: whole, or in chunks as they come."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ..data.tokenizer import Tokenizer
from .answers import Piece, Scored
from .questions import Question, Served


class Shape(ABC):
    """The answers to one request as OpenAI's JSON: `note` each piece; then `chunk` writes it, `whole` all of them."""

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, served: Served, question: Question):
        self.question, self.tokenizer = question, served.tokenizer
        self.about = {"id": self.prefix + secrets.token_hex(12), "created": int(time.time()), "model": served.name}
        self.pieces: dict[int, list[Piece]] = {}

    def note(self, piece: Piece) -> None:
        self.pieces.setdefault(piece.index, []).append(piece)

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, pieces in sorted(self.pieces.items()):
            text, scored = (
                "".join(piece.text for piece in pieces),
                [token for piece in pieces for token in piece.scored],
            )
            choices.append(self._whole(Piece(index, text, tuple(scored), pieces[-1].tokens, pieces[-1].finish)))
        return self.about | {"object": self.kind, "choices": choices, "usage": self._usage()}

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before all text."""
        return [self._as_chunk([choice]) for i in range(self._answers) for choice in self._begin(i)]

    def chunk(self, piece: Piece) -> dict[str, Any]:
        return self._as_chunk([self._more(piece)])

    def closing(self) -> list[dict[str, Any]]:
        """Chunks after all text."""
        return [self._as_chunk([]) | {"usage": self._usage()}] if self.question.include_usage else []

    @abstractmethod
    def _begin(self, index: int) -> list[dict[str, Any]]:
        """Choices of the first chunk of an answer, before its text."""

    @abstractmethod
    def _more(self, piece: Piece) -> dict[str, Any]:
        """A choice of a chunk."""

    @abstractmethod
    def _whole(self, piece: Piece) -> dict[str, Any]:
        """A choice, of all pieces as one."""

    @property
    def _answers(self) -> int:
        return len(self.question.prompts) * self.question.n

    def _as_chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.question.include_usage else {}
        return self.about | {"object": self.chunk_kind, "choices": choices} | usage

    def _usage(self) -> dict[str, int]:
        read = sum(map(len, self.question.prompts))
        written = sum(pieces[-1].tokens for pieces in self.pieces.values())
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


class Completion(Shape):
    prefix, kind, chunk_kind = "cmpl-", "text_completion", "text_completion"

    def _begin(self, index: int) -> list[dict[str, Any]]:
        return []

    def _more(self, piece: Piece) -> dict[str, Any]:
        logprobs = self._logprobs(piece) if self.question.top is not None else None
        return {"index": piece.index, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}

    _whole = _more

    def _logprobs(self, piece: Piece) -> dict[str, list[Any]]:
        """Offsets are characters from the beginning of the prompt; the token itself is among the likeliest.

        Of the first token of a prompt that is echoed there are none: null, as OpenAI has it.
        """
        begins = self.question.offsets[piece.index // self.question.n]
        names = [
            {token: _name(self.tokenizer, token)[0] for token, _ in _with_itself(scored)} for scored in piece.scored
        ]
        return {
            "tokens": [name[scored.token] for name, scored in zip(names, piece.scored)],
            "token_logprobs": [scored.log_p for scored in piece.scored],
            "top_logprobs": [
                None if scored.log_p is None else {name[token]: log_p for token, log_p in _with_itself(scored)}
                for name, scored in zip(names, piece.scored)
            ],
            "text_offset": [begins + scored.offset for scored in piece.scored],
        }


class Chat(Shape):
    prefix, kind, chunk_kind = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def _begin(self, index: int) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": ""}
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]

    def _more(self, piece: Piece) -> dict[str, Any]:
        return self._choice(piece) | {"delta": {"content": piece.text} if piece.text else {}}

    def _whole(self, piece: Piece) -> dict[str, Any]:
        return self._choice(piece) | {"message": {"role": "assistant", "content": piece.text, "refusal": None}}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self.question.top is not None:
            logprobs = {"content": [self._logprob(scored) for scored in piece.scored], "refusal": None}
        return {"index": piece.index, "logprobs": logprobs, "finish_reason": piece.finish}

    def _logprob(self, scored: Scored) -> dict[str, Any]:
        top = [self._token(token, log_p) for token, log_p in scored.top]
        return self._token(scored.token, scored.log_p) | {"top_logprobs": top}

    def _token(self, token: int, log_p: float | None) -> dict[str, Any]:
        name, content = _name(self.tokenizer, token)
        return {"token": name, "logprob": log_p, "bytes": content}


def _with_itself(scored: Scored) -> Sequence[tuple[int, float | None]]:
    return scored.top if scored.token in dict(scored.top) else (*scored.top, (scored.token, scored.log_p))


def _name(tokenizer: Tokenizer, token: int) -> tuple[str, list[int] | None]:
    """A token's text and its bytes. A part of a character is "bytes:" and they; a special token, its name alone."""
    piece = tokenizer.piece(token)
    if piece is None:
        return tokenizer.inner.id_to_token(token) or f"<{token}>", None
    try:
        return piece.decode("utf-8"), list(piece)
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece), list(piece)


__all__ = ["Chat", "Completion", "Shape"]
