"""The rows of a store on the disk, to what they stand for and from it. A damaged row reads as None, and so does a sound one
that no store has written."""

import json
import math
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..schema import DTYPES, PIECE_BYTES, LayerSchema, SavePoint, StoredDocument, StoredTokens, TextPiece
from .tables import DOCUMENT, INTO_DOCUMENTS, Row, about, encoded, seal, set_about, sound

TokenCounts = Mapping[int, Counter[int] | None]
"""Of each document the tokens of each layer, None where its row does not have them, as in older stores."""


def document(row: Row) -> tuple[StoredDocument, Counter[int] | None] | None:
    """Of a sound row, the document and the tokens of each layer. None for what is no document."""
    number, name, session, time, digest, sources, length, clock_json, complete = row[:9]
    try:
        sources, (elapsed, counts) = json.loads(sources), clock(clock_json)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(sources, list) and all(type(source) is int for source in sources) and name):
        return None
    if not (type(length) is int and length >= 0 and number > 0 and isinstance(time, float)):
        return None
    return StoredDocument(
        number, name, session, time, digest, tuple(sources), 0, length, 0, elapsed, bool(complete)
    ), counts


def clock(text: str) -> tuple[tuple[tuple[int, float], ...], Counter[int] | None]:
    """(layer, how far its clock ran) of each layer, and the tokens of each, None in older stores. ValueError for anything
    else."""
    layers = json.loads(text)
    if not isinstance(layers, list) or not all(isinstance(item, list) and len(item) in (2, 3) for item in layers):
        raise ValueError("expected a list of layers")
    for layer, elapsed, *count in layers:
        if type(layer) is not int or type(elapsed) not in (int, float) or not math.isfinite(elapsed):
            raise ValueError("expected a layer and how far its clock ran")
        if count and type(count[0]) is not int:
            raise ValueError("expected a number of tokens")
    counts = Counter({item[0]: item[2] for item in layers if len(item) == 3})
    return tuple((item[0], item[1]) for item in layers), counts if len(counts) == len(layers) else None


def clock_text(clock: Sequence[tuple[int, float]], counts: Counter[int] | None) -> str:
    return json.dumps([(layer, ran) if counts is None else (layer, ran, counts[layer]) for layer, ran in clock])


def put_document(sql: sqlite3.Connection, row: Row) -> None:
    sql.execute(f"REPLACE {INTO_DOCUMENTS}", (row[0], encoded(row[1]), encoded(row[2]), *row[3:], seal(row)))


def piece(row: Row) -> TextPiece | None:
    """None for a damaged one."""
    _, start, lines, length, text, _ = row
    if not sound(row):
        return None
    try:
        raw = zlib.decompressobj().decompress(text, PIECE_BYTES)
    except zlib.error:
        return None
    return TextPiece(start, lines, raw) if len(raw) == length else None


def keys_fit(row: Row, schema: LayerSchema, dtype: str) -> bool:
    """Whether a row of keys is what a layer of that schema stores."""
    count, width = row[1], schema.heads * schema.dim * DTYPES[dtype].itemsize
    return (
        isinstance(count, int)
        and 0 < count <= schema.block
        and all(isinstance(x, bytes) for x in row[2:6])
        and [len(x) for x in row[2:6]] == [8 * count, 4 * count, 4 * count, width * count]
    )


def tokens(row: Row, schema: LayerSchema, dtype: str) -> StoredTokens | None:
    """The tokens of an entry, of its rows of keys and of values side by side."""
    kind, heads = DTYPES[dtype], (-1, schema.heads, schema.dim)
    keys, values = row[:7], row[7:]
    if not (sound(keys, schema.layer) and sound(values, schema.layer) and keys_fit(keys, schema, dtype)):
        return None
    if values[0] != keys[0] or (len(values[1]), len(values[2])) != (len(row[5]), 16 * row[1]):
        return None
    return StoredTokens(
        position=tensor(row[2], torch.int64),
        key=tensor(row[5], kind).view(heads),
        value=tensor(row[8], kind).view(heads),
        score=tensor(row[3], torch.float32),
        clock=tensor(row[4], torch.float32),
        span=tensor(row[9], torch.int64).view(-1, 2),
    )


def token_bytes(schema: LayerSchema, dtype: str) -> tuple[int, int]:
    """Bytes of a token: of what search needs, and of the rest."""
    heads = schema.heads * schema.dim * DTYPES[dtype].itemsize
    return heads + 16, heads + 16


def put_save_point(sql: sqlite3.Connection, point: SavePoint, last_document: Callable[[], int]) -> None:
    """Write a save point. last_document: called where the store's own record of the last id is damaged."""
    d = point.document
    before = sql.execute("SELECT clock FROM documents WHERE id = ?", (d.id,)).fetchone()
    counts: Counter[int] | None = Counter() if before is None else clock(before[0])[1]
    for layer, entry, t in point.entries:
        if counts is not None:
            old = sql.execute(f"SELECT tokens FROM keys_{layer} WHERE id = ?", (entry,)).fetchone()
            counts[layer] += len(t) - (old[0] if old else 0)
        key = (entry, len(t), as_bytes(t.position), as_bytes(t.score), as_bytes(t.clock), as_bytes(t.key))
        value = (entry, as_bytes(t.value), as_bytes(t.span))
        sql.execute(f"REPLACE INTO keys_{layer} VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, seal(key, layer)))
        sql.execute(f"REPLACE INTO values_{layer} VALUES (?, ?, ?, ?)", (*value, seal(value, layer)))
    for part in point.pieces:
        text = (d.id, part.start, part.lines, len(part.text), zlib.compress(part.text, 6))
        sql.execute("REPLACE INTO pieces VALUES (?, ?, ?, ?, ?, ?)", (*text, seal(text)))
    sources, clocks = json.dumps(d.sources), clock_text(d.clock, counts)
    put_document(
        sql, (d.id, d.name, d.session, d.time, d.digest, sources, d.text, clocks, int(d.complete), point.state)
    )
    last = about(sql, "last_document")
    set_about(sql, "last_document", str(max(d.id, last_document() if last is None else int(last))))
    if before is None:
        recorded = about(sql, "documents")
        number = sql.execute("SELECT count(*) FROM documents").fetchone()[0] if recorded is None else int(recorded) + 1
        set_about(sql, "documents", str(number))


def subtract_tokens(sql: sqlite3.Connection, document: int, fewer: Counter[int]) -> None:
    """Record that a document has so many tokens less, of each layer."""
    row = sql.execute(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (document,)).fetchone()
    if row is None or not sound(row):
        return
    elapsed, counts = clock(row[7])
    if counts is not None:
        counts.subtract(fewer)
        put_document(sql, (*row[:7], clock_text(elapsed, counts), *row[8:10]))


def tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
