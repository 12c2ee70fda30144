"""A model as a JSON file: numbers exactly, nothing that runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..._utils import files, jsontext
from ..._utils.spelling import unknown
from .bilinear import Bilinear
from .linear import Linear

FORMAT = "solomonic linear model 1"
ARRAYS = ("A", "B", "C", "D", "K", "R", "y_mean", "u_mean")


def save(model: Linear | Bilinear, path: str | Path) -> None:
    """Write the file whole, or leave what was there. Floats are written so that they read back bit for bit."""
    files.write(path, json.dumps(content(model), allow_nan=False) + "\n")


def content(model: Linear | Bilinear) -> dict[str, Any]:
    """The values in the file of a model."""
    linear = model.linear if isinstance(model, Bilinear) else model
    values = {"format": FORMAT, "outputs": linear.outputs, "inputs": linear.inputs}
    values |= {name: getattr(linear, name).tolist() for name in ARRAYS}
    return values | ({"N": model.N.tolist()} if isinstance(model, Bilinear) else {})


def load(path: str | Path) -> Linear | Bilinear:
    """The model in the file. ValueError for a file that holds none."""
    values = jsontext.read(path, dict)
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: expected a file of format {FORMAT!r}")
    known = {*ARRAYS, "outputs", "inputs", "N"}
    for name in values:
        if name not in known:
            raise unknown(f"entry of {path}", name, known)
    if missing := {*ARRAYS, "outputs", "inputs"} - values.keys():
        raise ValueError(f"{path}: {', '.join(sorted(missing))} missing")
    lists = [values[name] for name in ("outputs", "inputs", "A")]
    if not all(isinstance(entry, list) for entry in lists) or not all(isinstance(x, str) for x in lists[0] + lists[1]):
        raise ValueError(f"{path}: expected lists of names, outputs and inputs, and a matrix A")
    p, m, n = map(len, lists)
    shapes = dict(zip(ARRAYS, ((n, n), (n, m), (p, n), (p, m), (n, p), (p, p), (p,), (m,))))
    try:
        arrays = {name: np.array(values[name], dtype=float).reshape(shape) for name, shape in shapes.items()}
        N = np.array(values["N"], dtype=float).reshape(m, n, n) if "N" in values else None
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: expected matrices of one order, {p} outputs and {m} inputs") from None
    model = Linear(**arrays, outputs=tuple(values["outputs"]), inputs=tuple(values["inputs"]))
    return model if N is None else Bilinear(model, N)


__all__ = ["content", "load", "save"]
