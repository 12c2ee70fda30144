"""Progress of a command: on a terminal a bar, elsewhere a line each tenth of the way.

Messages from before the work are here too: that functions are being compiled, and notices.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from time import monotonic, time
from typing import Self, TextIO

from tqdm import tqdm

from .spelling import aside

COMPILING = "compiling for this processor, the first time only"
PARTS = 10  # lines of a whole
DELAY = 0.5  # seconds before a bar is shown: what is done by then needs none
MINUTE = 60.0  # seconds after which there is a line before the first tenth
_listeners: list[Callable[[], None]] = []
_notices: list[str] = []


@cache
def watch_numba() -> None:
    """Notice when numba compiles a function that is not kept on disk: whoever shows progress says so."""
    from numba.core import event

    class Compiling(event.Listener):
        def on_start(self, event: event.Event) -> None:
            compiling_begins()

        def on_end(self, event: event.Event) -> None:
            pass

    event.register("numba:compile", Compiling())


def compiling_begins() -> None:
    """Tell all that show progress that a function begins to be compiled."""
    for tell in tuple(_listeners):
        tell()


@contextmanager
def on_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """In the block, `tell` is called whenever a function begins to be compiled."""
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


@contextmanager
def compiling_said() -> Iterator[None]:
    """In the block, a terminal shows once that functions are compiled, where no progress shows it."""
    shown = False

    def tell() -> None:
        nonlocal shown
        if not shown and _listeners[-1] is tell and sys.stderr.isatty():
            shown = True
            _say(f"solomonic: {COMPILING}")

    with on_compiling(tell):
        yield


def notice(text: str | None) -> None:
    """Print a message on standard error, once: at once on a terminal, elsewhere before the first progress. None: no message."""
    _notices[:] = [] if text is None else [text]
    if sys.stderr.isatty():
        _say_notices()


class Progress:
    """A context in which `update` says that so many more of `total` are done, as tqdm has it.

    total: None where it is not known; then there is a line after ten seconds, twenty, forty and so on. unit: what is
    counted; "" for nothing, so that time alone is shown. what: what is done, before the numbers. shown: False for none at
    all. leave: whether a bar stays when it is done. Neither the first update nor one that compiled counts in what is said
    of the time left.
    """

    def __init__(
        self, total: int | None = None, unit: str = "step", what: str = "", shown: bool = True, leave: bool = True
    ):
        self.total, self.unit, self.what, self.n = total, unit, what, 0
        self.leave, self.shown = leave, shown and total != 0
        self.note = ""
        self._began = monotonic()
        self._first: tuple[int, float] | None = None  # after the first update: how many were done, and when
        self._lines, self._next = 0, 10.0 if total is None else MINUTE
        self._compiles = self._told = False
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        if self.shown:
            _listeners.append(self.compiling)
            if sys.stderr.isatty():
                scale = self.unit in ("byte", "token", "program")
                form = {
                    "unit": f" {self.unit}",
                    "unit_scale": scale,
                    "ncols": _columns(),
                    "leave": self.leave,
                    "delay": DELAY,
                }
                if self.total is None:
                    counts = "{n_fmt}{unit}s [{elapsed}, {rate_fmt}{postfix}]" if self.unit else "{elapsed}"
                    form["bar_format"] = "{desc}" + counts
                self._bar = tqdm(total=self.total, desc=f"{self.what}: " if self.what else None, **form)
        return self

    def __exit__(self, *error: object) -> None:
        if not self.shown:
            return
        _listeners.remove(self.compiling)
        if self._bar is not None:
            self._bar.close()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.n += n
        if not self.shown or not n:
            return
        now, compiled, self._compiles = monotonic(), self._compiles, False
        begins = self._first is None or compiled
        if begins:
            self._first = self.n, now
        if self._bar is None:
            self._line(now)
            return
        self._bar.ncols = _columns()
        if compiled:
            self._bar.set_description(self.what or None, refresh=False)
        if begins:
            self._bar.n = self._bar.initial = self._bar.last_print_n = self.n
            self._bar.last_print_t = time()
            if now - self._began >= DELAY:
                self._bar.refresh()
        else:
            self._bar.update(n)

    def describe(self, what: str) -> None:
        """What is being done now."""
        self.what = what
        if self._bar is not None:
            self._bar.set_description(what or None)
        elif self.shown and self.total is None:
            self._line(monotonic())

    def say(self, text: str, file: TextIO | None = None) -> None:
        """A line of the command's output, or of `file`, above the bar."""
        file = sys.stdout if file is None else file
        tqdm.write(text, file) if self._bar is not None else print(text, file=file, flush=True)

    def set_note(self, note: str) -> None:
        """What stands after the numbers, on a terminal in the place of how many a second."""
        self.note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            if self.total is not None:
                self._bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"

    def compiling(self) -> None:
        """Show that functions are being compiled, until the next update."""
        if not self.shown or self._compiles:
            return
        self._compiles = True
        if self._bar is not None:
            self._bar.delay = 0
            self._bar.set_description(f"{self.what}: {COMPILING}" if self.what else COMPILING)
        elif not self._told:
            self._told = True
            self._print(COMPILING)

    def _line(self, now: float) -> None:
        """A line, where it is time for one."""
        taken = now - self._began
        if self.total is None:
            if taken < self._next:
                return None
            self._next = 2 * taken
            return self._print((f"{self.n:,} {self.unit}s in " if self.unit else "") + _clock(taken))
        assert self._first is not None  # an update came before
        first, since = self._first
        done = min(PARTS, PARTS * self.n // self.total)
        early = not self._lines and taken >= self._next and first < self.n
        if done <= self._lines and not early:
            return None
        self._lines, self._next = max(done, self._lines), float("inf")
        left = ""
        if first < self.n < self.total:
            left = f", {_clock((now - since) / (self.n - first) * (self.total - self.n))} left"
        share = 100 * self.n // self.total
        self._print(f"{share} %, {self.n:,}/{self.total:,} {self.unit}s in {_clock(taken)}{left}")
        return None

    def _print(self, text: str) -> None:
        before, after = f"{self.what}: " if self.what else "", f"; {self.note}" if self.note else ""
        _say_notices()
        _say(f"{before}{text}{after}")


def _say_notices() -> None:
    for text in _notices:
        _say(f"solomonic: {text}")
    _notices.clear()


def _say(text: str) -> None:
    """On standard error. Where that fails (a closed pipe, a full disk) the work goes on."""
    with suppress(OSError, ValueError):
        aside(text)


def _columns() -> int:
    """Of the terminal that standard error is; 80 where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)


__all__ = ["Progress", "compiling_begins", "compiling_said", "notice", "on_compiling", "watch_numba"]
