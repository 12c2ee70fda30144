"""One error for a name nobody knows: what was expected, what came, and the near one."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def unknown(kind: str, came: str, expected: Iterable[str]) -> ValueError:
    """`ValueError("unknown task 'mqra': did you mean 'mqar'? ...")`."""
    expected = sorted(expected)
    near = get_close_matches(str(came), expected, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {came!r}: {hint}expected one of {', '.join(expected)}")


def choose(kind: str, name: str, known: Mapping[str, T]) -> T:
    """`known[name]`, or the error above."""
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]
