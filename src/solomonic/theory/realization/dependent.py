"""Outputs that are linear combinations of others and of inputs in the same row: a fit leaves them out and adds them again.

    y_t,dependent = M y_t,independent + N u_t + c

A model of the independent outputs is one of all: C = [C; M C], D = [D; M D + N], with K = 0 and an R that is singular for
the dependent ones, which bring no innovation of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
EXACT = 1e-9  # of a column's spread: what is left of it may be rounding


@dataclass(frozen=True, eq=False)
class Dependence:
    """All outputs from the independent ones: y = M y_independent + N u for centred series."""

    independent: list[int]
    M: Array  # (p, independent)
    N: Array  # (p, m)

    def all_outputs(self, parts: dict[str, Array]) -> dict[str, Array]:
        """The matrices of a model of all outputs from those of a model of the independent ones."""
        K = np.zeros((len(parts["A"]), len(self.M)))
        K[:, self.independent] = parts["K"]
        M = self.M
        return parts | {"C": M @ parts["C"], "D": M @ parts["D"] + self.N, "K": K, "c": M @ parts["c"]}

    def equations(self, outputs: Sequence[str], inputs: Sequence[str], y_unit: Array, u_unit: Array) -> tuple[str, ...]:
        """Each dependent output as an equation of names, in the data's units."""
        names = [*inputs, *(outputs[i] for i in self.independent)]
        units = np.concatenate([u_unit, y_unit[self.independent]])
        dependent = [j for j in range(len(outputs)) if j not in self.independent]
        rules = np.concatenate([self.N, self.M], 1)
        return tuple(f"{outputs[j]} = {_sum(rules[j], y_unit[j] / units, names)}" for j in dependent)


def outputs_by_others(y: Array, u: Array) -> Dependence:
    """Which outputs are combinations of others and of inputs. y (T, p) and u (T, m) are centred and of like size.

    The columns of u are independent. Of outputs that depend on one another the first ones count as independent, and at least
    one output always does.
    """
    p, m = y.shape[1], u.shape[1]
    independent: list[int] = []
    rules: dict[int, Array] = {}
    for j in range(p):
        known = np.concatenate([u, y[:, independent]], 1)
        rule = combination(known, y[:, j]) if independent or j < p - 1 else None
        if rule is None:
            independent.append(j)
        else:
            rules[j] = rule
    M, N = np.zeros((p, len(independent))), np.zeros((p, m))
    M[independent, range(len(independent))] = 1
    for j, rule in rules.items():
        N[j], M[j, : len(rule) - m] = rule[:m], rule[m:]
    return Dependence(independent, M, N)


def check_inputs(u: Array, names: Sequence[str], unit: Array) -> None:
    """ValueError, by name, where a column of u (T, m), centred and divided by `unit`, is a combination of those before it."""
    for j, name in enumerate(names):
        rule = combination(u[:, :j], u[:, j])
        if rule is not None:
            raise ValueError(
                f"expected inputs that can be told apart, got {name} = {_sum(rule, unit[j] / unit[:j], names)} in every"
                f" row that is fitted, up to a constant; leave {name} out"
            )


def combination(known: Array, column: Array) -> Array | None:
    """The coefficients with which the columns of `known` (T, k) make `column` (T,); None where they do not, or T is small."""
    rows, k = known.shape
    if not k or rows <= 2 * (k + 1):
        return None
    rule = np.linalg.lstsq(known, column, rcond=None)[0]
    return rule if np.linalg.norm(column - known @ rule) <= EXACT * np.linalg.norm(column) else None


def _sum(rule: Array, unit: Array, names: Sequence[str]) -> str:
    """`2 a - 0.5 b`: the terms of `rule` that are not rounding, times `unit`."""
    terms = []
    for value, factor, name in zip(rule, unit, names):
        if abs(value) > EXACT * np.abs(rule).max():
            size = f"{abs(value) * factor:.4g}"
            terms += ["-" if value < 0 else "+", name if size == "1" else f"{size} {name}"]
    return " ".join(terms[1:] if terms[0] == "+" else ["-" + terms[1], *terms[2:]])


__all__ = ["Dependence", "check_inputs", "combination", "outputs_by_others"]
