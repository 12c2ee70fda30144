"""Reading a table of a damaged SQLite file: every row that can be reached, and an end, whatever the pages say.

A row may come where it does not belong, or twice; a page may be refused. Ids are SQLite's rowids, 64 bits.
"""

import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from .tables import Row

Reads = Callable[[], AbstractContextManager[sqlite3.Connection]]
MOST = 2**63 - 1
GAPS = 256  # places at which a table is taken up again
AT_A_TIME = 1024
CANNOT_READ = (266, 522)  # SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ: the disk's own damage


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error is about the file's content, and not about a lock, a full disk or a mistake of ours."""
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorcode", 0) in CANNOT_READ
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, (sqlite3.ProgrammingError, sqlite3.NotSupportedError)
    )


def rows(
    reads: Reads,
    table: str,
    columns: str,
    after: int = -1,
    last: int | None = None,
    damaged: Callable[[], None] = lambda: None,
) -> Iterator[list[Row]]:
    """Batches of the rows with ids > `after`, each once, up to `last`, if that is given; `columns` begin with the id.

    Rows that stand out of order are included. `damaged` is called for each place at which something cannot be read.
    """
    seen, high = array("q"), after
    known: set[int] | None = None  # `seen` as a set, from the first row that stands out of order on
    limit = "" if last is None else f" AND rowid <= {last}"
    for _ in range(GAPS):
        cursor, broken = None, False
        while not broken:
            batch: list[Row] = []
            with reads() as sql:
                try:
                    if cursor is None:
                        cursor = sql.execute(
                            f"SELECT {columns} FROM {table} WHERE rowid > ?{limit} ORDER BY rowid", (after,)
                        )
                    while len(batch) < AT_A_TIME and (row := cursor.fetchone()) is not None:
                        batch.append(row)
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    broken = True
            fresh = []
            for row in batch:
                if row[0] > high:
                    high = row[0]
                elif known is None:
                    known = set(seen)
                if known is not None:
                    if row[0] in known:
                        continue
                    known.add(row[0])
                seen.append(row[0])
                fresh.append(row)
            if fresh:
                yield fresh
            if not broken and len(batch) < AT_A_TIME:
                return
        damaged()
        with reads() as sql:
            next_id = _beyond(sql, table, max(after, high))
        if next_id is None or (last is not None and next_id >= last):
            return
        after = next_id


def _beyond(sql: sqlite3.Connection, table: str, after: int) -> int | None:
    """An id past the gap that begins after `after`: rows with larger ones can be read. None where there is none."""

    def reads(start: int) -> bool:
        try:
            sql.execute(f"SELECT rowid FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT 1", (start,)).fetchone()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return False
        return True

    fails, step = after, 1
    while not reads(start := min(after + step, MOST)):
        if start == MOST:
            return None
        fails, step = start, 2 * step
    while start - fails > 1:
        middle = (start + fails) // 2
        fails, start = (fails, middle) if reads(middle) else (middle, start)
    return start
