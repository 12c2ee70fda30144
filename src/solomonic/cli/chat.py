"""Talk with a model; each turn is read once, and never again.

A line is a turn; /reset forgets all turns, /state says what is remembered, /quit ends. With --session the model's
state is saved after every turn, and the next call goes on from there. Ctrl-C ends an answer.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace

from .._utils.spelling import counted, paragraph, unknown
from ..checkpoints.folder import template
from ..data.tokenizer import Tokenizer
from ..inference.generation import read, stream
from ..inference.sampling import Sampling
from ..inference.sessions import Session, SessionFile
from ..model import LanguageModel
from ._generation import add_options, held_session, opened, remembering
from ._turns import Turns

READS, MODELS, WRITES = ("memory",), ("model",), ("session",)
COMMANDS = ("/reset", "/state", "/quit")


def arguments(command: argparse.ArgumentParser) -> None:
    add_options(command, max_tokens=1000)
    command.add_argument("--system", metavar="TEXT", help="instructions for the model, before the first turn")


def run(args: argparse.Namespace, words: list[str]) -> int:
    model, tokenizer, sampling = opened(args)
    if args.max_tokens < 1:
        raise ValueError("--max-tokens: expected a whole number >= 1, got 0")
    turns = Turns(*template(args.model), tokenizer)
    with held_session(args):
        return _opened(args, model, tokenizer, turns, sampling)


def _opened(
    args: argparse.Namespace, model: LanguageModel, tokenizer: Tokenizer, turns: Turns, sampling: Sampling
) -> int:
    saved = SessionFile(args.session, model) if args.session else None
    session = saved.load() if saved else Session()
    if args.system is not None and session.length:
        raise ValueError("--system: expected a new session, whose first words it is; leave it out")
    with remembering(args, model, tokenizer) as remembers:
        return _talk(args, remembers, tokenizer, turns, session, saved, sampling)


def _talk(
    args: argparse.Namespace,
    model: LanguageModel,
    tokenizer: Tokenizer,
    turns: Turns,
    session: Session,
    saved: SessionFile | None,
    sampling: Sampling,
) -> int:
    for line in _lines():
        if line == "/quit":
            return 0
        if line == "/reset":
            session = Session()
        elif line == "/state":
            size, read = counted(session.state_bytes, "byte"), counted(session.tokens_read, "token")
            print(f"{size} after {read}", flush=True)
        elif line.startswith("/"):
            print(paragraph(str(unknown("command", line, COMMANDS))), flush=True)
        if not line or line.startswith("/"):
            continue
        tokens = turns.later(line) if session.length else turns.first(line, args.system)
        try:
            for text, session in answer(model, tokenizer, turns, session.then(tokens), sampling, args.max_tokens):
                print(text, end="", flush=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
        finally:
            print(flush=True)
            if saved:
                saved.save(session)
    return 0


def answer(
    model: LanguageModel, tokenizer: Tokenizer, turns: Turns, session: Session, sampling: Sampling, max_tokens: int
) -> Iterator[tuple[str, Session]]:
    """(text, the session up to it), until an end. Neither the end nor the beginning of another turn is in them."""
    for session in read(model, session):
        pass
    text = tokenizer.stream()
    held = ""  # what may be the beginning of `turns.stop`
    since, kept = session, ""  # the session before the token in which `held` begins, and the text between
    for token, _, session in stream(model, session, sampling, max_tokens=max_tokens, ends=turns.ends):
        if token in turns.ends:
            yield held + text(None), replace(session, pending=())
            return
        piece = text(token)
        held += piece
        if turns.stop and turns.stop in held:
            rest = held[: held.index(turns.stop)]
            yield rest, since.then(tokenizer.encode(kept + rest).tolist())
            return
        certain = held[: len(held) - _overlap(held, turns.stop)]
        held, kept = held[len(certain) :], kept + certain
        if piece and not held:
            since, kept = session, ""
        yield certain, session
    yield held + text(None), session


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)


def _lines() -> Iterator[str]:
    """The turns, as they are typed or piped in."""
    if not sys.stdin.isatty():
        for line in sys.stdin.buffer:
            yield line.decode("utf-8", "surrogateescape").strip()
        return
    import readline  # gives `input` editing and a history  # noqa: F401

    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            print()
            return
