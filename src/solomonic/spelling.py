"""One error for a name nobody knows: what was expected, what came, and the near one."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def unknown(kind: str, came: str, expected: Iterable[str]) -> ValueError:
    """`ValueError("unknown task 'mqra': did you mean 'mqar'? ...")`."""
    expected = sorted(expected)
    near = hint(came, expected)
    return ValueError(f"unknown {kind} {came!r}: {near}{' ' * bool(near)}expected one of {', '.join(expected)}")


def hint(came: str, expected: Iterable[str]) -> str:
    """`did you mean 'mqar'?`, or nothing where no name is near."""
    names = {name.lower(): name for name in expected}
    near = get_close_matches(str(came).lower(), names, 1)
    return f"did you mean {names[near[0]]!r}?" if near else ""


def choose(kind: str, name: str, known: Mapping[str, T]) -> T:
    """`known[name]`, or the error above."""
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]
