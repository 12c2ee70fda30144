"""Reading a store on the disk from its first row to its last, and saying what is damaged or missing."""

import sqlite3
from collections import Counter

from ..schema import LayerSchema, StoredDocument
from .records import TokenCounts, keys_fit
from .tables import KEYS, PIECE, VALUES, sound
from .walk import Reads, is_damage, rows

MOST_LINES = 100  # of entries of a layer
AGAIN = "forget the document and add it again"


def layer_problems(
    reads: Reads,
    schema: LayerSchema,
    dtype: str,
    documents: dict[int, StoredDocument],
    damaged: set[int],
    counts: TokenCounts,
) -> list[str]:
    """A line for every problem of the entries of a layer. damaged: documents whose own rows are."""
    layer, problems, more = schema.layer, list[str](), 0
    unpaired: set[int] = set()  # entries of one of the two tables
    count: Counter[int] = Counter()

    def report(entry: int, what: str) -> None:
        nonlocal more
        if len(problems) < MOST_LINES:
            problems.append(f"entry {entry & 0xFFFFFFFF} of layer {layer} of document {entry >> 32} {what}")
        else:
            more += 1

    for table, columns in (("keys", KEYS), ("values", VALUES)):
        gaps, before = 0, -1

        def add_gap() -> None:
            nonlocal gaps
            gaps += 1

        for batch in rows(reads, f"{table}_{layer}", columns, damaged=add_gap):
            for row in batch:
                unpaired ^= {row[0]}
                if row[0] < before:
                    report(row[0], "does not stand where it belongs")
                before = row[0]
                if row[0] >> 32 not in documents and row[0] >> 32 not in damaged:
                    report(row[0], "is of a document that is not there")
                elif not sound(row, layer) or (table == "keys" and not keys_fit(row, schema, dtype)):
                    report(row[0], f"is damaged; {AGAIN}")
                elif table == "keys":
                    count[row[0] >> 32] += row[1]
        if gaps:
            problems.append(f"layer {layer}: {gaps} parts of its {table} cannot be read")
    for entry in sorted(unpaired):
        report(entry, "is half missing")
    if more:
        problems.append(f"layer {layer}: and {more} more")
    for document in documents.values():
        expected = counts.get(document.id)
        if expected is not None and count[document.id] != expected.get(layer, 0):
            problems.append(
                f"document {document.id} ({document.name!r}): {count[document.id]} of its {expected.get(layer, 0)} tokens "
                f"of layer {layer} are sound"
            )
    return problems


def stray_texts(reads: Reads, known: set[int]) -> list[str]:
    """A line for the text of each document that is not `known`."""
    stray: Counter[int] = Counter()
    for batch in rows(reads, "pieces", f"rowid, {PIECE}"):
        stray.update(row[1] for row in batch if row[1] not in known)
    return [f"there is text of document {number}, which is not there" for number in stray]


def file_problems(reads: Reads, file: str) -> list[str]:
    """The problems that SQLite itself finds."""
    with reads() as sql:
        try:
            answers = sql.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            answers = [(str(error),)]
    return [] if answers == [("ok",)] else [f"{file}: {' '.join(str(row[0]).split())}" for row in answers]
