"""Records of a file, by one reader for every command: JSON lines, JSON lists, tables of text.

A line of `.jsonl` and `.ndjson` ends at a line feed and nowhere else; an empty one is passed over. `.json` is a list of
records, or one record, or JSON lines by another name. The first row of `.csv` and `.tsv` names the columns. The case of
an extension does not matter, and a byte-order mark is no part of the content. A number that is none, as NaN, which
programs write and JSON lacks, is None.
"""

import csv
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._utils import jsontext

LINES, LIST, TABLES, PARQUET = (".jsonl", ".ndjson"), ".json", (".csv", ".tsv"), ".parquet"
FORMS = (*LINES, LIST, *TABLES, PARQUET)
SEPARATORS = ",;\t|"
LONGEST = 2**30  # characters of a cell
LOOKED_AT = 8192  # bytes of a file that decide whether it is binary


class Record(NamedTuple):
    """`where` as an error names it, "x.jsonl, line 3"; `number` from 1; `value`, a dictionary or another value of JSON."""

    where: str
    number: int
    value: Any


def records(
    path: Path,
    content: bytes,
    texts: Sequence[str],
    more: Sequence[str] | None = None,
    form: str | None = None,
) -> Iterator[Record]:
    """The records of a file in the format of its extension, or in `form`, one of `FORMS`.

    texts, more: columns that a table or parquet has to have, of strings and others; `more` None for all others.
    ValueError for a file that cannot be read.
    """
    form = form or path.suffix.lower()
    if form == PARQUET:
        return of_parquet(path, texts, more, content)
    if what := unfit(content[:LOOKED_AT]):
        raise ValueError(f"{path}: expected records, got a file that is {what}")
    if form in TABLES:
        return of_table(path, content, [*texts, *(more or ())])
    return of_json(path, content) if form == LIST else of_lines(path, content.split(b"\n"))


def of_parquet(
    path: Path, texts: Sequence[str], more: Sequence[str] | None = (), content: bytes | None = None
) -> Iterator[Record]:
    """The rows of a parquet file, numbered from 0. ValueError for another file, for missing columns, and without pyarrow."""
    try:
        from .parquet import rows
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: it needs {error.name}; pip install 'solomonic[train]'") from None
    for row, values in rows(path, texts, more, content):
        yield Record(f"{path}, row {row + 1}", row, values)


def of_lines(path: Path, lines: Iterable[bytes]) -> Iterator[Record]:
    """The records of JSON lines. ValueError, by line, for what is no JSON."""
    for number, value in jsontext.lines(path, lines, missing=True):
        yield Record(f"{path}, line {number}", number, value)


def of_json(path: Path, content: bytes) -> Iterator[Record]:
    """The records of a JSON list, of one record, or of JSON lines. ValueError for what is no JSON."""
    lines = content.split(b"\n")
    try:
        value = jsontext.parse(content, str(path), missing=True)
    except ValueError:
        if not _is_record(next(filter(bytes.strip, lines), b"")):
            raise
        yield from of_lines(path, lines)
        return
    for number, record in enumerate(value if isinstance(value, list) else [value], 1):
        yield Record(f"{path}, entry {number}", number, record)


def of_table(path: Path, content: bytes, columns: Sequence[str]) -> Iterator[Record]:
    """The records of a table that has `columns`. ValueError for one without, and, by line, for a row of another length."""
    lines, separator = _lines(path, content)
    names, separator = _header(path, lines, separator, columns)
    for column in (*columns, *filter(None, names)):
        if names.count(column) != 1:
            got = "twice" if column in names else ", ".join(names)
            raise ValueError(f"{path}: expected a first row that names the column {column!r} once, got {got}")
    rows = _rows(path, lines, separator)
    next(rows)
    for line, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, line {line}: expected {len(names)} cells, as the first row has, got {len(cells)}; a text with "
                f"{separator!r}, a quote or a line end in it stands in double quotes"
            )
        yield Record(f"{path}, line {line}", line, dict(zip(names, cells)))


def has_columns(path: Path, content: bytes, columns: Sequence[str]) -> bool:
    """Whether the first row of what may be a table names `columns`."""
    try:
        lines, separator = _lines(path, content[:LOOKED_AT].decode("utf-8", "replace").encode())
        return set(columns) <= set(_header(path, lines, separator, columns)[0])
    except ValueError:  # no row of a table
        return False


def text_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a text's lines, without their ends, but for the empty ones."""
    for number, line in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if line.strip():
            yield number, line


def utf8(text: str) -> bytes:
    """The text in UTF-8; a lone surrogate, which JSON can have, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def is_binary(beginning: bytes) -> bool:
    """Whether a file that begins so is no text: it has a NUL byte, or one byte in ten or more is not UTF-8."""
    if b"\0" in beginning:
        return True
    broken = beginning.decode("utf-8", "replace").count("\ufffd")
    return broken * 10 >= max(len(beginning), 1)


def unfit(beginning: bytes) -> str | None:
    """Why a file that begins so is no text in UTF-8 or nearly so; None where it is one."""
    if not beginning.removeprefix(BOM_UTF8).strip():
        return "empty"
    if beginning.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "UTF-16, not UTF-8"
    return "binary" if is_binary(beginning) else None


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(jsontext.parse(line, "", missing=True), (dict, str))
    except ValueError:
        return False


def _lines(path: Path, content: bytes) -> tuple[list[str], str | None]:
    """The lines, and the separator that a first line `sep=;` names."""
    try:
        lines = [line + "\n" for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected a table in UTF-8, got another encoding ({error}); save it as UTF-8"
        ) from None
    named = re.fullmatch(r"sep=(.)\s*", lines[0])
    if named:
        lines[0] = "\n"  # so that lines keep their numbers
    return lines, named and named[1]


def _header(path: Path, lines: list[str], separator: str | None, columns: Sequence[str]) -> tuple[list[str], str]:
    """The names, and the separator that makes most of `columns`, and then most names, of the first row."""
    headers = []
    for one in separator or SEPARATORS:
        names = next((cells for _, cells in _rows(path, lines, one)), [])
        headers.append(([name.strip() for name in names], one))
    return max(headers, key=lambda header: (len({*columns} & {*header[0]}), len(header[0])))


def _rows(path: Path, lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """(the line it begins in, cells) of each row. ValueError for quotes that are not closed."""
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
    reader, begins = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True), 1
    try:
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip()):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {begins}: expected a row of a table, got what is none ({error})") from None


__all__ = [
    "FORMS",
    "LINES",
    "LIST",
    "LOOKED_AT",
    "PARQUET",
    "TABLES",
    "Record",
    "has_columns",
    "is_binary",
    "of_json",
    "of_lines",
    "of_parquet",
    "of_table",
    "records",
    "text_lines",
    "unfit",
    "utf8",
]
