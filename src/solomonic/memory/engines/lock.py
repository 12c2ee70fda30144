"""The lock of the one writer of a store on the disk; the end of its process releases it, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shared_lock(folder: Path) -> Iterator[None]:
    """A context in which no process writes to the store; ValueError if one does. No file is made for it."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:  # never written to since it was copied, or not to be written to
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is writing to this store; wait for it") from None
        yield
    finally:
        os.close(handle)


def hold(path: Path) -> int:
    """Take the lock, until the handle is closed or the process ends. ValueError if another process has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(handle, 20).decode("ascii", "replace").strip()
        os.close(handle)
        raise ValueError(
            f"{path.parent}: process {who or '?'} is writing to this store; there is one writer at a time, readers as "
            "many as you like"
        ) from None
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle
