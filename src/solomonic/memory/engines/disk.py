"""A folder on the disk, the default: everything is in one SQLite file, every row with its digest.

SQLite's write-ahead log makes a commit whole or absent at any crash, and lets other processes read meanwhile. One
process writes; it holds a lock on the file `lock`, which its end releases, however it ends. Keys are read into memory
at the first search, or, where a layer's take more than `MAPPED` bytes, into a mapped file that has no name and goes
with the process.
"""

import fcntl
import json
import os
import sqlite3
import struct
import tempfile
import threading
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from ..index import ExactIndex, Keys
from ..layout import DTYPES, PIECE, Batch, Document, LayerLayout, Layout, Piece, Tokens
from .base import Engine, Unwritable

FILE = "store.sqlite"
MAPPED = 1 << 30
FORMAT = 1
CHUNK = 1 << 20
PAGE = 1 << 15  # a row of 4 KiB is common; on a small page most of its room would be lost
SCAN = 1024  # entries read at a time
PATIENCE = 10  # seconds that a statement waits for another process
TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL, seal BLOB NOT NULL) STRICT;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, session TEXT, time REAL NOT NULL, digest TEXT, sources TEXT NOT NULL,
    text INTEGER NOT NULL, clock TEXT NOT NULL, complete INTEGER NOT NULL, state BLOB NOT NULL, seal BLOB NOT NULL
) STRICT;
CREATE TABLE pieces (
    document INTEGER NOT NULL, start INTEGER NOT NULL, lines INTEGER NOT NULL, length INTEGER NOT NULL,
    text BLOB NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (document, start)
) STRICT;
"""
LAYER_TABLES = """
CREATE TABLE keys_{0} (
    id INTEGER PRIMARY KEY, tokens INTEGER NOT NULL, position BLOB NOT NULL, score BLOB NOT NULL, clock BLOB NOT NULL,
    key BLOB NOT NULL, seal BLOB NOT NULL
) STRICT;
CREATE TABLE values_{0} (id INTEGER PRIMARY KEY, value BLOB NOT NULL, span BLOB NOT NULL, seal BLOB NOT NULL) STRICT;
"""


class DiskEngine(Engine):
    @classmethod
    def open(cls, path: str, layout: Layout | None, write: bool) -> "DiskEngine":
        folder = Path(path)
        if not path:
            raise ValueError("file: expected the path of a store, got none")
        file = folder / FILE
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: expected the folder of a store, got a file")
        if not file.exists():
            if folder.exists() and any(
                one.name != "lock" and not one.name.startswith(FILE) for one in folder.iterdir()
            ):
                raise ValueError(f"{folder}: expected the folder of a store, got one that holds something else")
            if not write:
                raise FileNotFoundError(f"{folder}: there is no store")
            if layout is None:
                raise ValueError(f"{folder}: expected a store that is there, or a layout for a new one")
        return cls(folder, layout, write)

    def __init__(self, folder: Path, layout: Layout | None, write: bool):
        self.folder, self._uri = folder, str(folder)
        self._held = None
        self._writing, self._reading = threading.RLock(), threading.RLock()
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            self._held = _hold(folder / "lock")
        try:
            self._reader = self._connect()
            with self._reads() as sql:
                there = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if not there:
                if not write:
                    raise FileNotFoundError(f"{folder}: there is no store")
                self._create(layout)
            with self._reads() as sql:
                if (came := _about(sql, "format", self._uri)) != str(FORMAT):
                    raise ValueError(f"{folder}: expected a store of format {FORMAT}, got {came!r}")
                self.layout = Layout.from_json(_about(sql, "layout", self._uri))
            if layout is not None:
                self.layout.require(layout, self._uri)
            self._writer = self._connect() if write else None
            self._changes, self._removals = -1, 0
        except BaseException:
            self.close()
            raise

    def documents(self) -> list[Document]:
        with self._reads() as sql, _snapshot(sql):
            rows = sql.execute(
                "SELECT id, name, session, time, digest, sources, text, clock, complete, state, seal FROM documents"
                " ORDER BY id"
            ).fetchall()
            tokens: dict[int, int] = {}
            size: dict[int, int] = {}
            for shape in self.layout.layers:
                each = sum(_token_bytes(shape, self.layout.dtype))
                for document, count in sql.execute(
                    f"SELECT id >> 32, sum(tokens) FROM keys_{shape.layer} GROUP BY id >> 32"
                ):
                    tokens[document] = tokens.get(document, 0) + count
                    size[document] = size.get(document, 0) + count * each
            text = dict(sql.execute("SELECT document, sum(length(text)) FROM pieces GROUP BY document").fetchall())
        documents = []
        for row in rows:
            self._check(row, f"document {row[0]}")
            number, name, session, time, digest, sources, length, clock, complete = row[:9]
            documents.append(
                Document(
                    number,
                    name,
                    session,
                    time,
                    digest,
                    tuple(json.loads(sources)),
                    tokens.get(number, 0),
                    length,
                    size.get(number, 0) + text.get(number, 0),
                    tuple((layer, ran) for layer, ran in json.loads(clock)),
                    bool(complete),
                )
            )
        return documents

    def last_document(self) -> int:
        with self._reads() as sql:
            return int(_about(sql, "last_document", self._uri))

    def commit(self, batches: Sequence[Batch]) -> None:
        with self._writes() as sql:
            for batch in batches:
                self._put(sql, batch)

    def remove(self, documents: set[int]) -> None:
        with self._writes() as sql:
            for document in documents:
                first = document << 32, (document << 32) | 0xFFFFFFFF
                for shape in self.layout.layers:
                    for table in ("keys", "values"):
                        sql.execute(f"DELETE FROM {table}_{shape.layer} WHERE id BETWEEN ? AND ?", first)
                sql.execute("DELETE FROM pieces WHERE document = ?", (document,))
                sql.execute("DELETE FROM documents WHERE id = ?", (document,))
            self._removed(sql)
        self.compact()

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._writes() as sql:
            for layer, gone in entries.items():
                for table in ("keys", "values"):
                    sql.executemany(
                        f"DELETE FROM {table}_{self.layout[layer].layer} WHERE id = ?", [(e,) for e in gone]
                    )
            self._removed(sql)
        self.compact()

    def fetch(self, layer: int, entries: list[int]) -> dict[int, Tokens]:
        shape, found = self.layout[layer], {}
        with self._reads() as sql:
            for begin in range(0, len(entries), SCAN):
                some = entries[begin : begin + SCAN]
                rows = sql.execute(
                    "SELECT k.id, tokens, position, score, clock, key, k.seal, v.id, value, span, v.seal"
                    f" FROM keys_{shape.layer} k LEFT JOIN values_{shape.layer} v ON v.id = k.id"
                    f" WHERE k.id IN ({', '.join('?' * len(some))})",
                    some,
                ).fetchall()
                found |= {row[0]: self._tokens(row, shape) for row in rows}
        return found

    def scan(self, layer: int, documents: Collection[int], without: Collection[int] = ()) -> Iterator[Keys]:
        shape, dtype = self.layout[layer], DTYPES[self.layout.dtype]
        wanted, unwanted = set(documents), set(without)
        only = "" if len(wanted) != 1 else f" AND id >> 32 = {min(wanted)}"
        after = (min(wanted) << 32) - 1 if wanted else 0
        while wanted:
            with self._reads() as sql:
                rows = sql.execute(
                    f"SELECT id, tokens, position, score, clock, key, seal FROM keys_{shape.layer}"
                    f" WHERE id > ?{only} ORDER BY id LIMIT {SCAN}",
                    (after,),
                ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            rows = [row for row in rows if row[0] >> 32 in wanted and row[0] not in unwanted]
            for row in rows:
                self._check(row, f"entry {row[0] & 0xFFFFFFFF} of layer {layer} of document {row[0] >> 32}", layer)
            if rows:
                ids, counts, position, score, clock, key = list(zip(*rows, strict=True))[:6]
                document = torch.tensor(ids).repeat_interleave(torch.tensor(counts)) >> 32
                yield Keys(
                    (document << 32) | _tensor(b"".join(position), torch.int64),
                    _tensor(b"".join(key), dtype).view(-1, shape.heads, shape.dim),
                    _tensor(b"".join(score), torch.float32),
                    _tensor(b"".join(clock), torch.float32),
                )

    def last(self, layer: int, document: int) -> tuple[int, Tokens] | None:
        with self._reads() as sql:
            (entry,) = sql.execute(
                f"SELECT max(id) FROM keys_{self.layout[layer].layer} WHERE id BETWEEN ? AND ?",
                (document << 32, (document << 32) | 0xFFFFFFFF),
            ).fetchone()
        return None if entry is None else (entry, self.fetch(layer, [entry])[entry])

    def pieces(self, document: int, start: int, end: int) -> list[Piece]:
        with self._reads() as sql:
            rows = sql.execute(
                "SELECT document, start, lines, length, text, seal FROM pieces"
                " WHERE document = ? AND start < ? AND start + length > ? ORDER BY start",
                (document, end, start),
            ).fetchall()
        return [self._piece(row) for row in rows]

    def state(self, document: int) -> bytes:
        with self._reads() as sql:
            row = sql.execute(
                "SELECT id, name, session, time, digest, sources, text, clock, complete, state, seal FROM documents"
                " WHERE id = ?",
                (document,),
            ).fetchone()
        self._check(row, f"document {document}")
        return row[9]

    def size(self) -> int:
        return sum(one.stat().st_size for one in self.folder.iterdir() if one.name.startswith(FILE))

    def index(
        self, layer: int, documents: Collection[int], without: Collection[int], kind: type[ExactIndex] = ExactIndex
    ) -> ExactIndex:
        index = kind(self.layout[layer], DTYPES[self.layout.dtype], self._allocate)
        with self._reads() as sql:
            count = sql.execute(f"SELECT sum(tokens) FROM keys_{self.layout[layer].layer}").fetchone()[0] or 0
        index.reserve(count)
        for keys in self.scan(layer, documents, without):
            index.add(keys)
        return index

    def version(self) -> tuple[int, int]:
        with self._reading:
            try:  # at every search, so without `_reads`
                changes = self._reader.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                with self._errors(OSError):
                    raise
            if changes != self._changes:
                with self._reads() as sql:
                    self._changes, self._removals = changes, int(_about(sql, "removals", self._uri))
        return self._changes, self._removals

    def compact(self) -> None:
        with self._writing:
            with self._errors(OSError):
                self._writer.execute("VACUUM")
                (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise OSError(
                    f"{self._uri}: another process has been reading for {PATIENCE} seconds; what went is gone from the "
                    "store, but still in its log: run `solomonic memory compact` when that process has ended"
                )

    def verify(self) -> list[str]:
        problems = []

        def tell(check, *row) -> None:
            try:
                check(*row)
            except (ValueError, zlib.error) as error:
                problems.append(str(error))

        try:
            documents = {document.id: document for document in self.documents()}
        except ValueError as error:
            return [str(error), *self._integrity()]
        for shape in self.layout.layers:
            here = set()
            for table, columns in {
                "keys": "id, tokens, position, score, clock, key, seal",
                "values": "id, value, span, seal",
            }.items():
                for entry in self._ids(f"{table}_{shape.layer}"):
                    what = f"entry {entry & 0xFFFFFFFF} of layer {shape.layer} of document {entry >> 32}"
                    if entry >> 32 not in documents:
                        problems.append(f"{self._uri}: {what}: there is no such document")
                    here ^= {entry}
                    with self._reads() as sql:
                        row = sql.execute(
                            f"SELECT {columns} FROM {table}_{shape.layer} WHERE id = ?", (entry,)
                        ).fetchone()
                    if row is not None:
                        tell(self._check, row, what, shape.layer)
            problems += [
                f"{self._uri}: entry {entry & 0xFFFFFFFF} of layer {shape.layer} of document {entry >> 32}: half of it "
                "is missing"
                for entry in sorted(here)
            ]
        for document in documents.values():
            with self._reads() as sql:
                rows = sql.execute(
                    "SELECT document, start, lines, length, text, seal FROM pieces WHERE document = ? ORDER BY start",
                    (document.id,),
                ).fetchall()
            at = 0
            for row in rows:
                tell(self._piece, row)
                at = row[1] + row[3] if row[1] == at else -1
            if at != document.text:
                problems.append(
                    f"{self._uri}: document {document.id} ({document.name!r}): a part of its text is missing"
                )
        return problems + self._integrity()

    def close(self) -> None:
        for name in ("_writer", "_reader"):
            if connection := getattr(self, name, None):
                connection.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # Inside

    def _connect(self) -> sqlite3.Connection:
        with self._errors(ValueError):
            sql = sqlite3.connect(
                self.folder / FILE,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            sql.execute("PRAGMA trusted_schema = OFF")
            sql.execute("PRAGMA mmap_size = 0")
            sql.execute("PRAGMA synchronous = FULL")
            sql.execute("PRAGMA secure_delete = ON")
            sql.execute("PRAGMA wal_autocheckpoint = 128")  # pages
            return sql

    def _create(self, layout: Layout) -> None:
        with self._reading, self._errors(OSError):
            sql = self._reader
            sql.execute(f"PRAGMA page_size = {PAGE}")
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("BEGIN IMMEDIATE")
            for statement in (TABLES + "".join(LAYER_TABLES.format(one.layer) for one in layout.layers)).split(";\n"):
                sql.execute(statement)
            about = {"format": str(FORMAT), "layout": layout.to_json(), "last_document": "0", "removals": "0"}
            for name, value in about.items():
                _set_about(sql, name, value)
            sql.execute("COMMIT")

    @contextmanager
    def _errors(self, kind: type[Exception]) -> Iterator[None]:
        """SQLite's words as ours: damage is a ValueError, what cannot be written `kind`."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise kind(f"{self._uri}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._uri}: the file {FILE} is damaged, or is no store ({error})") from error

    @contextmanager
    def _reads(self) -> Iterator[sqlite3.Connection]:
        with self._reading, self._errors(OSError):
            yield self._reader

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

    def _put(self, sql: sqlite3.Connection, batch: Batch) -> None:
        d = batch.document
        row = (
            d.id,
            d.name,
            d.session,
            d.time,
            d.digest,
            json.dumps(d.sources),
            d.text,
            json.dumps(d.clock),
            int(d.complete),
            batch.state,
        )
        sql.execute(f"REPLACE INTO documents VALUES ({'?, ' * 10}?)", (*row, _seal(row)))
        _set_about(sql, "last_document", str(max(d.id, int(_about(sql, "last_document", self._uri)))))
        for layer, entry, t in batch.entries:
            key = (entry, len(t), _bytes(t.position), _bytes(t.score), _bytes(t.clock), _bytes(t.key))
            value = (entry, _bytes(t.value), _bytes(t.span))
            sql.execute(f"REPLACE INTO keys_{layer} VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, _seal(key, layer)))
            sql.execute(f"REPLACE INTO values_{layer} VALUES (?, ?, ?, ?)", (*value, _seal(value, layer)))
        for piece in batch.pieces:
            row = (d.id, piece.start, piece.lines, len(piece.text), zlib.compress(piece.text, 6))
            sql.execute("REPLACE INTO pieces VALUES (?, ?, ?, ?, ?, ?)", (*row, _seal(row)))

    def _removed(self, sql: sqlite3.Connection) -> None:
        _set_about(sql, "removals", str(int(_about(sql, "removals", self._uri)) + 1))

    def _check(self, row: tuple, what: str, layer: int = -1) -> None:
        if _seal(row[:-1], layer) != row[-1]:
            raise ValueError(f"{self._uri}: {what} is damaged; forget the document and add it again")

    def _tokens(self, row: tuple, shape: LayerLayout) -> Tokens:
        entry, dtype = row[0], DTYPES[self.layout.dtype]
        what = f"entry {entry & 0xFFFFFFFF} of layer {shape.layer} of document {entry >> 32}"
        self._check(row[:7], what, shape.layer)
        self._check(row[7:], what, shape.layer)
        heads = (-1, shape.heads, shape.dim)
        return Tokens(
            position=_tensor(row[2], torch.int64),
            key=_tensor(row[5], dtype).view(heads),
            value=_tensor(row[8], dtype).view(heads),
            score=_tensor(row[3], torch.float32),
            clock=_tensor(row[4], torch.float32),
            span=_tensor(row[9], torch.int64).view(-1, 2),
        )

    def _piece(self, row: tuple) -> Piece:
        document, start, lines, length, text, _ = row
        self._check(row, f"the text of document {document}, from byte {start} on,")
        return Piece(start, lines, zlib.decompressobj().decompress(text, PIECE)[:length])

    def _ids(self, table: str) -> Iterator[int]:
        after = -1
        while True:
            with self._reads() as sql:
                ids = sql.execute(f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT {SCAN}", (after,)).fetchall()
            if not ids:
                return
            after = ids[-1][0]
            yield from (entry for (entry,) in ids)

    def _integrity(self) -> list[str]:
        with self._reads() as sql:
            rows = sql.execute("PRAGMA integrity_check").fetchall()
        return [] if rows == [("ok",)] else [f"{self._uri}: {FILE}: {row[0]}" for row in rows]

    def _allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory, or a mapped file without a name."""
        size = torch.Size(shape).numel()
        if size * dtype.itemsize <= MAPPED:
            return torch.empty(shape, dtype=dtype)
        handle, path = tempfile.mkstemp(prefix=f"{FILE}.keys.", dir=self.folder)
        try:
            for begin in range(0, size * dtype.itemsize, CHUNK):  # a full disk is an error here, not at a later access
                os.write(handle, bytes(min(CHUNK, size * dtype.itemsize - begin)))
            return torch.from_file(path, shared=True, size=size, dtype=dtype).view(shape)
        finally:
            os.close(handle)
            os.unlink(path)


@contextmanager
def _snapshot(sql: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one moment."""
    sql.execute("BEGIN")
    try:
        yield
    finally:
        sql.execute("COMMIT")


def _about(sql: sqlite3.Connection, name: str, uri: str) -> str:
    row = sql.execute("SELECT name, value, seal FROM about WHERE name = ?", (name,)).fetchone()
    if row is None or _seal(row[:-1]) != row[-1]:
        raise ValueError(f"{uri}: the store's {name} is damaged")
    return row[1]


def _set_about(sql: sqlite3.Connection, name: str, value: str) -> None:
    sql.execute("REPLACE INTO about VALUES (?, ?, ?)", (name, value, _seal((name, value))))


def _hold(path: Path) -> int:
    """A lock that goes with the process. ValueError if another one has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(handle, 20).decode("ascii", "replace").strip()
        os.close(handle)
        raise ValueError(
            f"{path.parent}: process {who or '?'} is writing to this store; there is one writer at a time, readers as "
            "many as you like"
        ) from None
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _seal(row: tuple, layer: int = -1) -> bytes:
    """A digest of a row; each value with its type and length, so that no two rows read alike."""
    parts = [struct.pack("<q", layer)]
    for value in row:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        parts += struct.pack("<cq", type(value).__name__[:1].encode(), len(data)), data
    return blake2b(b"".join(parts), digest_size=16).digest()


def _token_bytes(shape: LayerLayout, dtype: str) -> tuple[int, int]:
    """Of a token: what search needs, and the rest."""
    heads = shape.heads * shape.dim * DTYPES[dtype].itemsize
    return heads + 16, heads + 16


def _tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
