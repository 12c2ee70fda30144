"""Documents of text, with their place in their file, from files, folders, JSON, tables and parquet.

`.jsonl`, `.ndjson` and `.json` hold a document a record (`records`), `.parquet` a document a row, in the field or column
`text` or another that is asked for; so do `.csv` and `.tsv` with a column of that name. Any other file is one document.
What was named by hand has to be readable; in a folder, hidden, empty and binary files (with a NUL byte, or most of it not
UTF-8) are passed over, and `.json` that holds no records is a text as any other.
"""

import os
import sysconfig
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .records import (
    LINES,
    LIST,
    LOOKED_AT,
    PARQUET,
    TABLES,
    Record,
    has_columns,
    is_binary,
    of_json,
    of_lines,
    of_parquet,
    of_table,
    unfit,
    utf8,
)

FIELD = "text"
LIBRARY_LEAVES_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "encodings", "__pycache__"}


@dataclass(frozen=True)
class Document:
    """`text` in UTF-8 or nearly so; `source`, the path of the file; `start`, its first byte, line or row there."""

    source: str
    start: int
    text: bytes


def documents(paths: Iterable[str | Path], field: str = FIELD) -> Iterator[Document]:
    """The documents of `paths`, one after the other; a folder's files in the order of their paths.

    ValueError for a path that is not there, a file that was named and is empty or binary, broken JSON, parquet or tables,
    or one without `field`.
    """
    for path in map(Path, paths):
        if path.is_dir():
            for file in files(path):
                yield from of_file(file, field, named=False)
        elif path.exists():
            yield from of_file(path, field)
        else:
            raise ValueError(f"{path}: expected a file or folder of text; it is not there")


def files(root: Path) -> list[Path]:
    """Every file under `root` that is not hidden, in the order of the paths."""
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file()]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def library() -> list[Path]:
    """The sources of the Python library on this machine, in the order of the paths: text that is always there.

    Without empty files, what was installed beside it, tests, IDLE, the encodings' tables, which are near copies of
    one another, and `_sysconfigdata*`, which is made at build time and differs between machines.
    """
    root, paths = Path(sysconfig.get_paths()["stdlib"]), []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in LIBRARY_LEAVES_OUT]
        sources = (name for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata"))
        paths += [path for name in sources if (path := Path(folder, name)).stat().st_size]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def of_file(path: Path, field: str = FIELD, named: bool = True) -> Iterator[Document]:
    """The documents of one file. named: a person named it, so that a file without any is an error and not passed over."""
    suffix = path.suffix.lower()
    if suffix == PARQUET:
        for _, row, of in of_parquet(path, [field]):
            if of[field]:
                yield Document(str(path), row, utf8(of[field]))
        return
    with path.open("rb") as file:  # which may be a pipe
        if what := unfit(file.peek(LOOKED_AT)[:LOOKED_AT]):
            if named:
                raise ValueError(f"{path}: expected text, got a file that is {what}; pass text, JSON lines or parquet")
            return
        if suffix in LINES:
            yield from _texts(path, of_lines(path, file), field)
            return
        content = file.read()
    records: Iterable[Record] | None = None
    if suffix == LIST:
        records = _of_json(path, content, field, named)
    elif suffix in TABLES and (field != FIELD or has_columns(path, content, [field])):
        records = of_table(path, content, [field])
    if records is None:
        yield Document(str(path), 0, content.removeprefix(BOM_UTF8))
    else:
        yield from _texts(path, records, field)


def _of_json(path: Path, content: bytes, field: str, named: bool) -> list[Record] | None:
    """The records of a `.json`; None where it is a plain text: in a folder one without records, as the settings of a program."""
    try:
        records = list(of_json(path, content))
    except ValueError:
        if named:
            raise
        return None
    if named or any(isinstance(record.value, dict) and field in record.value for record in records):
        return records
    several = len(records) > 1 or content.removeprefix(BOM_UTF8).lstrip().startswith(b"[")
    return records if several and any(isinstance(record.value, (dict, str)) for record in records) else None


def _texts(path: Path, records: Iterable[Record], field: str) -> Iterator[Document]:
    for where, number, value in records:
        text = value.get(field) if isinstance(value, dict) else value
        if not isinstance(text, str):
            has = type(value).__name__
            if isinstance(value, dict):
                has = f"{field} ({type(text).__name__})" if field in value else ", ".join(value) or "an empty one"
            raise ValueError(
                f"{where}: expected an object with the text under {field!r}, got {has}; --field names another"
            )
        if text:
            yield Document(str(path), number, utf8(text))


__all__ = ["Document", "documents", "files", "is_binary", "library", "of_file"]
