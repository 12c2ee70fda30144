"""The rows on the pages of an SQLite file, read without SQLite: none is lost because another page is damaged.

Only the leaves of tables are read, and what overflows from them (https://www.sqlite.org/fileformat.html, 1.6 and 2.1).
What is no row is passed over; the seal of a row tells whether it is sound.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .tables import Row

MAGIC = b"SQLite format 3\0"
LEAF = 0x0D
WHOLE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of the kinds of whole numbers


def pages_of(path: Path) -> tuple[int, int] | None:
    """(bytes of a page, bytes at its end that are not in use), as the file's header has them; None where it has not."""
    with path.open("rb") as file:
        header = file.read(100)
    if header[:16] != MAGIC or len(header) < 100:
        return None
    (size,) = struct.unpack(">H", header[16:18])
    size = 65536 if size == 1 else size
    return (size, header[20]) if size >= 512 and size & (size - 1) == 0 else None


def table_rows(path: Path, page_size: int, unused: int = 0) -> Iterator[tuple[int, Row]]:
    """(rowid, values) of every row of every table, on pages of `page_size` bytes, `unused` of which are not in use."""
    size = path.stat().st_size
    budget = [8 * size]  # bytes: pages that point at each other would be read without end
    with path.open("rb") as file:
        for number in range(2, size // page_size + 1):  # the first one has the schema
            file.seek((number - 1) * page_size)
            page = file.read(page_size)
            if page[:1] == bytes([LEAF]):
                yield from _leaf(file, page, page_size, page_size - unused, budget)


def _leaf(file: BinaryIO, page: bytes, page_size: int, usable: int, budget: list[int]) -> Iterator[tuple[int, Row]]:
    (count,) = struct.unpack(">H", page[3:5])
    for cell in range(min(count, (usable - 8) // 2)):
        (at,) = struct.unpack(">H", page[8 + 2 * cell : 10 + 2 * cell])
        try:
            length, at = _varint(page, at)
            rowid, at = _varint(page, at)
            budget[0] -= length
            if budget[0] < 0:
                return
            payload = _payload(file, page, at, length, page_size, usable)
            yield _signed(rowid, 8), _record(payload)
        except (IndexError, struct.error, UnicodeDecodeError, ValueError):
            continue


def _payload(file: BinaryIO, page: bytes, at: int, length: int, page_size: int, usable: int) -> bytes:
    most = usable - 35
    if length <= most:
        return page[at : at + length]
    least = (usable - 12) * 32 // 255 - 23
    here = least + (length - least) % (usable - 4)
    here = here if here <= most else least
    parts, left = [page[at : at + here]], length - here
    (number,) = struct.unpack(">I", page[at + here : at + here + 4])
    while left > 0:
        if number == 0:
            raise ValueError("the chain of pages ends early")
        file.seek((number - 1) * page_size)
        more = file.read(page_size)
        (number,) = struct.unpack(">I", more[:4])
        parts.append(more[4 : 4 + min(left, usable - 4)])
        left -= usable - 4
    return b"".join(parts)


def _record(data: bytes) -> Row:
    end, at = _varint(data, 0)
    kinds = []
    while at < end:
        kind, at = _varint(data, at)
        kinds.append(kind)
    values: list[int | float | str | bytes | None] = []
    for kind in kinds:
        length = WHOLE.get(kind, 8 if kind == 7 else max(0, kind - 12) // 2)
        part = data[at : at + length]
        if len(part) < length or kind in (10, 11):
            raise ValueError("the row is cut off")
        at += length
        if kind == 0:
            values.append(None)
        elif kind in WHOLE:
            values.append(_signed(int.from_bytes(part, "big"), length))
        elif kind == 7:
            values += struct.unpack(">d", part)
        elif kind in (8, 9):
            values.append(kind - 8)
        else:
            values.append(part.decode("utf-8", "surrogateescape") if kind % 2 else part)
    return tuple(values)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _signed(value: int, size: int) -> int:
    return value - (1 << 8 * size) if value >> (8 * size - 1) & 1 else value
