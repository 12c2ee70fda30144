"""Reading a store on the disk from its first row to its last, and saying what is damaged or missing."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from ..schema import LayerSchema, StoredDocument
from .records import keys_fit
from .tables import KEYS, PIECE, VALUES, sound
from .walk import is_damage, rows

TOLD = 100  # entries of a layer that have a line of their own
AGAIN = "forget the document and add it again"
Reads = Callable[[], AbstractContextManager[sqlite3.Connection]]


def layer_problems(
    reads: Reads, shape: LayerSchema, dtype: str, documents: dict[int, StoredDocument], damaged: set[int], counts: dict
) -> list[str]:
    """Of the entries of a layer. counts: of a document, the tokens of each layer, where it says so."""
    layer, here, count = shape.layer, set(), Counter()
    problems, more = [], 0

    def tell(entry: int, what: str) -> None:
        nonlocal more
        if len(problems) < TOLD:
            problems.append(f"entry {entry & 0xFFFFFFFF} of layer {layer} of document {entry >> 32} {what}")
        else:
            more += 1

    for table, columns in (("keys", KEYS), ("values", VALUES)):
        gaps, before = [], -1
        for some in rows(reads, f"{table}_{layer}", columns, damaged=lambda: gaps.append(1)):
            for row in some:
                here ^= {row[0]}
                if row[0] < before:
                    tell(row[0], "does not stand where it belongs")
                before = row[0]
                if row[0] >> 32 not in documents and row[0] >> 32 not in damaged:
                    tell(row[0], "is of a document that is not there")
                elif not sound(row, layer) or (table == "keys" and not keys_fit(row, shape, dtype)):
                    tell(row[0], f"is damaged; {AGAIN}")
                elif table == "keys":
                    count[row[0] >> 32] += row[1]
        if gaps:
            problems.append(f"layer {layer}: {len(gaps)} parts of its {table} cannot be read")
    for entry in sorted(here):
        tell(entry, "is half missing")
    if more:
        problems.append(f"layer {layer}: and {more} more")
    for document in documents.values():
        said = counts.get(document.id)
        if said is not None and count[document.id] != said.get(layer, 0):
            problems.append(
                f"document {document.id} ({document.name!r}): {count[document.id]} of its {said.get(layer, 0)} tokens "
                f"of layer {layer} are sound"
            )
    return problems


def stray_texts(reads: Reads, known: set[int]) -> list[str]:
    """Text of documents that are not there."""
    stray = Counter()
    for some in rows(reads, "pieces", f"rowid, {PIECE}"):
        stray.update(row[1] for row in some if row[1] not in known)
    return [f"there is text of document {number}, which is not there" for number in stray]


def file_problems(reads: Reads, file: str) -> list[str]:
    """What SQLite itself finds."""
    with reads() as sql:
        try:
            found = sql.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            found = [(str(error),)]
    return [] if found == [("ok",)] else [f"{file}: {' '.join(str(row[0]).split())}" for row in found]
