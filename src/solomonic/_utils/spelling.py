"""What messages are made of: names nobody knows, numbers of things, paragraphs as wide as the terminal."""

import os
import sys
import textwrap
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TextIO, TypeVar

T = TypeVar("T")


class Unknown(ValueError):
    """A name that nothing has."""


def unknown(kind: str, name: str, expected: Iterable[str]) -> Unknown:
    """`Unknown("unknown task 'mqra': did you mean 'mqar'? ...")`."""
    expected = sorted(expected)
    near = hint(name, expected)
    one_of = "one of " * (len(expected) > 1)
    return Unknown(f"unknown {kind} {name!r}: {near}{' ' * bool(near)}expected {one_of}{', '.join(expected)}")


def hint(name: str, expected: Iterable[str]) -> str:
    """`did you mean 'mqar'?`, or nothing where no name is near."""
    names = {known.lower(): known for known in expected}
    near = get_close_matches(str(name).lower(), names, 1)
    return f"did you mean {names[near[0]]!r}?" if near else ""


def choose(kind: str, name: str, known: Mapping[str, T]) -> T:
    """`known[name]`, or the error above."""
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def counted(number: int, noun: str) -> str:
    """`1 thread`, `2,048 threads`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def shortened(text: str, most: int = 40) -> str:
    """The text, or its beginning and `...`, which are `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def paragraph(text: str, indent: str = "", after: str | None = None, file: TextIO | None = None) -> str:
    """Filled to the terminal that `file` (None: standard output) is, or to $COLUMNS; into a pipe or a file, one line.

    Lines after the first begin with `after`, or as the first. A word, a path or a number stays whole.
    """
    width = _width(sys.stdout if file is None else file)
    if width is None:
        return indent + text
    after = indent if after is None else after
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    )


def aside(text: str) -> None:
    """A line on standard error, beside the command's output."""
    print(paragraph(text, file=sys.stderr), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A line on standard error that says whose it is."""
    aside(f"solomonic: {text}")


def message_of(error: Exception) -> str:
    """What the system says of a file comes after the file's name, as in messages of ours."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _width(file: TextIO) -> int | None:
    """$COLUMNS, or the columns of the terminal, 80 where it does not say; None for what is no terminal.

    Of standard output $COLUMNS says it in a pipe too; a message on standard error stays one line there.
    """
    terminal, asked = file.isatty(), os.environ.get("COLUMNS", "")
    if not terminal and file is not sys.stdout:
        return None
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(file.fileno()).columns or 80 if terminal else None
    except (OSError, ValueError):
        return 80
