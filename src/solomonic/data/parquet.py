"""The rows of a parquet file, through pyarrow."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet


def rows(
    path: Path, texts: Sequence[str], more: Sequence[str] | None = (), content: bytes | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row from 0, values by column), a batch in memory at a time. A number that is none, as NaN, is None.

    texts: columns of strings. more: others, of text, numbers or booleans; None for all of them.
    content: that of the file, where it was read already.
    ValueError for a file that cannot be read, or lacks a column.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path if content is None else pyarrow.BufferReader(content))
        types = dict(zip(file.schema_arrow.names, file.schema_arrow.types))
        if more is None:
            more = [name for name, kind in types.items() if name not in texts and _is_plain(kind)]
        for column in (*texts, *more):
            strings = column in texts
            if not (_is_text if strings else _is_plain)(types.get(column)):
                has = ", ".join(f"{name} ({kind})" for name, kind in types.items())
                kind = "strings" if strings else "text, numbers or truth"
                raise ValueError(f"{path}: expected a column {column!r} of {kind}, got the columns {has}")
        row = 0
        for batch in file.iter_batches(columns=[*texts, *more]):
            for values in batch.select([*texts, *more]).to_pylist():
                yield row, {name: None if _is_none(value) else value for name, value in values.items()}
                row += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a parquet file, got one that cannot be read ({error})") from None


def _is_none(value: Any) -> bool:
    return isinstance(value, float) and not isfinite(value)


def _is_text(kind: pyarrow.DataType | None) -> bool:
    if isinstance(kind, pyarrow.DictionaryType):
        kind = kind.value_type
    return kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())


def _is_plain(kind: pyarrow.DataType | None) -> bool:
    types = pyarrow.types
    return kind is not None and (
        _is_text(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    )


__all__ = ["rows"]
