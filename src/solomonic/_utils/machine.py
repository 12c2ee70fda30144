"""What this machine can hold and do: sizes that are known beforehand are refused before anything of that size is begun."""

import contextlib
import os
from functools import cache
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


@cache
def memory() -> int:
    """Bytes of this machine's memory, or of what this process may use of it; 2^62 where the system does not say."""
    limits = [2**62]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            limits.append(int(Path(path).read_text()))
    return min(limit for limit in limits if limit > 0)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def busy() -> str | None:
    """That other processes want more than all cores of this machine, as a person reads it; None where they do not."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    there = os.cpu_count() or 1
    if load <= there:
        return None
    return f"this machine is busy: a load of {load:.1f} on {there} core{'s' * (there > 1)}"


def check_fits(size: int, what: str) -> None:
    """ValueError where `size` bytes, which `what` takes, are more than the memory of this machine."""
    if size > memory():
        raise ValueError(f"{what}: expected sizes that fit {_bytes(memory())} of memory, got {_bytes(size)}")


def _bytes(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size < 2**80 else "more bytes than any machine has"


__all__ = ["busy", "check_fits", "cores", "memory"]
