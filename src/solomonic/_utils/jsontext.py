"""Reads JSON strictly, with ValueErrors that name the file, and writes only what is JSON."""

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

from .spelling import shortened

DEEPEST = 100
"""Brackets inside brackets: what is nested deeper is no one's settings, and whoever walks through it would not end."""

KINDS = {dict: "a JSON object", list: "a JSON list", object: "a JSON object"}


class _TooLarge(ValueError):
    """A number that JSON allows and Python does not read."""


def parse(text: str | bytes, where: str, kind: type = object, infinite: bool = False, missing: bool = False) -> Any:
    """The value of `text`. ValueError that begins with `where` for what is no JSON in UTF-8, or not of `kind`.

    A key that comes twice is refused, and so are brackets that are nested too deeply, whole numbers of thousands of digits
    and, unless `infinite`, numbers that are none: NaN, Infinity, and those that are too large for a float. Where `missing`
    these are None.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        content = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=(lambda constant: None) if missing else None if infinite else _refuse,
            parse_float=_finite_or_none if missing else None if infinite else _finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError(
            f"{where}: expected {KINDS[kind]}, got what is no JSON (brackets nested more than {DEEPEST} deep)"
        ) from None
    except _TooLarge as error:
        raise ValueError(f"{where}: expected numbers that can be read, got {error}") from None
    except ValueError as error:  # of the syntax, the encoding, or the hooks
        raise ValueError(f"{where}: expected {KINDS[kind]}, got what is no JSON ({error})") from None
    if _is_deep(content):
        raise ValueError(
            f"{where}: expected {KINDS[kind]}, got what is no JSON (brackets nested more than {DEEPEST} deep)"
        )
    if not isinstance(content, kind):
        raise ValueError(f"{where}: expected {KINDS[kind]}, got {type(content).__name__}")
    return content


def read(path: str | Path, kind: type = object, infinite: bool = False) -> Any:
    """The value of the file, as `parse`. ValueError for one that is not there, or no file."""
    path = Path(path)
    if not path.is_file():  # a pipe or a device would be waited for
        actual = "a folder" if path.is_dir() else "no file" if path.exists() else "it is not there"
        raise ValueError(f"{path}: expected a JSON file; {actual}")
    return parse(path.read_bytes(), str(path), kind, infinite)


def lines(path: str | Path, content: Iterable[str | bytes], missing: bool = False) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each line of `path` that is not blank. ValueError, by line, as `parse`."""
    for number, line in enumerate(content, 1):
        if line.strip():
            yield number, parse(line, f"{path}, line {number}", missing=missing)


def write(content: Any, indent: int | None = None, missing: bool = False) -> str:
    """JSON with a line end. A number that is none, for which JSON has no word, is null where `missing`, else a ValueError."""
    if missing:
        content = json.loads(json.dumps(content), parse_constant=lambda constant: None)
    return json.dumps(content, indent=indent, allow_nan=False) + "\n"


def plain(content: Any) -> Any:
    """`content` as a file of it is read: lists for tuples, texts for the keys of objects."""
    return json.loads(json.dumps(content))


def digest(content: Any) -> str:
    """32 hexadecimal digits of the content, whatever the order of its keys and its white space."""
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:40]!r} twice")
        values[key] = value
    return values


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant}, which is no number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise _TooLarge(f"{digits[:40]}, which is too large for a float")
    return value


def _finite_or_none(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        size = f"{len(digits.removeprefix('-')):,} digits"
        raise _TooLarge(f"one of {size} ({shortened(digits)}); put it in quotes, as text") from None


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEEPEST):
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [value for values in inside for value in values if isinstance(value, (dict, list))]
        if not level:
            return False
    return True


__all__ = ["DEEPEST", "digest", "lines", "parse", "plain", "read", "write"]
