"""Damage, forgery and nonsense: whatever comes, no traceback, no hang, no silent change.

A fixed number of cases is tried here, the same every time; any number of others with `SOLOMONIC_CASES=10000 pytest tests/fuzz`.
"""

import contextlib
import io
import os
import signal

from hypothesis import HealthCheck, settings

from solomonic.cli import main

CASES = int(os.environ.get("SOLOMONIC_CASES", 0))
SECONDS = 30


def cases(number: int):
    """A property that is tried on so many cases, or on as many as were asked for."""
    return settings(
        max_examples=CASES or number,
        derandomize=not CASES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Hung(BaseException):
    """The command took too long."""


@contextlib.contextmanager
def no_hang(seconds: int = SECONDS):
    """Hung after so many seconds of the processor's time in this process, or twenty times as many by the clock.

    A busy machine takes from the latter alone.
    """

    def stop(number, frame):
        raise Hung(f"no end within {seconds} s")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 20 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line: it ends, and what it refuses it refuses in one line."""
    out, err = io.StringIO(), io.StringIO()
    with no_hang(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:
            code = error.code
    said = err.getvalue()
    assert "Traceback" not in said, (words, said)
    assert code in (0, 1, 2), (words, code, said)
    if code == 2:
        lines = [line for line in said.replace("\r", "\n").splitlines() if line.strip()]
        assert lines and lines[-1].startswith("solomonic"), (words, said)
    return code, out.getvalue(), said
