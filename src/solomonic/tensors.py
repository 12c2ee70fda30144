"""Tensors with their settings as one safetensors file, there whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import replacing

KEY = "solomonic"


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], settings: Any) -> None:
    """`settings` are plain JSON values. OSError when it cannot be written; what was there before then stays."""
    own = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(own, partial, {"format": "pt", KEY: json.dumps(settings)})
        except SafetensorError as error:
            raise OSError(f"{path}: it could not be written ({error})") from None


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """What `write_tensors` wrote: the tensors on the CPU, and the settings. ValueError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            settings = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file of tensors; it is not there") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that cannot be read ({error})") from None
    if settings is None:
        raise ValueError(f"{path}: expected a file that solomonic wrote, got one without its settings")
    try:
        return tensors, json.loads(settings)
    except ValueError as error:
        raise ValueError(f"{path}: expected settings in JSON, got what is none ({error})") from None


__all__ = ["read_tensors", "write_tensors"]
