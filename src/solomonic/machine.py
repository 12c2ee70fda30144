"""What this machine can hold: sizes that are known beforehand are refused before anything of that size is begun."""

import os
from functools import cache
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


@cache
def memory() -> int:
    """Bytes of this machine's memory, or of what this process may use of it; 2^62 where the system does not say."""
    found = [2**62]
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        pass
    for path in LIMITS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            pass
    return min(one for one in found if one > 0)


def check_fits(size: int, what: str) -> None:
    """ValueError where `size` bytes, which `what` takes, are more than the memory of this machine."""
    if size > memory():
        raise ValueError(f"{what}: expected sizes that fit {_bytes(memory())} of memory, got {_bytes(size)}")


def _bytes(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size < 2**80 else "more bytes than any machine has"


__all__ = ["check_fits", "memory"]
