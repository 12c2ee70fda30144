"""One error for a name nobody knows: what was expected, what came, and the near one."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, came: str, expected: Iterable[str]) -> ValueError:
    """`ValueError("unknown task 'mqra': did you mean 'mqar'? ...")`."""
    expected = sorted(expected)
    near = get_close_matches(str(came), expected, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {came!r}: {hint}expected one of {', '.join(expected)}")
