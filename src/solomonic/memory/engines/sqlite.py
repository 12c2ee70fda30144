"""A folder on the disk, the default: everything is in one SQLite file, every row with its digest.

SQLite's write-ahead log makes a commit whole or absent at any crash, and lets other processes read meanwhile. One
process writes; it holds a lock on the file `lock`, which its end releases, however it ends. Keys are read into memory
at the first search, or, where a layer's take more than `MAPPED` bytes, into a mapped file that has no name and goes
with the process.
"""

import json
import os
import secrets
import sqlite3
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from ..._utils.files import write
from ..schema import DTYPES, LayerSchema, SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece
from ..search.exact import ExactIndex, Keys
from . import records
from .base import Absent, Engine, Unfinished, Unwritable
from .lock import hold
from .records import as_bytes, clock_text, keys_fit, put_document, tensor, token_bytes
from .salvage import salvage, settled
from .tables import (
    DOCUMENT,
    FORMAT,
    KEYS,
    PAGE,
    PIECE,
    VALUES,
    about,
    check_tables,
    decoded,
    require_tables,
    seal,
    sealed_schema,
    set_about,
    sound,
    statements,
    unsealed_schema,
)
from .verify import AGAIN, file_problems, layer_problems, stray_texts
from .walk import is_damage, rows

FILE = "store.sqlite"
SCHEMA_FILE = f"{FILE}.layout"  # a copy, for when the file has lost its own
MAPPED = 1 << 30
CHUNK = 1 << 20
SCAN = 1024  # entries read at a time
PATIENCE = 10  # seconds that a statement waits for another process
REPAIR = "run `solomonic memory repair`, which writes what is sound into a new store"
CANNOT_OPEN = (8, 14)  # SQLITE_READONLY, SQLITE_CANTOPEN: where nothing may be written beside the file


class Broken(Unwritable):
    """The file is damaged where it would have to be changed. Nothing was changed."""


