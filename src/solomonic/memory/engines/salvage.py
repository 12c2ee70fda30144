"""What is sound in a damaged store, written into a new file: every row whose seal holds, wherever it stands."""

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from ..._utils.files import replacing
from ..schema import StoreSchema
from .pages import pages_of, table_rows
from .tables import (
    FORMAT,
    INTO_DOCUMENTS,
    PAGE,
    Row,
    about,
    check_tables,
    decoded,
    encoded,
    set_about,
    sound,
    statements,
)
from .walk import rows


@dataclass
class Salvaged:
    """documents: how many could be read. recorded: how many there were, -1 where that cannot be read any more, None for a
    store that never recorded it. broken: rows that are no more as they were written. orphans: of each document whose own
    row is lost, its other rows. halves: of each (document, layer), entries of which one half is lost.
    """

    documents: int = 0
    recorded: int | None = None
    broken: int = 0
    orphans: Counter[int] = field(default_factory=Counter)
    halves: Counter[tuple[int, int]] = field(default_factory=Counter)


def schema_of(path: Path) -> StoreSchema | None:
    """The schema that a damaged file itself still has."""
    for _, row in _rows(path):
        if len(row) == 3 and row[0] == "layout" and sound(row):
            return StoreSchema.from_json(row[1])
    return None


def settled(path: Path, folder: Path) -> Path:
    """The file with what its log adds: `path` itself where there is no log, else a copy in `folder`."""
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        return path
    copy = folder / path.name
    for source in (path, log):
        shutil.copyfile(source, folder / source.name)
    sql = sqlite3.connect(copy, isolation_level=None)
    try:
        sql.execute("PRAGMA writable_schema = ON")  # a file that was cut off is read all the same
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        pass  # what the log had is lost; the file's own pages are read
    finally:
        sql.close()
    return copy


def salvage(source: Path, target: Path, schema: StoreSchema, without: Collection[int] = ()) -> Salvaged:
    """Write the sound rows of `source`, but for those of the documents `without`, to `target`, whole or not at all.

    OSError where there is no room for it.
    """
    with replacing(target) as partial:
        sql = sqlite3.connect(partial, isolation_level=None)
        try:
            return _fill(sql, source, schema, set(without))
        except sqlite3.Error as error:
            raise OSError(f"{target}: {error}") from error
        finally:
            sql.close()


