"""The matrices of a .mat file, to version 7, as columns."""

from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.sparse import issparse

WRITTEN_AS_NUMBERS = "fiub"


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Columns by name, `y:2` the second of y, numbers from 1 where one matrix is all; and why others are left out.

    A row is taken for a column. ValueError for what is no such file, and for matrices of different numbers of rows.
    """
    try:
        content = loadmat(path)
    except NotImplementedError:
        raise ValueError(f"{path}: expected a .mat file of version 7 or before; save it with -v7") from None
    except Exception as error:
        raise ValueError(f"{path}: expected a .mat file, got what cannot be read as one ({error})") from None
    arrays: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for name, value in content.items():
        if name.startswith("__"):
            continue
        if why := _unfit(value):
            left_out[name] = why
        else:
            arrays[name] = value.T if value.shape[0] == 1 else value
    if len({len(value) for value in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
        others = ", ".join(f"{name}: {why}" for name, why in left_out.items())
        matrices = "; ".join(filter(None, (shapes, others))) or "none"
        raise ValueError(f"{path}: expected real matrices of one number of rows, got {matrices}")
    if len(arrays) == 1 and next(iter(arrays.values())).shape[1] > 1:
        (values,) = arrays.values()
        return {str(i + 1): column for i, column in enumerate(values.T)}, left_out
    columns: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        columns |= {name if value.shape[1] == 1 else f"{name}:{i + 1}": column for i, column in enumerate(value.T)}
    return columns, left_out


def _unfit(value: object) -> str | None:
    """Why a variable is no matrix of real numbers."""
    if issparse(value):
        return "a sparse matrix; save full(...) of it"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in WRITTEN_AS_NUMBERS + "c":
        kinds = {"U": "text", "O": "a cell array", "V": "a structure"}
        kind = value.dtype.kind if isinstance(value, np.ndarray) else ""
        return f"{kinds.get(kind, 'an object')}, no matrix; save what is in it as variables of their own"
    if value.dtype.kind == "c":
        return "complex numbers; save real(...) and imag(...) of them"
    if value.ndim != 2:
        return f"an array of {value.ndim} dimensions"
    return "a single number" if value.size == 1 else "empty" if not value.size else None


__all__ = ["read"]
