"""What a run is: the values that have to be the same for a checkpoint to go on.

They are all that its weights depend on, but the code and, on a task, the initial weights.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from torch import Tensor

from ..model import ModelConfig
from ..tasks.base import Task


def identity(model: ModelConfig, data: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run as plain JSON values. `data` names what it reads; `settings` are those that change its results."""
    plain: dict[str, Any] = json.loads(json.dumps({"model": model.to_dict()} | dict(data) | dict(settings)))
    return plain


def of_task(task: Task) -> dict[str, Any]:
    """The name of a task and all that it draws from, as plain values: its options, and digests of its data."""
    return {"task": task.name} | {f"task {name}": _plain(value) for name, value in vars(task).items()}


def _plain(x: Any) -> Any:
    """A plain JSON value for `x`; for an array its type, shape and digest."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    if isinstance(x, (bytes, np.ndarray, np.generic, Tensor)):
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        return f"{x.dtype} {x.shape} {blake2b(np.ascontiguousarray(x).data, digest_size=16).hexdigest()}"
    if isinstance(x, (set, frozenset)):
        return sorted(map(repr, x))
    name = getattr(x, "__qualname__", None)
    return name if name is not None else [type(x).__qualname__, _plain(vars(x) if hasattr(x, "__dict__") else repr(x))]


__all__ = ["identity", "of_task"]
