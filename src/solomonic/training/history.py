"""What a run has done so far, and how it ends before its last step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


@dataclass
class History:
    step: int = 0
    seconds: float = 0.0  # spent training, over all sittings


@dataclass
class TaskHistory(History):
    tokens: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss since the last), about 100 of them


@dataclass
class TextHistory(History):
    losses: list[float] = field(default_factory=list)  # nats a token, of every step
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # (step, bits a byte of held-out text)
    scores: dict[str, float] = field(default_factory=dict)  # length -> bits a byte, of the finished model


class Diverged(Exception):
    """The loss is no longer a number."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint, if it has one, is written."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM has come; a second signal raises KeyboardInterrupt at once."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["Diverged", "History", "Interrupted", "TaskHistory", "TextHistory", "asked_to_stop"]
