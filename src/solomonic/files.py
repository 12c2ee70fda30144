"""Files that are there whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to. It becomes `path` when the block ends, on the disk before this returns.

    After an error, a full disk among them, `path` is as it was and nothing is left beside it; after a crash
    something named `.NAME.partial` may be, which the next call overwrites. Who may read `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = stat.S_IMODE((path if path.exists() else partial).stat().st_mode)
        partial.chmod(mode | stat.S_IWUSR)
        yield partial
        partial.chmod(mode)
        _sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write(path: str | Path, content: str | bytes) -> None:
    """`content`, UTF-8 where it is text, as the whole file `path`."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    """To the disk. Folders cannot be opened everywhere; there the rename may come later."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["replacing", "write"]
