"""Counting what the tables of a store on the disk hold, row by row: an index of a damaged file may be wrong."""

from collections import Counter

from ..schema import StoreSchema
from .records import token_bytes
from .tables import DOCUMENT, sound
from .walk import Reads, rows


def orphans(reads: Reads, schema: StoreSchema) -> set[int]:
    """Documents of which there are entries or text, and no row of their own that can be read."""
    documents: set[int] = set()
    for layer_schema in schema.layers:
        for batch in rows(reads, f"keys_{layer_schema.layer}", "rowid"):
            documents |= {entry >> 32 for (entry,) in batch}
    for batch in rows(reads, "pieces", "rowid, document"):
        documents |= {document for _, document in batch if isinstance(document, int)}
    for batch in rows(reads, "documents", DOCUMENT):
        documents -= {row[0] for row in batch if sound(row)}
    return documents


def token_sizes(reads: Reads, schema: StoreSchema) -> tuple[Counter[int], Counter[int]]:
    """Of each document the tokens, and the bytes that they take."""
    tokens: Counter[int] = Counter()
    size: Counter[int] = Counter()
    for layer_schema in schema.layers:
        nbytes = sum(token_bytes(layer_schema, schema.dtype))
        for batch in rows(reads, f"keys_{layer_schema.layer}", "rowid, tokens"):
            for entry, count in batch:
                if isinstance(count, int):
                    tokens[entry >> 32] += count
                    size[entry >> 32] += count * nbytes
    return tokens, size


def text_sizes(reads: Reads) -> Counter[int]:
    """Of each document the bytes that its compressed text takes."""
    size: Counter[int] = Counter()
    for batch in rows(reads, "pieces", "rowid, document, length(text)"):
        for _, document, length in batch:
            size[document] += length or 0
    return size


__all__ = ["orphans", "text_sizes", "token_sizes"]
