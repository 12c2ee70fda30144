"""The SQLite file of a store: the lock of its writer, a connection to read and one to write, and errors that say what to do."""

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ..._utils.files import write as write_file
from ..schema import StoreSchema
from .base import Absent, Unfinished, Unwritable
from .lock import hold
from .salvage import Salvaged, salvage, settled
from .tables import (
    FILE,
    FORMAT,
    PAGE,
    SCHEMA_FILE,
    about,
    check_tables,
    decoded,
    require_tables,
    sealed_schema,
    set_about,
    statements,
    unsealed_schema,
)
from .walk import is_damage

PATIENCE = 10  # seconds that a statement waits for another process
REPAIR = "run `solomonic memory repair`, which writes what is sound into a new store"
CANNOT_OPEN = (8, 14)  # SQLITE_READONLY, SQLITE_CANTOPEN: where nothing may be written beside the file


class Broken(Unwritable):
    """The file is damaged where it would have to be changed. Nothing was changed."""


class Database:
    """The file in `folder`, made of `schema` where it is not there and `write` allows.

    warn: called with a key and a message for what is damaged and read all the same. ValueError for a file that is no
    store, is damaged beyond reading, or belongs to another schema; OSError if it cannot be opened.
    """

    def __init__(self, folder: Path, schema: StoreSchema | None, write: bool, warn: Callable[[object, str], None]):
        self.folder, self.uri, self._warn = folder, str(folder), warn
        self._lock_handle: int | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_handle = hold(folder / "lock")
        try:
            self._reader = self._connect()
            tables = self._tables()
            if not tables:
                if (folder / SCHEMA_FILE).exists():
                    raise ValueError(f"{folder}: the file {FILE} is empty, and held a store")
                if not write or schema is None:
                    raise Absent(f"{folder}: there is no store; `solomonic memory add` makes one")
                self._create(schema)
                tables = self._tables()
            self.schema = self._own_schema()
            require_tables(tables, self.schema, self.uri)
            if schema is not None:
                self.schema.require(schema, self.uri)
            self._writer = self._connect(write=True) if write else None
            self._changes, self._removals, self._file = -1, 0, self._identity()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()
        if self._copy is not None:
            self._copy.cleanup()
        if self._lock_handle is not None:
            os.close(self._lock_handle)
            self._lock_handle = None

    @contextmanager
    def errors(self, kind: type[Exception], then: str = "") -> Iterator[None]:
        """SQLite's errors as the store's: damage is a ValueError, or `Broken` where it is written; all else is `kind`."""
        try:
            yield
        except sqlite3.Error as error:
            if not is_damage(error):
                raise kind(f"{self.uri}: {error}") from error
            if kind is Unwritable:
                raise Broken(
                    f"{self.uri}: the file {FILE} is damaged where it would be changed ({error}); nothing was "
                    f"changed; {REPAIR}"
                ) from error
            raise ValueError(
                f"{self.uri}: the file {FILE} is damaged, or is no store ({error}); {then}{REPAIR}"
            ) from error

    @contextmanager
    def reads(self) -> Iterator[sqlite3.Connection]:
        """The connection to read with, for one thread at a time."""
        with self._reading, self.errors(OSError):
            assert self._reader is not None
            yield self._reader

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads of one moment."""
        with self.reads() as sql:
            sql.execute("BEGIN")
            try:
                yield
            finally:
                sql.execute("ROLLBACK")  # nothing was written; COMMIT reports once more that a page is damaged

    @contextmanager
    def writes(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        with self._writing, self.errors(Unwritable):
            assert self._writer is not None
            sql = self._writer
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise

    def about(self, name: str) -> str | None:
        """The value of a row of the table `about`; None where it is missing or cannot be read."""
        with self.reads() as sql:
            try:
                return about(sql, name)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                return None

    def version(self) -> tuple[int, int]:
        """As `Engine.version`."""
        with self._reading:
            assert self._reader is not None
            if self._identity() != self._file and self._copy is None:  # written anew, by `rewrite`
                self._reader.close()
                self._reader, self._file = self._connect(), self._identity()
                self._changes = -1
            try:  # at every search, so without `reads`
                changes = self._reader.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                with self.errors(OSError):
                    raise
            if changes != self._changes:
                removals = self.about("removals")
                # where it is damaged, whatever was read is read again
                self._changes, self._removals = changes, -changes if removals is None else int(removals)
        return self._changes, self._removals

    def has_removals(self) -> bool:
        """Whether another process has removed something since `version`: then what is missing is no damage."""
        return self._lock_handle is None and self.about("removals") not in (None, str(self._removals))

    def vacuum(self) -> None:
        """Write the file without what is not in use, and empty the log. `Unfinished` while another process reads."""
        with self._writing:
            with self.errors(OSError, "it cannot be compacted; "):
                assert self._writer is not None
                self._writer.execute("VACUUM")
            with self.writes() as sql:
                sql.execute("DELETE FROM about WHERE name = 'unfinished'")
            self.empty_log()

    def empty_log(self) -> None:
        with self._writing, self.errors(OSError):
            assert self._writer is not None
            (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unfinished(
                f"{self.uri}: another process has been reading for {PATIENCE} seconds; what went is gone from the "
                "store, but still in its log: run `solomonic memory compact` when that process has ended"
            )

    def rewrite(self, without: set[int]) -> Salvaged:
        """Write the file again, of all that is sound but for the documents `without`: SQLite cannot change it."""
        file = self.folder / FILE
        with self._writing, self._reading:
            assert self._reader is not None and self._writer is not None
            self._reader.close()
            try:
                with self.errors(OSError):
                    self._writer.execute("PRAGMA writable_schema = ON")
                    self._writer.execute("PRAGMA journal_mode = DELETE").fetchone()  # the log goes into the file
                self._writer.close()
                return salvage(file, file, self.schema, without)
            finally:
                self._reader, self._writer = self._connect(), self._connect(write=True)
                self._changes, self._file = -1, self._identity()

    # Opening

    def _connect(self, write: bool = False) -> sqlite3.Connection:
        with self.errors(OSError):
            if write:
                sql = self._connection(self.folder / FILE)
                with suppress(sqlite3.DatabaseError):  # of a damaged file; then nothing is written to it
                    sql.execute("PRAGMA journal_mode = WAL")
                return sql
            try:
                return self._connection(self.folder / FILE)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in CANNOT_OPEN or self._lock_handle is not None:
                    raise
                return self._connection(self._readable(), immutable=True)

    def _connection(self, file: Path, immutable: bool = False) -> sqlite3.Connection:
        where = f"file:{quote(os.fsencode(file))}?mode=ro&immutable=1" if immutable else file
        sql = sqlite3.connect(
            where,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            uri=immutable,
        )
        sql.text_factory = decoded
        for statement in (
            "PRAGMA trusted_schema = OFF",
            "PRAGMA mmap_size = 0",
            "PRAGMA synchronous = FULL",
            "PRAGMA secure_delete = ON",
            "PRAGMA wal_autocheckpoint = 128",  # pages
            "SELECT 1 FROM sqlite_schema LIMIT 1",
        ):
            try:
                sql.execute(statement).fetchone()
            except sqlite3.OperationalError:
                sql.close()
                raise
            except sqlite3.DatabaseError:
                pass  # whoever reads on names what is damaged
        return sql

    def _readable(self) -> Path:
        """The file, where nothing may be written beside it: with its log, where it has one, a copy elsewhere."""
        if self._copy is None:
            self._copy = tempfile.TemporaryDirectory(prefix="solomonic.")
        return settled(self.folder / FILE, Path(self._copy.name))

    def _tables(self) -> set[str]:
        """The tables of the file, after a look at all that is in its SQL schema."""
        with self.reads() as sql:
            try:
                return check_tables(sql, self.uri)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                sql.execute("PRAGMA writable_schema = ON")  # a file that was cut off is read all the same
                names = check_tables(sql, self.uri)
                self._warn("file", f"{self.uri}: the file {FILE} is damaged ({error}); what can be read is served")
                return names

    def _own_schema(self) -> StoreSchema:
        version = self.about("format")
        if version is not None and version != str(FORMAT):
            raise ValueError(f"{self.folder}: expected a store of format {FORMAT}, got {version!r}")
        text, copy = self.about("layout"), self.folder / SCHEMA_FILE
        if text is not None:
            schema = StoreSchema.from_json(text)
            if self._lock_handle is not None and not copy.exists():
                with suppress(OSError):
                    write_file(copy, sealed_schema(schema))
            return schema
        copied = None
        with suppress(OSError, UnicodeDecodeError):
            copied = unsealed_schema(copy.read_text(encoding="utf-8"))
        if copied is None:
            raise ValueError(f"{self.uri}: the store's schema is damaged; what it holds cannot be read without it")
        self._warn("layout", f"{self.uri}: the store's own schema is damaged; its copy, {SCHEMA_FILE}, is used")
        return copied

    def _create(self, schema: StoreSchema) -> None:
        with self.reads() as sql:
            sql.execute(f"PRAGMA page_size = {PAGE}")
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("BEGIN IMMEDIATE")
            for statement in statements(schema):
                sql.execute(statement)
            facts = {"format": FORMAT, "layout": schema.to_json(), "last_document": 0, "removals": 0, "documents": 0}
            for name, value in facts.items():
                set_about(sql, name, str(value))
            sql.execute("COMMIT")

    def _identity(self) -> tuple[int, int]:
        try:
            status = os.stat(self.folder / FILE)
        except FileNotFoundError:
            return 0, 0
        return status.st_dev, status.st_ino


__all__ = ["REPAIR", "Broken", "Database"]
