"""SIGINT at any moment, while modules are imported too.

Python raises KeyboardInterrupt on whatever line it runs. During an import that may be a callback, which prints and loses
exceptions, or a library that mistakes it for a missing module. So imports raise nothing: before the work begins, the
process ends at once; later, the signal is sent again until the import is done.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

IMPORTS = "<frozen importlib._bootstrap>"
AGAIN = 0.05  # seconds


@contextmanager
def interrupts(ends: bool) -> Iterator[Callable[[], None]]:
    """A function to call when the work begins. `ends`: the process ends after the block.

    Where SIGINT is ignored or handled by someone else, or this is not the main thread, nothing is changed.
    """
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _imports(frame):
            raise KeyboardInterrupt
        if not begun:
            os.write(2, b"solomonic: interrupted\n")
            os._exit(130)
        from threading import Timer, main_thread

        main = main_thread().ident
        send = getattr(signal, "pthread_kill", lambda _, number: signal.raise_signal(number))  # wakes a call that waits
        again = Timer(AGAIN, send, [main, signal.SIGINT])
        again.daemon = True
        again.start()

    def end(
        number: int, frame: FrameType | None, leave: Callable[[int], None] = os._exit
    ) -> None:  # all output is written; an exception would be printed
        leave(130)

    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, interrupt)
    except ValueError:
        ours = False
    try:
        yield begin
    finally:
        if ours:
            signal.signal(signal.SIGINT, end if ends else signal.default_int_handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is going on in `frame`, begun by the command line."""
    while frame is not None and frame.f_code is not _main():
        if frame.f_code.co_filename == IMPORTS:
            return True
        frame = frame.f_back
    return False


def _main() -> CodeType:
    return sys.modules[__package__].main.__code__
