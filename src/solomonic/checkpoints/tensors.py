"""Tensors and text beside them in one safetensors file, written whole or not at all; nothing in it is executed."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from .._utils import jsontext
from .._utils.files import replacing

DIGEST = "solomonic-digest"
"""In the text beside the tensors: the digest of them and of the rest of it."""

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
    order = sorted(own, key=lambda name: (-own[name].element_size(), name))  # each begins at a multiple of its size
    header: dict[str, dict[str, Any]] = {"__metadata__": dict(metadata) | {DIGEST: digest(own, metadata)}}
    end = 0
    for name in order:
        begin, end = end, end + own[name].numel() * own[name].element_size()
        header[name] = {"dtype": KINDS[own[name].dtype], "shape": list(own[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(own[name].flatten().view(torch.uint8).numpy().data)


def read_tensors(path: str | Path, ours: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the text beside them. ValueError for a file that is cut off or of something else.

    Of a file that `write_tensors` wrote, which has to have been it where it is `ours`, the digest is compared: one that
    was damaged since is a ValueError.
    """
    tensors, metadata = map_tensors(path)
    check_digest(path, tensors, metadata, ours)
    return {name: tensor.clone() for name, tensor in tensors.items()}, metadata


def map_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `read_tensors`, the digest not compared: tensors are read from the disk when they are used, and not before."""
    if not Path(path).is_file():
        if not Path(path).exists():
            raise ValueError(f"{path}: expected a file of tensors; it is not there")
        raise ValueError(f"{path}: expected a safetensors file, got what cannot be read as one: it is no file")
    try:
        if "\udc80" <= max(str(path)) <= "\udcff":  # a name that is not UTF-8, which the library does not open
            data = Path(path).read_bytes()
            header = jsontext.parse(data[8 : 8 + int.from_bytes(data[:8], "little")], str(path), dict)
            return load(data), header.get("__metadata__", {})
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError, RuntimeError) as error:  # of sizes that no tensor has
        raise ValueError(
            f"{path}: expected a safetensors file, got one that cannot be read ({error}); it was cut off, or is of "
            "something else"
        ) from None


def check_digest(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], ours: bool = False) -> None:
    """Take the digest out of `metadata`. ValueError where it is not that of the rest; or, of `ours`, is not there."""
    written = metadata.pop(DIGEST, None)
    if (written is not None or ours) and written != digest(tensors, metadata):
        raise ValueError(
            f"{path}: expected the contents that were written, got others: the file is damaged; use a copy"
        )


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """32 hexadecimal digits of the names, types, shapes and contents, and of the text beside them, where it is passed."""
    text = b"" if metadata is None else json.dumps(sorted(metadata.items())).encode()
    total = blake2b(text, digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "surrogatepass"))
        if tensor.numel():
            total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The same as bytes, for a place that is no file; `unpack` is the inverse."""
    return save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def unpack(data: bytes) -> dict[str, Tensor]:
    """ValueError for bytes that are something else."""
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"expected tensors in the safetensors format, got what cannot be read ({error})") from None


__all__ = ["check_digest", "digest", "map_tensors", "pack", "read_tensors", "unpack", "write_tensors"]
