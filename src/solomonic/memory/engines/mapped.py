"""Room for the keys of a layer: memory or, beyond `MOST_IN_MEMORY`, a mapped file that has no name and ends with the process."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from .tables import FILE

MOST_IN_MEMORY = 1 << 30  # bytes
CHUNK = 1 << 20


def allocate(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; the file is in `folder`, or in the system's folder for temporary files."""
    size = torch.Size(shape).numel()
    nbytes = size * dtype.itemsize
    if nbytes <= MOST_IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    try:
        handle, path = tempfile.mkstemp(prefix=f"{FILE}.keys.", dir=folder)
    except OSError:  # nothing may be written here
        handle, path = tempfile.mkstemp(prefix=f"{FILE}.keys.")
    by_handle = Path(f"/proc/self/fd/{handle}")
    try:
        if by_handle.exists():  # else a process that is killed meanwhile leaves the file
            os.unlink(path)
        for begin in range(0, nbytes, CHUNK):  # a full disk is an error here, not at a later access
            os.write(handle, bytes(min(CHUNK, nbytes - begin)))
        mapped = str(by_handle) if by_handle.exists() else path
        return torch.from_file(mapped, shared=True, size=size, dtype=dtype).view(shape)
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            os.unlink(path)


__all__ = ["allocate"]
