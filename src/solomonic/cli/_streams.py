"""Standard input, output and errors, as a command may rely on them."""

import io
import os
import sys


def open_streams() -> None:
    """All three are there, and nothing that is read or printed fails for its encoding.

    One that was closed is the null device: else a file that is opened later would be taken for it. What the output's
    encoding lacks is printed as in a Python text, \\u2019; bytes of the input that are no text are kept as they are.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(handle, True)
        os.close(handle)
        sys.stdin = sys.stdin or open(0, closefd=False)
        sys.stdout = sys.stdout or open(1, "w", closefd=False)
        sys.stderr = sys.stderr or open(2, "w", closefd=False)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != errors:
            stream.reconfigure(errors=errors)


def flush() -> None:
    """Write out what was printed. OSError where that fails, which is said once: what is left is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        drop()
        raise


def drop() -> None:
    """Nobody takes the output any more: what is still to be written goes nowhere."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # no stream of the process
        pass
