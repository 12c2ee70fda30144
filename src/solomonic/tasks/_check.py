"""Checks of what a user passes. Every message says what was expected, what it got and what to do."""

import itertools
from collections.abc import Iterable
from numbers import Integral, Real


def whole(name: str, value: int, least: int, advice: str) -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}; {advice}")
    return int(value)


def share(name: str, value: float, advice: str, *, zero: bool) -> float:
    """`value` as a float; ValueError unless it lies in (0, 1), or in [0, 1) when `zero` is allowed."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < 1 or (value == 0 and not zero):
        bounds = "[0, 1)" if zero else "(0, 1)"
        raise ValueError(f"{name}: expected a number in {bounds}, got {value!r}; {advice}")
    return float(value)


def flag(name: str, value: bool) -> bool:
    """`value`; ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {value!r}; pass one of them")
    return value


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """`value`; ValueError unless it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {value!r}; take one of these")
    return value


def increasing(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """`values` as a tuple; ValueError unless they are whole numbers of at least 1, each larger than the one before."""
    advice = "pass lengths such as (128, 256)"
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name}: expected several whole numbers, got {values!r}; {advice}")
    values = tuple(whole(name, value, 1, advice) for value in values)
    if not values or any(a >= b for a, b in itertools.pairwise(values)):
        raise ValueError(f"{name}: expected increasing whole numbers, got {values}; {advice}")
    return values


def batch_size(size: int) -> int:
    """`size`; ValueError unless it is a whole number of at least 1."""
    return whole("size", size, 1, "ask for one row or more")
