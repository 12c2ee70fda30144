"""Tensors with text beside them as one safetensors file, there whole or not at all; nothing in it is executed."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file
from torch import Tensor

from .files import replacing


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """`tensors`, none a view of another. OSError, as of any file, when it cannot be written; what was there stays."""
    own = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(own, partial, dict(metadata))
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f"{path}: {error}") from None


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the text beside them. ValueError for a file that is cut off or of something else."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got one that cannot be read ({error}); it was cut off, or is of "
            "something else"
        ) from None


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The same as bytes, for a place that is no file; `unpack` is the inverse."""
    return save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes) -> dict[str, Tensor]:
    """ValueError for bytes that are something else."""
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"expected tensors in the safetensors format, got what cannot be read ({error})") from None


__all__ = ["pack", "read_tensors", "unpack", "write_tensors"]
