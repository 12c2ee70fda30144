"""The fields of a request's JSON, each held to what it may be."""

import json
from collections.abc import Collection, Mapping
from typing import Any, overload

from .._utils.jsontext import parse
from .._utils.spelling import unknown
from .refused import Refused

SHOWN = 60
"""Characters of a wrong value that an error repeats, at most."""


class Fields:
    """A JSON object. A field that is null counts as missing: it has its default."""

    def __init__(self, body: bytes, known: Collection[str], same: Mapping[str, Collection[Any]]):
        """same: fields that are not supported, with the values that are harmless.

        Refused for what is no JSON object, for an unknown field, and for another value of a field in `same`.
        """
        try:
            values = parse(body, "the body")
        except ValueError as error:
            raise Refused(str(error)[: 4 * SHOWN]) from None
        if not isinstance(values, dict):
            raise Refused(f"the body: expected a JSON object, got {described(values)}")
        self.values = {name: value for name, value in values.items() if value is not None}
        for name in values:
            if name not in known and name not in same:
                raise Refused(str(unknown("field", name[:SHOWN], [*known, *same])), field=name[:SHOWN])
        for name, harmless in same.items():
            if name in self.values and self.values[name] not in harmless:
                raise Refused(
                    f"{name}: not supported here, got {described(self.values[name])}; leave it out", field=name
                )

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def flag(self, name: str) -> bool:
        value = self.get(name, False)
        if type(value) is not bool:
            raise expected(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise expected(name, "text", value)
        return value

    @overload
    def whole(self, name: str, default: int, least: int, most: int) -> int: ...

    @overload
    def whole(self, name: str, default: None, least: int, most: int) -> int | None: ...

    def whole(self, name: str, default: int | None, least: int, most: int) -> int | None:
        value = self.get(name, default)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise expected(name, f"a whole number from {least} to {most}", value)
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise expected(name, f"a number from {least:g} to {most:g}", value)
        return float(value)


def expected(field: str, what: str, value: Any) -> Refused:
    return Refused(f"{field}: expected {what}, got {described(value)}", field=field)


def described(value: Any) -> str:
    """A JSON value in a few words, whatever its size and depth."""
    if isinstance(value, (dict, list)):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}"
    text = json.dumps(value if not isinstance(value, str) else value[:SHOWN])
    return "nothing" if value is None else text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]}..."


__all__ = ["Fields", "described", "expected"]
