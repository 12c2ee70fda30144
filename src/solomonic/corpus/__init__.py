"""Text where people keep it: files, folders, JSON lines and parquet, as documents with their place in their file.

`.jsonl` and `.ndjson` hold a document a line, `.parquet` a document a row, in the field or column `text` or another
that is asked for; any other file is one document. What was named by hand has to be readable; in a folder, hidden,
empty and binary files (with a NUL byte, or most of it not UTF-8) are passed over.
"""

import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import jsontext

LINES, PARQUET = (".jsonl", ".ndjson"), ".parquet"
LIBRARY_LEAVES_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "encodings", "__pycache__"}
LOOKED_AT = 8192  # bytes of a file that decide whether it is binary


@dataclass(frozen=True)
class Document:
    """`text` UTF-8 or nearly; `source` the file as it was named; `start` its first byte, line or row there."""

    source: str
    start: int
    text: bytes


def documents(paths: Iterable[str | Path], field: str = "text") -> Iterator[Document]:
    """The documents of `paths`, one after the other; a folder's files in the order of their paths.

    ValueError for a path that is not there, a file that was named and is empty or binary, broken JSON or parquet, or
    one without `field`.
    """
    for path in map(Path, paths):
        if path.is_dir():
            for file in files(path):
                yield from _documents(file, field, named=False)
        elif path.exists():
            yield from _documents(path, field, named=True)
        else:
            raise ValueError(f"{path}: expected a file or folder of text; it is not there")


def files(root: Path) -> list[Path]:
    """Every file under `root` that is not hidden, in the order of the paths."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file()]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def library() -> list[Path]:
    """The sources of the Python library on this machine, in the order of the paths: text that is always there.

    Without empty files, what was installed beside it, tests, IDLE, the encodings' tables, which are near copies of
    one another, and `_sysconfigdata*`, which is made at build time and differs between machines.
    """
    root, found = Path(sysconfig.get_paths()["stdlib"]), []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LIBRARY_LEAVES_OUT]
        sources = (name for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata"))
        found += [path for name in sources if (path := Path(folder, name)).stat().st_size]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def is_binary(beginning: bytes) -> bool:
    """Whether a file that begins so is no text: it has a NUL byte, or one byte in ten or more is not UTF-8."""
    if b"\0" in beginning:
        return True
    broken = beginning.decode("utf-8", "replace").count("\ufffd")
    return broken * 10 >= max(len(beginning), 1)


def _documents(path: Path, field: str, named: bool) -> Iterator[Document]:
    if path.suffix == PARQUET:
        from .parquet import rows

        yield from (Document(str(path), row, text.encode()) for row, text in rows(path, field))
        return
    with path.open("rb") as file:
        beginning = file.read(LOOKED_AT)
        if not beginning.strip() or is_binary(beginning):
            if named:
                what = "binary" if beginning.strip() else "empty"
                raise ValueError(f"{path}: expected text, got a file that is {what}; pass text, JSON lines or parquet")
            return
        file.seek(0)
        if path.suffix in LINES:
            yield from _lines(path, file, field)
        else:
            yield Document(str(path), 0, file.read())


def json_lines(path: Path, lines: Iterable[str | bytes]) -> Iterator[tuple[int, Any]]:
    """(number from 1, what it says) of each line of `path` with something on it. ValueError for what is no JSON."""
    yield from jsontext.lines(path, lines, infinite=True)  # what stands beside the text may be anything


def _lines(path: Path, lines: Iterable[bytes], field: str) -> Iterator[Document]:
    for number, entry in json_lines(path, lines):
        text = entry.get(field) if isinstance(entry, dict) else None
        if not isinstance(text, str):
            has = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"{path}, line {number}: expected an object with the text under {field!r}, got {has}")
        if text:
            yield Document(str(path), number, text.encode("utf-8", "surrogatepass"))


__all__ = ["Document", "documents", "files", "is_binary", "json_lines", "library"]
