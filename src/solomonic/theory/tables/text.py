"""The text of a table, whatever program wrote it, as numbered lines."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or another zip file"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"PAR1\x15", "a parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB 5.0", "a .mat file by another name"),
    (b"\x1f\x8b", "a gzip file"),
    (b"{", "JSON"),
    (b"[{", "JSON"),
    (b"<!", "HTML or XML"),
    (b"<?", "HTML or XML"),
    (b"<html", "HTML"),
    (b"<table", "HTML"),
)
CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
COMMENT = re.compile(r"\s*(?:%|#(?!N/?A\b|VALUE!|DIV/0!|NUM!|NULL!|REF!|NAME\?))", re.IGNORECASE)  # or errors of Excel
SEPARATOR = re.compile(r'"?sep=([^\w"\' ])"?[,;]*', re.IGNORECASE)


@dataclass(frozen=True)
class Lines:
    """`kept`: (number from 1, line) without comments and empty lines; `empty`: the numbers of those between them.

    `comment` is the last one before the first line that is kept; `separator` what a first line `sep=;` names.
    """

    kept: list[tuple[int, str]]
    empty: list[int]
    comment: str | None
    separator: str | None
    notes: list[str]


def lines(path: str | Path) -> Lines:
    """The lines of a file. ValueError for a file that is no text, or empty; OSError for one that cannot be read."""
    data = Path(path).read_bytes()
    for magic, what in NO_TEXT:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            raise ValueError(f"{path}: expected a table as text, got {what}; save it as CSV")
    text, notes = _decoded(path, data)
    kept: list[tuple[int, str]] = []
    empty: list[int] = []
    comment: str | None = None
    separator: str | None = None
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if COMMENT.match(line):
            comment = comment if kept else line.strip().lstrip("#%").strip()
        elif not line.strip(" \f\v\x1a"):
            empty.append(number)
        elif not kept and separator is None and (named := SEPARATOR.fullmatch(line.strip(" "))):
            separator = named[1]
        else:
            kept.append((number, line))
    if not kept:
        raise ValueError(f"{path}: expected a table, got an empty file")
    return Lines(kept, [n for n in empty if n < kept[-1][0]], comment, separator, notes)


def _decoded(path: str | Path, data: bytes) -> tuple[str, list[str]]:
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:1000]:  # UTF-16 without its mark: one of two bytes is zero
        zeros = [data[start:1000:2].count(0) for start in (0, 1)]
        encoding = "utf-16-le" if zeros[1] > 2 * zeros[0] else "utf-16-be" if zeros[0] > 2 * zeros[1] else None
    notes = []
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise ValueError(f"{path}: expected a table as text, got what is none ({error}); save it as CSV") from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError(
                f"{path}: expected a table as text, got bytes that are neither UTF-8 nor Windows-1252; save it as UTF-8"
            ) from None
        notes.append(f"{path} is no UTF-8 and was read as Windows-1252 (Latin-1); save it as UTF-8 if names look wrong")
    text = text.rstrip("\x1a\0")  # the end of a file in DOS, and of one whose logger lost power
    if strange := CONTROL.search(text):
        line = text.count("\n", 0, strange.start()) + 1
        raise ValueError(f"{path}, line {line}: expected a table as text, got bytes that are no text; save it as CSV")
    return text, notes


__all__ = ["Lines", "lines"]