def _fill(sql: sqlite3.Connection, source: Path, schema: StoreSchema, without: set[int]) -> Salvaged:
    sql.execute(f"PRAGMA page_size = {PAGE}")
    sql.execute("PRAGMA journal_mode = OFF")
    sql.execute("PRAGMA synchronous = OFF")  # `replacing` syncs it
    sql.execute("BEGIN")
    for statement in statements(schema):
        sql.execute(statement)
    result, broken = Salvaged(), set[tuple[int, Row]]()
    for rowid, row in chain(_rows(source), _by_sqlite(source, schema)):
        insert = _insert(rowid, row, schema)
        if insert is None:
            if len(row) != 5 and (rowid, row) not in broken:  # those are SQLite's own schema
                broken.add((rowid, row))
        elif not _documents_of(*insert) & without:
            sql.execute(*insert)
    result.broken = len(broken)
    here = "(SELECT id FROM documents)"
    orphan = f"WHERE id >> 32 NOT IN {here}"
    for layer_schema in schema.layers:
        keys, values = f"keys_{layer_schema.layer}", f"values_{layer_schema.layer}"
        for table in (keys, values):
            for document, count in sql.execute(f"SELECT id >> 32, count(*) FROM {table} {orphan} GROUP BY 1"):
                result.orphans[document] += count
            sql.execute(f"DELETE FROM {table} {orphan}")
        for table, other in ((keys, values), (values, keys)):
            half = f"FROM {table} WHERE id NOT IN (SELECT id FROM {other})"
            for document, count in sql.execute(f"SELECT id >> 32, count(*) {half} GROUP BY 1"):
                result.halves[document, layer_schema.layer] += count
            sql.execute(f"DELETE {half}")
    for document, count in sql.execute(
        f"SELECT document, count(*) FROM pieces WHERE document NOT IN {here} GROUP BY 1"
    ):
        result.orphans[document] += count
    sql.execute(f"DELETE FROM pieces WHERE document NOT IN {here}")
    ids = [number for (number,) in sql.execute("SELECT id FROM documents ORDER BY id")]
    result.documents = len(ids)
    last = max([0, *ids, *result.orphans, *without])
    facts_before = {name: about(sql, name) for name in ("last_document", "removals", "documents")}
    result.recorded = -1 if facts_before["last_document"] is None else None
    if facts_before["documents"] is not None:
        result.recorded = int(facts_before["documents"])
    last = max(last, int(facts_before["last_document"] or 0))
    facts = {"format": FORMAT, "layout": schema.to_json(), "last_document": last, "documents": len(ids)}
    facts |= {"removals": int(facts_before["removals"] or 0) + 1}
    sql.execute("DELETE FROM about")
    for name, value in facts.items():
        set_about(sql, name, str(value))
    sql.execute("COMMIT")
    if result.orphans or result.halves:
        sql.execute("VACUUM")
    return result


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(rowid, values) of all rows: by the pages that stores have or, where nothing is sound so, by those of the header."""
    for pages in ((PAGE, 0), pages_of(path)):
        if pages is not None and any(len(row) in (3, 6) and sound(row) for _, row in table_rows(path, *pages)):
            return table_rows(path, *pages)
    return table_rows(path, PAGE)


def _by_sqlite(source: Path, schema: StoreSchema) -> Iterator[tuple[int, Row]]:
    """The rows that SQLite itself can reach: a page of which it knows more than the page says."""
    sql = sqlite3.connect(f"file:{quote(os.fsencode(source))}?mode=ro&immutable=1", uri=True, isolation_level=None)
    sql.text_factory = decoded
    try:
        sql.execute("PRAGMA writable_schema = ON")
        check_tables(sql, str(source))
        for table in (statement.split()[2] for statement in statements(schema)):
            for batch in rows(lambda: nullcontext(sql), table, "rowid, *"):
                yield from ((row[0], row[1:]) for row in batch)
    except (sqlite3.Error, ValueError):  # its pages have been read all the same
        return
    finally:
        sql.close()


def _insert(rowid: int, row: Row, schema: StoreSchema) -> tuple[str, Row] | None:
    """The statement that writes a row, where it is not there yet, and its values. None where its seal does not hold."""
    if len(row) == 3 and sound(row):
        return "INSERT OR IGNORE INTO about VALUES (?, ?, ?)", row
    if len(row) == 6 and sound(row):
        return "INSERT OR IGNORE INTO pieces VALUES (?, ?, ?, ?, ?, ?)", row
    if len(row) == 11 and isinstance(row[3], (int, float)):
        row = (rowid, *row[1:3], float(row[3]), *row[4:])
        if sound(row):
            return f"INSERT OR IGNORE {INTO_DOCUMENTS}", (row[0], encoded(row[1]), encoded(row[2]), *row[3:])
    if len(row) in (4, 7):
        row = (rowid, *row[1:])
        for layer_schema in schema.layers:
            if sound(row, layer_schema.layer):
                table, marks = ("keys", "?, ?, ?, ?, ?, ?, ?") if len(row) == 7 else ("values", "?, ?, ?, ?")
                return f"INSERT OR IGNORE INTO {table}_{layer_schema.layer} VALUES ({marks})", row
    return None


def _documents_of(statement: str, row: Row) -> set[int]:
    """The document that a row is of; none for the store's own."""
    if " INTO about " in statement:
        return set()
    return {row[0] >> 32 if len(row) in (4, 7) else row[0]}


__all__ = ["Salvaged", "salvage", "schema_of", "settled"]
