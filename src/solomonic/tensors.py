"""Tensors with text beside them as one safetensors file, there whole or not at all; nothing in it is executed."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from .files import replacing


KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """`tensors`, none a view of another. OSError, as of any file, when it cannot be written; what was there stays."""
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    order = sorted(own, key=lambda name: (-own[name].element_size(), name))  # so that each begins at a multiple of its size
    header, end = {"__metadata__": dict(metadata)}, 0
    for name in order:
        begin, end = end, end + own[name].numel() * own[name].element_size()
        header[name] = {"dtype": KINDS[own[name].dtype], "shape": list(own[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(own[name].flatten().view(torch.uint8).numpy().data)


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
