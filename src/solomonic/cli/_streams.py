"""Standard input, output and errors, as a command may rely on them."""

import io
import os
import sys


def open_streams() -> None:
    """Open those of the three that are closed, and let no character fail for its encoding.

    A closed stream becomes the null device, since a file that is opened later would take its number. A character that
    the output's encoding lacks is printed as an escape, \\u2019; input bytes that are not UTF-8 are kept as surrogates.
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
    """Write out the printed text. OSError where that fails; the rest is dropped, so that the error comes once."""
    try:
        sys.stdout.flush()
    except OSError:
        drop()
        raise


def drop() -> None:
    """Discard the rest of the output, which nobody reads."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # no stream of the process
        pass
