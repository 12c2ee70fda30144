"""The lock of the one writer of a store on the disk; the end of its process releases it, however it ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..._utils import locks


@contextmanager
def shared_lock(folder: Path) -> Iterator[None]:
    """A context in which no process writes to the store; ValueError if one does. No file is made for it."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:  # never written to since it was copied, or not to be written to
        yield
        return
    try:
        if not locks.try_lock(handle, shared=True, required=True):
            raise ValueError(f"{folder}: another process is writing to this store; wait for it")
        yield
    finally:
        os.close(handle)


def hold(path: Path) -> int:
    """Take the lock, until the handle is closed or the process ends. ValueError if another process has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not locks.try_lock(handle, required=True):
            raise ValueError(
                f"{path.parent}: process {locks.holder(handle)} is writing to this store; there is one writer at a time, "
                "readers as many as you like"
            )
        locks.sign(handle)
    except BaseException:
        os.close(handle)
        raise
    return handle
