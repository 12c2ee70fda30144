"""The rows of a parquet file, through pyarrow."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet


def rows(path: Path, column: str) -> Iterator[tuple[int, str]]:
    """(row, text) of a column of strings, a batch in memory at a time; empty texts are passed over."""
    try:
        file = pyarrow.parquet.ParquetFile(path)
        types = dict(zip(file.schema_arrow.names, file.schema_arrow.types))
        if not _strings(types.get(column)):
            has = ", ".join(f"{name} ({kind})" for name, kind in types.items())
            raise ValueError(f"{path}: expected a column {column!r} of strings, got the columns {has}")
        row = 0
        for batch in file.iter_batches(columns=[column]):
            for value in batch.column(0):
                if text := value.as_py():
                    yield row, text
                row += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a parquet file, got one that cannot be read ({error})") from None


def _strings(kind: pyarrow.DataType | None) -> bool:
    if isinstance(kind, pyarrow.DictionaryType):
        kind = kind.value_type
    return kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())


__all__ = ["rows"]
