"""Locks on open files, which the end of a process releases, however it ends."""

import errno
import os

try:
    import fcntl
except ImportError:  # no such locks on this system: writers are not kept apart
    fcntl = None  # type: ignore[assignment]

AVAILABLE = fcntl is not None


def try_lock(handle: int, shared: bool = False, required: bool = False) -> bool:
    """False where another process has the lock.

    Where the system or the file system knows no locks, True, or OSError where one is `required`.
    """
    if fcntl is None:
        if required:
            raise OSError(errno.ENOLCK, "this system knows no locks of files")
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if required:
            raise
    return True


def sign(handle: int) -> None:
    """Write into the locked file which process has it."""
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())


def holder(handle: int) -> str:
    """The number of the process that has the lock, by what it wrote into the file; "?" where that says nothing."""
    return os.read(handle, 20).decode("ascii", "replace").strip() or "?"


__all__ = ["AVAILABLE", "holder", "sign", "try_lock"]