class DiskEngine(Engine):
    @classmethod
    def open(cls, path: str, schema: StoreSchema | None, write: bool) -> "DiskEngine":
        folder = Path(path)
        if not path:
            raise ValueError("file: expected the path of a store, got none")
        file = folder / FILE
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: expected the folder of a store, got a file")
        if not file.exists():
            if (folder / SCHEMA_FILE).exists():
                raise ValueError(f"{folder}: expected the folder of a store, got one whose {FILE} is gone")
            if folder.exists() and any(
                one.name != "lock" and not one.name.startswith(FILE) for one in folder.iterdir()
            ):
                raise ValueError(f"{folder}: expected the folder of a store, got one that holds something else")
            if not write:
                raise Absent(f"{folder}: there is no store; `solomonic memory add` makes one")
            if schema is None:
                raise Absent(f"{folder}: expected a store that is there, or a schema for a new one")
        return cls(folder, schema, write)

    def __init__(self, folder: Path, schema: StoreSchema | None, write: bool):
        self.folder, self._uri = folder, str(folder)
        self._held = self._copied = None
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._names: dict[int, str] = {}
        self._counts: dict[int, dict[int, int] | None] = {}  # of a document, the tokens of each layer, where it says so
        self._lengths: dict[int, int] = {}  # of the texts of complete documents
        self._damaged: dict[int, str] = {}
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = hold(folder / "lock")
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
            require_tables(tables, self.schema, self._uri)
            if schema is not None:
                self.schema.require(schema, self._uri)
            self._writer = self._connect(write=True) if write else None
            self._changes, self._removals, self._file = -1, 0, self._identity()
            if write:
                self._settle()
        except BaseException:
            self.close()
            raise

    def documents(self) -> list[StoredDocument]:
        with self._reads() as sql, _snapshot(sql):
            documents, damaged, found = [], {}, 0
            for some in rows(self._reads, "documents", DOCUMENT):
                for row in some:
                    found += 1
                    read = records.document(row) if sound(row) else None
                    if read is None:
                        damaged[row[0]] = row[1] if isinstance(row[1], str) else ""
                    else:
                        documents.append(read)
            documents.sort(key=lambda read: read[0].id)
            said = self._about("documents")
            if said is not None and found < int(said):
                here = {read[0].id for read in documents}
                damaged |= {number: "" for number in self._homeless() if number not in here | damaged.keys()}
                missing = int(said) - found
                self.warn_of_damage(
                    "documents",
                    f"{self._uri}: {missing} of {said} documents cannot be read and are left out; {REPAIR}",
                )
            tokens, size = self._sizes([read for read in documents if read[1] is None])
            text = self._text_sizes()
        for number, name in damaged.items():
            self.warn_of_damage(
                ("document", number),
                f"{self._uri}: document {number} ({name!r}) is damaged and is left out; forget it (memory forget --id "
                f"{number}) and add it again",
            )
        each = {shape.layer: sum(token_bytes(shape, self.schema.dtype)) for shape in self.schema.layers}
        listed = []
        for document, counts in documents:
            if counts is None:
                count, taken = tokens[document.id], size[document.id]
            else:
                count = sum(counts.values())
                taken = sum(number * each.get(layer, 0) for layer, number in counts.items())
            listed.append(replace(document, tokens=count, bytes=taken + text[document.id]))
        self._names = {document.id: document.name for document in listed}
        self._counts = {document.id: counts for document, counts in documents}
        self._lengths = {document.id: document.text for document in listed if document.complete}
        self._damaged = damaged
        return listed

    def damaged(self) -> dict[int, str]:
        return dict(self._damaged)

    def has_remains(self, document: int) -> bool:
        return document in self._damaged or document in self._homeless()

    def last_document(self) -> int:
        if (said := self._about("last_document")) is not None and said.isdecimal():
            return int(said)
        return max([0, *self._names, *self._damaged, *self._homeless()])

    def commit(self, batches: Sequence[SavePoint]) -> None:
        with self._writes() as sql:
            for batch in batches:
                self._put(sql, batch)

    def remove(self, documents: set[int]) -> None:
        """With them goes what is of no document at all: it may have been theirs."""
        try:
            with self._writes() as sql:
                said = about(sql, "documents")
                sql.executemany("DELETE FROM documents WHERE id = ?", [(document,) for document in documents])
                homeless = "NOT IN (SELECT id FROM documents)"  # looked for row by row: an index may be wrong
                for shape in self.schema.layers:
                    for table in ("keys", "values"):
                        sql.execute(f"DELETE FROM {table}_{shape.layer} WHERE id >> 32 {homeless}")
                sql.execute(f"DELETE FROM pieces NOT INDEXED WHERE document {homeless}")
                (count,) = sql.execute("SELECT count(*) FROM documents").fetchone()
                set_about(sql, "documents", str(max(count, int(said or 0) - len(documents))))
                self._removed(sql)
        except Broken:
            self._rewrite(documents)
        else:
            self._finish()
        self.documents()

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._writes() as sql:
            fewer: dict[int, Counter] = {}
            for layer, gone in entries.items():
                for entry in gone:
                    row = sql.execute(f"SELECT tokens FROM keys_{layer} WHERE id = ?", (entry,)).fetchone()
                    fewer.setdefault(entry >> 32, Counter())[layer] += row[0] if row else 0
                for table in ("keys", "values"):
                    sql.executemany(
                        f"DELETE FROM {table}_{self.schema[layer].layer} WHERE id = ?", [(e,) for e in gone]
                    )
            for document, counts in fewer.items():
                self._recount(sql, document, counts)
            self._removed(sql)
        self._finish()
        self.documents()

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        shape, found = self.schema[layer], {}
        for begin in range(0, len(entries), SCAN):
            for row in self._both(shape, entries[begin : begin + SCAN]):
                read = records.tokens(row, shape, self.schema.dtype)
                if read is None:
                    self._name_part(row[0] >> 32, layer)
                else:
                    found[row[0]] = read
        return found

    def scan(self, layer: int, documents: Collection[int], without: Collection[int] = ()) -> Iterator[Keys]:
        shape, dtype = self.schema[layer], DTYPES[self.schema.dtype]
        wanted, unwanted = set(documents), set(without)
        if not wanted:
            return
        last = (min(wanted) << 32) | 0xFFFFFFFF if len(wanted) == 1 else None
        counted, spoilt = Counter(), set()
        for some in rows(self._reads, f"keys_{shape.layer}", KEYS, (min(wanted) << 32) - 1, last):
            some = [row for row in some if row[0] >> 32 in wanted and row[0] not in unwanted]
            good = [row for row in some if sound(row, layer) and keys_fit(row, shape, self.schema.dtype)]
            if len(good) < len(some):
                spoilt |= {row[0] >> 32 for row in some} - {row[0] >> 32 for row in good}
                spoilt |= {row[0] >> 32 for row in set(some) - set(good)}
            if good:
                ids, counts, position, score, clock, key = list(zip(*good, strict=True))[:6]
                for entry, count in zip(ids, counts, strict=True):
                    counted[entry >> 32] += count
                document = torch.tensor(ids).repeat_interleave(torch.tensor(counts)) >> 32
                yield Keys(
                    (document << 32) | tensor(b"".join(position), torch.int64),
                    tensor(b"".join(key), dtype).view(-1, shape.heads, shape.dim),
                    tensor(b"".join(score), torch.float32),
                    tensor(b"".join(clock), torch.float32),
                )
        for document in wanted if not unwanted else ():
            said = self._counts.get(document)
            if said is not None and counted[document] < said.get(layer, 0):
                spoilt.add(document)
        for document in sorted(spoilt):
            said = self._counts.get(document)
            self._name_part(document, layer, said and f"{said.get(layer, 0) - counted[document]} of {said.get(layer)}")

    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        with self._reads() as sql:
            (entry,) = sql.execute(
                f"SELECT max(id) FROM keys_{self.schema[layer].layer} WHERE id BETWEEN ? AND ?",
                (document << 32, (document << 32) | 0xFFFFFFFF),
            ).fetchone()
        found = {} if entry is None else self.fetch(layer, [entry])
        return next(iter(found.items()), None)

    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        found, whole = self._pieces(document, start, end)
        if not whole and not self._taken():
            self.warn_of_damage(
                ("text", document),
                f"{self._uri}: document {document} ({self._names.get(document, '')!r}): a part of its text is damaged "
                f"and is left out; {AGAIN}",
            )
        return found

    def state(self, document: int) -> bytes:
        with self._reads() as sql:
            row = sql.execute(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (document,)).fetchone()
        if row is None or not sound(row):
            raise ValueError(f"{self._uri}: document {document} is damaged; {AGAIN}")
        return row[9]

    def is_intact(self, document: StoredDocument) -> bool:
        first, last = (document.id << 32) - 1, (document.id << 32) | 0xFFFFFFFF
        for shape in self.schema.layers:
            here, count, broken = set(), 0, []
            for table, columns in (("keys", KEYS), ("values", VALUES)):
                for some in rows(self._reads, f"{table}_{shape.layer}", columns, first, last, lambda: broken.append(1)):
                    here ^= {row[0] for row in some}
                    count += sum(row[1] for row in some) if table == "keys" else 0
                    broken += [row for row in some if not sound(row, shape.layer)]
            said = self._counts.get(document.id)
            if broken or here or (said is not None and said.get(shape.layer, 0) != count):
                return False
        text = b"".join(piece.text for piece in self._pieces(document.id, 0, document.text)[0])
        return len(text) == document.text

    def size(self) -> int:
        total = 0
        for one in self.folder.iterdir():
            if one.name.startswith(FILE):
                with suppress(FileNotFoundError):  # a log that another process has just finished
                    total += one.stat().st_size
        return total

    def index(
        self, layer: int, documents: Collection[int], without: Collection[int], kind: type[ExactIndex] = ExactIndex
    ) -> ExactIndex:
        shape = self.schema[layer]
        index = kind(shape, DTYPES[self.schema.dtype], self._allocate)
        said = [self._counts.get(document) for document in documents]
        if None in said:
            with self._reads() as sql:
                try:
                    count = sql.execute(f"SELECT sum(tokens) FROM keys_{shape.layer}").fetchone()[0] or 0
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    count = 0
            room = (self.folder / FILE).stat().st_size // sum(token_bytes(shape, self.schema.dtype))
            count = min(max(int(count), 0), room)
        else:
            count = sum(one.get(layer, 0) for one in said)
        index.reserve(count)
        for keys in self.scan(layer, documents, without):
            index.add(keys)
        return index

    def version(self) -> tuple[int, int]:
        with self._reading:
            if self._identity() != self._file and self._copied is None:  # written anew, by `_rewrite`
                self._reader.close()
                self._reader, self._file = self._connect(), self._identity()
                self._changes = -1
            try:  # at every search, so without `_reads`
                changes = self._reader.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                with self._errors(OSError):
                    raise
            if changes != self._changes:
                said = self._about("removals")
                # where it is damaged, whatever was read is read again
                self._changes, self._removals = changes, -changes if said is None else int(said)
        return self._changes, self._removals

    def compact(self) -> None:
        with self._writing:
            with self._errors(OSError, "it cannot be compacted; "):
                self._writer.execute("VACUUM")
            with self._writes() as sql:
                sql.execute("DELETE FROM about WHERE name = 'unfinished'")
            self._empty_log()

    def verify(self) -> list[str]:
        documents = {document.id: document for document in self.documents()}
        problems = [f"document {number} ({name!r}) is damaged" for number, name in self._damaged.items()]
        damaged = set(self._damaged)
        for shape in self.schema.layers:
            problems += layer_problems(self._reads, shape, self.schema.dtype, documents, damaged, self._counts)
        for document in documents.values():
            pieces, whole = self._pieces(document.id, 0, document.text)
            if not whole or sum(len(piece.text) for piece in pieces) != document.text:
                problems.append(f"document {document.id} ({document.name!r}): a part of its text is damaged or missing")
        problems += stray_texts(self._reads, damaged | documents.keys())
        for name in ("format", "layout", "last_document", "removals"):
            if self._about(name) is None:
                problems.append(f"the store's own {name} is damaged")
        problems += file_problems(self._reads, FILE)
        named = self.__dict__.get("_named", {}).values()
        return [f"{self._uri}: {problem}" for problem in problems] + list(named)

    def close(self) -> None:
        for name in ("_writer", "_reader"):
            if connection := getattr(self, name, None):
                connection.close()
        if self._copied is not None:
            self._copied.cleanup()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # Opening

    def _connect(self, write: bool = False) -> sqlite3.Connection:
        with self._errors(OSError):
            if write:
                sql = self._connection(self.folder / FILE)
                with suppress(sqlite3.DatabaseError):  # of a damaged file; then nothing is written to it
                    sql.execute("PRAGMA journal_mode = WAL")
                return sql
            try:
                return self._connection(self.folder / FILE)
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in CANNOT_OPEN or self._held is not None:
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
                pass  # whoever reads on says what is damaged
        return sql

    def _readable(self) -> Path:
        """The file, where nothing may be written beside it: with its log, where it has one, a copy elsewhere."""
        if self._copied is None:
            self._copied = tempfile.TemporaryDirectory(prefix="solomonic.")
        return settled(self.folder / FILE, Path(self._copied.name))

    def _tables(self) -> set[str]:
        """The tables of the file, after a look at all that is in its schema."""
        with self._reads() as sql:
            try:
                return check_tables(sql, self._uri)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                sql.execute("PRAGMA writable_schema = ON")  # a file that was cut off is read all the same
                names = check_tables(sql, self._uri)
                self.warn_of_damage(
                    "file", f"{self._uri}: the file {FILE} is damaged ({error}); what can be read is served"
                )
                return names

    def _own_schema(self) -> StoreSchema:
        came = self._about("format")
        if came is not None and came != str(FORMAT):
            raise ValueError(f"{self.folder}: expected a store of format {FORMAT}, got {came!r}")
        text, copy = self._about("layout"), self.folder / SCHEMA_FILE
        if text is not None:
            schema = StoreSchema.from_json(text)
            if self._held is not None and not copy.exists():
                with suppress(OSError):
                    write(copy, sealed_schema(schema))
            return schema
        kept = None
        with suppress(OSError, UnicodeDecodeError):
            kept = unsealed_schema(copy.read_text(encoding="utf-8"))
        if kept is None:
            raise ValueError(f"{self._uri}: the store's schema is damaged; what it holds cannot be read without it")
        self.warn_of_damage(
            "layout", f"{self._uri}: the store's own schema is damaged; its copy, {SCHEMA_FILE}, is used"
        )
        return kept

    def _create(self, schema: StoreSchema) -> None:
        with self._reading, self._errors(OSError):
            sql = self._reader
            sql.execute(f"PRAGMA page_size = {PAGE}")
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("BEGIN IMMEDIATE")
            for statement in statements(schema):
                sql.execute(statement)
            facts = {"format": FORMAT, "layout": schema.to_json(), "last_document": 0, "removals": 0, "documents": 0}
            for name, value in facts.items():
                set_about(sql, name, str(value))
            sql.execute("COMMIT")

    def _settle(self) -> None:
        """What a process that was killed has left: a removal that is not finished, and files of keys.

        And what the store says of itself, written down again where it is damaged.
        """
        for path in self.folder.glob(f"{FILE}.keys.*"):
            path.unlink(missing_ok=True)
        facts = {"format": FORMAT, "layout": self.schema.to_json(), "removals": secrets.randbits(31)}
        lost = {name: value for name, value in facts.items() if self._about(name) is None}
        if (last := self._about("last_document")) is None or not last.isdecimal():
            lost["last_document"] = self.last_document()
        with suppress(Unwritable):  # where the page is gone too, `_about` goes on without
            if lost:
                with self._writes() as sql:
                    for name, value in lost.items():
                        set_about(sql, name, str(value))
        if self._about("unfinished") is not None:
            try:
                self.compact()
            except OSError as error:
                self.warn_of_damage("unfinished", str(error))

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self.folder / FILE)
        except FileNotFoundError:
            return 0, 0
        return found.st_dev, found.st_ino

    # Reading

    @contextmanager
    def _errors(self, kind: type[Exception], then: str = "") -> Iterator[None]:
        """SQLite's words as ours: damage is a ValueError, or `Broken` where it is written; anything else is `kind`."""
        try:
            yield
        except sqlite3.Error as error:
            if not is_damage(error):
                raise kind(f"{self._uri}: {error}") from error
            if kind is Unwritable:
                raise Broken(
                    f"{self._uri}: the file {FILE} is damaged where it would be changed ({error}); nothing was "
                    f"changed; {REPAIR}"
                ) from error
            raise ValueError(
                f"{self._uri}: the file {FILE} is damaged, or is no store ({error}); {then}{REPAIR}"
            ) from error

    @contextmanager
    def _reads(self) -> Iterator[sqlite3.Connection]:
        with self._reading, self._errors(OSError):
            yield self._reader

    def _about(self, name: str) -> str | None:
        """None where it is missing or cannot be read."""
        with self._reads() as sql:
            try:
                return about(sql, name)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                return None

    def _homeless(self) -> set[int]:
        """Documents of which there are entries or text, and no row that `documents` could read."""
        found = set()
        for table in [f"keys_{shape.layer}" for shape in self.schema.layers]:
            for some in rows(self._reads, table, "rowid"):
                found |= {entry >> 32 for (entry,) in some}
        for some in rows(self._reads, "pieces", "rowid, document"):
            found |= {document for _, document in some if isinstance(document, int)}
        with self._reads():
            for some in rows(self._reads, "documents", DOCUMENT):
                found -= {row[0] for row in some if sound(row)}
        return found

    def _sizes(self, documents: list) -> tuple[Counter, Counter]:
        """Tokens, and bytes but for the text, of documents whose own rows do not say it."""
        tokens, size = Counter(), Counter()
        if documents:
            for shape in self.schema.layers:
                each = sum(token_bytes(shape, self.schema.dtype))
                for some in rows(self._reads, f"keys_{shape.layer}", "rowid, tokens"):
                    for entry, count in some:
                        if isinstance(count, int):
                            tokens[entry >> 32] += count
                            size[entry >> 32] += count * each
        return tokens, size

    def _text_sizes(self) -> Counter:
        size = Counter()
        for some in rows(self._reads, "pieces", "rowid, document, length(text)"):
            for _, document, length in some:
                size[document] += length or 0
        return size

    def _both(self, shape: LayerSchema, entries: list[int]) -> list[tuple]:
        """The rows of entries, of both tables side by side; those that can be read."""
        columns = ", ".join([f"k.{name}" for name in KEYS.split(", ")] + [f"v.{name}" for name in VALUES.split(", ")])
        query = (
            f"SELECT {columns} FROM keys_{shape.layer} k LEFT JOIN values_{shape.layer} v ON v.id = k.id WHERE k.id IN"
        )
        with self._reads() as sql:
            try:
                return sql.execute(f"{query} ({', '.join('?' * len(entries))})", entries).fetchall()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            found = []
            for entry in entries:
                try:
                    found += sql.execute(f"{query} (?)", (entry,)).fetchall()
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    self._name_part(entry >> 32, shape.layer)
            return found

    def _pieces(self, document: int, start: int, end: int) -> tuple[list[TextPiece], bool]:
        """The pieces that overlap the bytes, and whether all of them are there."""
        end = min(end, self._lengths.get(document, end))
        found: list[tuple] = []
        with self._reads() as sql:
            try:
                found = sql.execute(
                    f"SELECT {PIECE} FROM pieces"
                    " WHERE document = ? AND start < ? AND start + length > ? ORDER BY start",
                    (document, end, start),
                ).fetchall()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
        pieces = [piece for row in found if (piece := records.piece(row)) is not None]
        if self._covers(pieces, document, start, end):
            return pieces, True
        again = {piece.start: piece for piece in pieces}  # the index may be what is wrong
        for some in rows(self._reads, "pieces", f"rowid, {PIECE}"):
            for row in some:
                piece = records.piece(row[1:]) if row[1] == document else None
                if piece is not None and piece.start < end and piece.start + len(piece.text) > start:
                    again[piece.start] = piece
        pieces = [again[at] for at in sorted(again)]
        return pieces, self._covers(pieces, document, start, end)

    def _covers(self, pieces: list[TextPiece], document: int, start: int, end: int) -> bool:
        at = start
        for piece in pieces:
            if piece.start > at:
                return False
            at = piece.start + len(piece.text)
        return at >= end or document not in self._lengths  # of one that is being written, the store knows the end

    def _taken(self) -> bool:
        """Whether another process has taken something out since this one looked: then what is missing is no damage."""
        return self._held is None and self._about("removals") not in (None, str(self._removals))

    def _name_part(self, document: int, layer: int, how_much: str | None = None) -> None:
        if self._taken():
            return
        what = f"{how_much or 'some'} of its tokens of layer {layer} are damaged or missing and are left out"
        self.warn_of_damage(
            ("part", document, layer),
            f"{self._uri}: document {document} ({self._names.get(document, '')!r}): {what}; {AGAIN}",
        )

    # DocumentWriter

    @contextmanager
    def _writes(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        with self._writing, self._errors(Unwritable):
            sql = self._writer
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise

    def _put(self, sql: sqlite3.Connection, batch: SavePoint) -> None:
        d = batch.document
        before = sql.execute("SELECT clock FROM documents WHERE id = ?", (d.id,)).fetchone()
        counts = Counter() if before is None else records.clock(before[0])[1]
        for layer, entry, t in batch.entries:
            if counts is not None:
                old = sql.execute(f"SELECT tokens FROM keys_{layer} WHERE id = ?", (entry,)).fetchone()
                counts[layer] += len(t) - (old[0] if old else 0)
            key = (entry, len(t), as_bytes(t.position), as_bytes(t.score), as_bytes(t.clock), as_bytes(t.key))
            value = (entry, as_bytes(t.value), as_bytes(t.span))
            sql.execute(f"REPLACE INTO keys_{layer} VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, seal(key, layer)))
            sql.execute(f"REPLACE INTO values_{layer} VALUES (?, ?, ?, ?)", (*value, seal(value, layer)))
        for piece in batch.pieces:
            row = (d.id, piece.start, piece.lines, len(piece.text), zlib.compress(piece.text, 6))
            sql.execute("REPLACE INTO pieces VALUES (?, ?, ?, ?, ?, ?)", (*row, seal(row)))
        row = (
            d.id,
            d.name,
            d.session,
            d.time,
            d.digest,
            json.dumps(d.sources),
            d.text,
            clock_text(d.clock, counts),
            int(d.complete),
            batch.state,
        )
        put_document(sql, row)
        last = about(sql, "last_document")
        set_about(sql, "last_document", str(max(d.id, self.last_document() if last is None else int(last))))
        if before is None:
            said = about(sql, "documents")
            number = sql.execute("SELECT count(*) FROM documents").fetchone()[0] if said is None else int(said) + 1
            set_about(sql, "documents", str(number))

    def _recount(self, sql: sqlite3.Connection, document: int, fewer: Counter) -> None:
        """Write down that a document has so many tokens less."""
        row = sql.execute(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (document,)).fetchone()
        if row is None or not sound(row):
            return
        clock, counts = records.clock(row[7])
        if counts is not None:
            counts.subtract(fewer)
            put_document(sql, (*row[:7], clock_text(clock, counts), *row[8:10]))

    def _removed(self, sql: sqlite3.Connection) -> None:
        said = about(sql, "removals")
        set_about(sql, "removals", str(secrets.randbits(31) if said is None else int(said) + 1))
        set_about(sql, "unfinished", "1")

    def _finish(self) -> None:
        """After a removal: nothing of it stays in the file, or `Unfinished` says what does."""
        try:
            self.compact()
        except (OSError, ValueError) as error:
            if isinstance(error, Unfinished):
                raise
            self._empty_log()  # where the rows stood there are zeros now
            raise Unfinished(
                f"{error}. What went is gone from the store and is overwritten where it stood, but the file could not "
                "be written anew: remains of it may be in pages that are not in use. Make room, and run `solomonic "
                "memory compact`"
            ) from error

    def _empty_log(self) -> None:
        with self._writing, self._errors(OSError):
            (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Unfinished(
                f"{self._uri}: another process has been reading for {PATIENCE} seconds; what went is gone from the "
                "store, but still in its log: run `solomonic memory compact` when that process has ended"
            )

    def _rewrite(self, without: set[int]) -> None:
        """Where SQLite can take nothing out of a damaged file: the file anew, of all else that is sound."""
        file = self.folder / FILE
        with self._writing, self._reading:
            self._reader.close()
            try:
                with self._errors(OSError):
                    self._writer.execute("PRAGMA writable_schema = ON")
                    self._writer.execute("PRAGMA journal_mode = DELETE").fetchone()  # the log goes into the file
                self._writer.close()
                kept = salvage(file, file, self.schema, without)
            finally:
                self._reader, self._writer = self._connect(), self._connect(write=True)
                self._changes, self._file = -1, self._identity()
        lost = f", with {sum(kept.homeless.values())} rows of lost documents" if kept.homeless else ""
        self.warn_of_damage(
            "rewritten",
            f"{self._uri}: the file {FILE} was damaged, and was written anew of all {kept.documents} documents that "
            f"could be read; {kept.broken} damaged rows are gone{lost}",
        )

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory, or a mapped file without a name."""
        size = torch.Size(shape).numel()
        if size * dtype.itemsize <= MAPPED:
            return torch.empty(shape, dtype=dtype)
        try:
            handle, path = tempfile.mkstemp(prefix=f"{FILE}.keys.", dir=self.folder)
        except OSError:  # nothing may be written here
            handle, path = tempfile.mkstemp(prefix=f"{FILE}.keys.")
        named = Path(f"/proc/self/fd/{handle}")
        try:
            if named.exists():  # else a process that is killed meanwhile leaves it
                os.unlink(path)
            for begin in range(0, size * dtype.itemsize, CHUNK):  # a full disk is an error here, not at a later access
                os.write(handle, bytes(min(CHUNK, size * dtype.itemsize - begin)))
            return torch.from_file(str(named) if named.exists() else path, shared=True, size=size, dtype=dtype).view(
                shape
            )
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(path)


@contextmanager
def _snapshot(sql: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one moment."""
    sql.execute("BEGIN")
    try:
        yield
    finally:
        sql.execute("ROLLBACK")  # nothing was written; COMMIT says once more that a page is damaged
