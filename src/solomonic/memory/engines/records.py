"""The rows of a store on the disk as what they stand for. What is sound and nothing of ours is None, as damage is."""

import json
import math
import sqlite3
import zlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..schema import DTYPES, PIECE_BYTES, LayerSchema, StoredDocument, StoredTokens, TextPiece
from .tables import INTO_DOCUMENTS, encoded, seal, sound


def document(row: tuple) -> tuple[StoredDocument, Counter | None] | None:
    """A sound row, and the tokens of each layer, where it says them. None for what is no document."""
    number, name, session, time, digest, sources, length, ran, complete = row[:9]
    try:
        sources, (ran, counts) = json.loads(sources), clock(ran)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(sources, list) and all(type(one) is int for one in sources) and name):
        return None
    if not (type(length) is int and length >= 0 and number > 0 and isinstance(time, float)):
        return None
    return StoredDocument(
        number, name, session, time, digest, tuple(sources), 0, length, 0, ran, bool(complete)
    ), counts


def clock(text: str) -> tuple[tuple[tuple[int, float], ...], Counter | None]:
    """Of each layer how far its clock ran; its tokens, which older stores do not say. ValueError for anything else."""
    read = json.loads(text)
    if not isinstance(read, list) or not all(isinstance(one, list) and len(one) in (2, 3) for one in read):
        raise ValueError("expected a list of layers")
    for layer, ran, *count in read:
        if type(layer) is not int or type(ran) not in (int, float) or not math.isfinite(ran):
            raise ValueError("expected a layer and how far its clock ran")
        if count and type(count[0]) is not int:
            raise ValueError("expected a number of tokens")
    counts = Counter({one[0]: one[2] for one in read if len(one) == 3})
    return tuple((one[0], one[1]) for one in read), counts if len(counts) == len(read) else None


def clock_text(ran: Sequence[tuple[int, float]], counts: Counter | None) -> str:
    return json.dumps([[*one, counts[one[0]]] if counts is not None else one for one in ran])


def put_document(sql: sqlite3.Connection, row: tuple) -> None:
    sql.execute(f"REPLACE {INTO_DOCUMENTS}", (row[0], encoded(row[1]), encoded(row[2]), *row[3:], seal(row)))


def piece(row: tuple) -> TextPiece | None:
    """None for a damaged one."""
    _, start, lines, length, text, _ = row
    if not sound(row):
        return None
    try:
        read = zlib.decompressobj().decompress(text, PIECE_BYTES)
    except zlib.error:
        return None
    return TextPiece(start, lines, read) if len(read) == length else None


def keys_fit(row: tuple, shape: LayerSchema, dtype: str) -> bool:
    """Whether a row of keys is what a layer of that shape stores."""
    count, width = row[1], shape.heads * shape.dim * DTYPES[dtype].itemsize
    return (
        isinstance(count, int)
        and 0 < count <= shape.block
        and all(isinstance(x, bytes) for x in row[2:6])
        and [len(x) for x in row[2:6]] == [8 * count, 4 * count, 4 * count, width * count]
    )


def tokens(row: tuple, shape: LayerSchema, dtype: str) -> StoredTokens | None:
    """Of the rows of an entry side by side, keys and values."""
    kind, heads = DTYPES[dtype], (-1, shape.heads, shape.dim)
    keys, values = row[:7], row[7:]
    if not (sound(keys, shape.layer) and sound(values, shape.layer) and keys_fit(keys, shape, dtype)):
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


def token_bytes(shape: LayerSchema, dtype: str) -> tuple[int, int]:
    """Of a token: what search needs, and the rest."""
    heads = shape.heads * shape.dim * DTYPES[dtype].itemsize
    return heads + 16, heads + 16


def tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
