"""A folder on the disk, the default: everything is in one SQLite file, every row with its digest.

SQLite's write-ahead log makes a commit whole or absent at any crash, and lets other processes read meanwhile. One
process writes; it holds a lock on the file `lock`, which its end releases, however it ends. Keys are read into memory
at the first search or, where a layer's take more room, into a mapped file (`mapped.py`).
"""

import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..schema import DTYPES, LayerSchema, SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece
from ..search.exact import ExactIndex, Keys
from . import records
from .base import Absent, Engine, Ids, IndexType, Unfinished, Unwritable
from .counts import orphans, text_sizes, token_sizes
from .database import REPAIR, Broken, Database
from .mapped import allocate
from .records import TokenCounts, keys_fit, tensor, token_bytes
from .tables import DOCUMENT, FILE, FORMAT, KEYS, PIECE, SCHEMA_FILE, VALUES, Row, about, set_about, sound
from .verify import AGAIN, file_problems, layer_problems, stray_texts
from .walk import is_damage, rows

SCAN = 1024  # entries read at a time


class DiskEngine(Engine):
    @classmethod
    def open(cls, path: str, schema: StoreSchema | None, write: bool) -> "DiskEngine":
        folder = Path(path)
        if not path:
            raise ValueError("file: expected the path of a store, got none")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: expected the folder of a store, got a file")
        if not (folder / FILE).exists():
            if (folder / SCHEMA_FILE).exists():
                raise ValueError(f"{folder}: expected the folder of a store, got one whose {FILE} is gone")
            if folder.exists() and any(
                entry.name != "lock" and not entry.name.startswith(FILE) for entry in folder.iterdir()
            ):
                raise ValueError(f"{folder}: expected the folder of a store, got one that holds something else")
            if not write:
                raise Absent(f"{folder}: there is no store; `solomonic memory add` makes one")
            if schema is None:
                raise Absent(f"{folder}: expected a store that is there, or a schema for a new one")
        return cls(folder, schema, write)

    def __init__(self, folder: Path, schema: StoreSchema | None, write: bool):
        super().__init__()
        self._names: dict[int, str] = {}
        self._counts: TokenCounts = {}
        self._lengths: dict[int, int] = {}  # of the texts of complete documents
        self._damaged: dict[int, str] = {}
        self.database = Database(folder, schema, write, self.warn_of_damage)
        self.schema = self.database.schema
        try:
            if write:
                self._clean()
        except BaseException:
            self.close()
            raise

    def documents(self) -> list[StoredDocument]:
        database = self.database
        with database.snapshot():
            documents: list[tuple[StoredDocument, Counter[int] | None]] = []
            damaged: dict[int, str] = {}
            count = 0
            for batch in rows(database.reads, "documents", DOCUMENT):
                for row in batch:
                    count += 1
                    counted = records.document(row) if sound(row) else None
                    if counted is None:
                        damaged[row[0]] = row[1] if isinstance(row[1], str) else ""
                    else:
                        documents.append(counted)
            documents.sort(key=lambda pair: pair[0].id)
            recorded = database.about("documents")
            if recorded is not None and count < int(recorded):
                here = {document.id for document, _ in documents}
                damaged |= {number: "" for number in self._orphans() if number not in here | damaged.keys()}
                self.warn_of_damage(
                    "documents",
                    f"{database.uri}: {int(recorded) - count} of {recorded} documents cannot be read and are left out; "
                    f"{REPAIR}",
                )
            uncounted = any(counts is None for _, counts in documents)
            tokens, size = token_sizes(database.reads, self.schema) if uncounted else (Counter[int](), Counter[int]())
            text = text_sizes(database.reads)
        for number, name in damaged.items():
            self.warn_of_damage(
                ("document", number),
                f"{database.uri}: document {number} ({name!r}) is damaged and is left out; forget it (memory forget "
                f"--id {number}) and add it again",
            )
        nbytes = {schema.layer: sum(token_bytes(schema, self.schema.dtype)) for schema in self.schema.layers}
        listed = []
        for document, counts in documents:
            if counts is None:
                stored, taken = tokens[document.id], size[document.id]
            else:
                stored = sum(counts.values())
                taken = sum(number * nbytes.get(layer, 0) for layer, number in counts.items())
            listed.append(replace(document, tokens=stored, bytes=taken + text[document.id]))
        self._names = {document.id: document.name for document in listed}
        self._counts = {document.id: counts for document, counts in documents}
        self._lengths = {document.id: document.text for document in listed if document.complete}
        self._damaged = damaged
        return listed

    def damaged(self) -> dict[int, str]:
        return dict(self._damaged)

    def has_remains(self, document: int) -> bool:
        return document in self._damaged or document in self._orphans()

    def last_document(self) -> int:
        if (recorded := self.database.about("last_document")) is not None and recorded.isdecimal():
            return int(recorded)
        return max([0, *self._names, *self._damaged, *self._orphans()])

    def commit(self, points: Sequence[SavePoint]) -> None:
        with self.database.writes() as sql:
            for point in points:
                records.put_save_point(sql, point, self.last_document)

    def remove(self, documents: set[int]) -> None:
        """Rows that are of no document are removed too: they may have been theirs."""
        try:
            with self.database.writes() as sql:
                recorded = about(sql, "documents")
                sql.executemany("DELETE FROM documents WHERE id = ?", [(document,) for document in documents])
                orphan = "NOT IN (SELECT id FROM documents)"  # looked for row by row: an index may be wrong
                for schema in self.schema.layers:
                    for table in ("keys", "values"):
                        sql.execute(f"DELETE FROM {table}_{schema.layer} WHERE id >> 32 {orphan}")
                sql.execute(f"DELETE FROM pieces NOT INDEXED WHERE document {orphan}")
                (count,) = sql.execute("SELECT count(*) FROM documents").fetchone()
                set_about(sql, "documents", str(max(count, int(recorded or 0) - len(documents))))
                self._record_removal(sql)
        except Broken:
            self._rewrite(documents)
        else:
            self._finish_removal()
        self.documents()

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self.database.writes() as sql:
            fewer: dict[int, Counter[int]] = {}
            for layer, evicted in entries.items():
                for entry in evicted:
                    row = sql.execute(f"SELECT tokens FROM keys_{layer} WHERE id = ?", (entry,)).fetchone()
                    fewer.setdefault(entry >> 32, Counter())[layer] += row[0] if row else 0
                for table in ("keys", "values"):
                    sql.executemany(
                        f"DELETE FROM {table}_{self.schema[layer].layer} WHERE id = ?", [(e,) for e in evicted]
                    )
            for document, counts in fewer.items():
                records.subtract_tokens(sql, document, counts)
            self._record_removal(sql)
        self._finish_removal()
        self.documents()

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        schema, fetched = self.schema[layer], {}
        for begin in range(0, len(entries), SCAN):
            for row in self._entry_rows(schema, entries[begin : begin + SCAN]):
                tokens = records.tokens(row, schema, self.schema.dtype)
                if tokens is None:
                    self._warn_of_part(row[0] >> 32, layer)
                else:
                    fetched[row[0]] = tokens
        return fetched

    def scan(self, layer: int, documents: Ids, without: Ids = ()) -> Iterator[Keys]:
        schema, dtype = self.schema[layer], DTYPES[self.schema.dtype]
        wanted, unwanted = set(documents), set(without)
        if not wanted:
            return
        last = (min(wanted) << 32) | 0xFFFFFFFF if len(wanted) == 1 else None
        count: Counter[int] = Counter()
        damaged: set[int] = set()
        for batch in rows(self.database.reads, f"keys_{schema.layer}", KEYS, (min(wanted) << 32) - 1, last):
            batch = [row for row in batch if row[0] >> 32 in wanted and row[0] not in unwanted]
            good = [row for row in batch if sound(row, layer) and keys_fit(row, schema, self.schema.dtype)]
            if len(good) < len(batch):
                damaged |= {row[0] >> 32 for row in set(batch) - set(good)}
            if good:
                ids, counts, position, score, clock, key = list(zip(*good, strict=True))[:6]
                for entry, tokens in zip(ids, counts, strict=True):
                    count[entry >> 32] += tokens
                document = torch.tensor(ids).repeat_interleave(torch.tensor(counts)) >> 32
                yield Keys(
                    (document << 32) | tensor(b"".join(position), torch.int64),
                    tensor(b"".join(key), dtype).view(-1, schema.heads, schema.dim),
                    tensor(b"".join(score), torch.float32),
                    tensor(b"".join(clock), torch.float32),
                )
        for number in wanted if not unwanted else ():
            recorded = self._counts.get(number)
            if recorded is not None and count[number] < recorded.get(layer, 0):
                damaged.add(number)
        for number in sorted(damaged):
            recorded, how_many = self._counts.get(number), None
            if recorded:
                how_many = f"{recorded.get(layer, 0) - count[number]} of {recorded.get(layer)}"
            self._warn_of_part(number, layer, how_many)

    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        with self.database.reads() as sql:
            (entry,) = sql.execute(
                f"SELECT max(id) FROM keys_{self.schema[layer].layer} WHERE id BETWEEN ? AND ?",
                (document << 32, (document << 32) | 0xFFFFFFFF),
            ).fetchone()
        fetched = {} if entry is None else self.fetch(layer, [entry])
        return next(iter(fetched.items()), None)

    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        pieces, complete = self._pieces(document, start, end)
        if not complete and not self.database.has_removals():
            self.warn_of_damage(
                ("text", document),
                f"{self.database.uri}: document {document} ({self._names.get(document, '')!r}): a part of its text is "
                f"damaged and is left out; {AGAIN}",
            )
        return pieces

    def state(self, document: int) -> bytes:
        with self.database.reads() as sql:
            row = sql.execute(f"SELECT {DOCUMENT} FROM documents WHERE id = ?", (document,)).fetchone()
        if row is None or not sound(row):
            raise ValueError(f"{self.database.uri}: document {document} is damaged; {AGAIN}")
        state: bytes = row[9]
        return state

    def is_intact(self, document: StoredDocument) -> bool:
        first, last = (document.id << 32) - 1, (document.id << 32) | 0xFFFFFFFF
        for schema in self.schema.layers:
            unpaired: set[int] = set()
            count, gaps = 0, list[None]()
            for table, columns in (("keys", KEYS), ("values", VALUES)):
                name = f"{table}_{schema.layer}"
                for batch in rows(self.database.reads, name, columns, first, last, lambda: gaps.append(None)):
                    unpaired ^= {row[0] for row in batch}
                    count += sum(row[1] for row in batch) if table == "keys" else 0
                    if not all(sound(row, schema.layer) for row in batch):
                        return False
            recorded = self._counts.get(document.id)
            if gaps or unpaired or (recorded is not None and recorded.get(schema.layer, 0) != count):
                return False
        text = b"".join(piece.text for piece in self._pieces(document.id, 0, document.text)[0])
        return len(text) == document.text

    def size(self) -> int:
        total = 0
        for path in self.database.folder.iterdir():
            if path.name.startswith(FILE):
                with suppress(FileNotFoundError):  # a log that another process has just finished
                    total += path.stat().st_size
        return total

    def index(self, layer: int, documents: Ids, without: Ids, index_type: IndexType = ExactIndex) -> ExactIndex:
        schema, folder = self.schema[layer], self.database.folder
        index = index_type(schema, DTYPES[self.schema.dtype], partial(allocate, folder))
        recorded = [self._counts.get(document) for document in documents]
        known = [counts for counts in recorded if counts is not None]
        count = sum(counts.get(layer, 0) for counts in known)
        if len(known) < len(recorded):
            with self.database.reads() as sql:
                try:
                    count = sql.execute(f"SELECT sum(tokens) FROM keys_{schema.layer}").fetchone()[0] or 0
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    count = 0
            room = (folder / FILE).stat().st_size // sum(token_bytes(schema, self.schema.dtype))
            count = min(max(int(count), 0), room)
        index.reserve(count)
        for keys in self.scan(layer, documents, without):
            index.add(keys)
        return index

    def version(self) -> tuple[int, int]:
        return self.database.version()

    def compact(self) -> None:
        self.database.vacuum()

    def verify(self) -> list[str]:
        reads, documents = self.database.reads, {document.id: document for document in self.documents()}
        problems = [f"document {number} ({name!r}) is damaged" for number, name in self._damaged.items()]
        damaged = set(self._damaged)
        for schema in self.schema.layers:
            problems += layer_problems(reads, schema, self.schema.dtype, documents, damaged, self._counts)
        for document in documents.values():
            pieces, complete = self._pieces(document.id, 0, document.text)
            if not complete or sum(len(piece.text) for piece in pieces) != document.text:
                problems.append(f"document {document.id} ({document.name!r}): a part of its text is damaged or missing")
        problems += stray_texts(reads, damaged | documents.keys())
        own = {"format": "format", "layout": "schema", "last_document": "last_document", "removals": "removals"}
        for name, what in own.items():
            if self.database.about(name) is None:
                problems.append(f"the store's own {what} is damaged")
        problems += file_problems(reads, FILE)
        return [f"{self.database.uri}: {problem}" for problem in problems] + self.damage_warned_of()

    def close(self) -> None:
        self.database.close()

    # Inside

    def _clean(self) -> None:
        """Finish a removal that a killed process has left, and delete its files of keys.

        The store's own rows are written again where they are damaged.
        """
        for path in self.database.folder.glob(f"{FILE}.keys.*"):
            path.unlink(missing_ok=True)
        facts = {"format": FORMAT, "layout": self.schema.to_json(), "removals": secrets.randbits(31)}
        lost = {name: value for name, value in facts.items() if self.database.about(name) is None}
        if (last := self.database.about("last_document")) is None or not last.isdecimal():
            lost["last_document"] = self.last_document()
        with suppress(Unwritable):  # where the page is gone too, `Database.about` goes on without
            if lost:
                with self.database.writes() as sql:
                    for name, value in lost.items():
                        set_about(sql, name, str(value))
        if self.database.about("unfinished") is not None:
            try:
                self.compact()
            except OSError as error:
                self.warn_of_damage("unfinished", str(error))

    def _orphans(self) -> set[int]:
        return orphans(self.database.reads, self.schema)

    def _entry_rows(self, schema: LayerSchema, entries: list[int]) -> list[Row]:
        """The rows of entries, of both tables side by side; those that can be read."""
        columns = ", ".join([f"k.{name}" for name in KEYS.split(", ")] + [f"v.{name}" for name in VALUES.split(", ")])
        query = f"SELECT {columns} FROM keys_{schema.layer} k LEFT JOIN values_{schema.layer} v ON v.id = k.id WHERE k.id IN"
        with self.database.reads() as sql:
            try:
                return sql.execute(f"{query} ({', '.join('?' * len(entries))})", entries).fetchall()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            readable: list[Row] = []
            for entry in entries:
                try:
                    readable += sql.execute(f"{query} (?)", (entry,)).fetchall()
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    self._warn_of_part(entry >> 32, schema.layer)
            return readable

    def _pieces(self, document: int, start: int, end: int) -> tuple[list[TextPiece], bool]:
        """The pieces that overlap the bytes [start, end), and whether all of them are there."""
        end = min(end, self._lengths.get(document, end))
        overlapping: list[Row] = []
        with self.database.reads() as sql:
            try:
                overlapping = sql.execute(
                    f"SELECT {PIECE} FROM pieces"
                    " WHERE document = ? AND start < ? AND start + length > ? ORDER BY start",
                    (document, end, start),
                ).fetchall()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
        pieces = [piece for row in overlapping if (piece := records.piece(row)) is not None]
        if self._covers(pieces, document, start, end):
            return pieces, True
        by_start = {piece.start: piece for piece in pieces}  # the index may be what is wrong
        for batch in rows(self.database.reads, "pieces", f"rowid, {PIECE}"):
            for row in batch:
                piece = records.piece(row[1:]) if row[1] == document else None
                if piece is not None and piece.start < end and piece.start + len(piece.text) > start:
                    by_start[piece.start] = piece
        pieces = [by_start[at] for at in sorted(by_start)]
        return pieces, self._covers(pieces, document, start, end)

    def _covers(self, pieces: list[TextPiece], document: int, start: int, end: int) -> bool:
        at = start
        for piece in pieces:
            if piece.start > at:
                return False
            at = piece.start + len(piece.text)
        return at >= end or document not in self._lengths  # only of a complete document is the end known

    def _warn_of_part(self, document: int, layer: int, how_many: str | None = None) -> None:
        if self.database.has_removals():
            return
        what = f"{how_many or 'some'} of its tokens of layer {layer} are damaged or missing and are left out"
        self.warn_of_damage(
            ("part", document, layer),
            f"{self.database.uri}: document {document} ({self._names.get(document, '')!r}): {what}; {AGAIN}",
        )

    def _record_removal(self, sql: sqlite3.Connection) -> None:
        removals = about(sql, "removals")
        set_about(sql, "removals", str(secrets.randbits(31) if removals is None else int(removals) + 1))
        set_about(sql, "unfinished", "1")

    def _finish_removal(self) -> None:
        """Nothing of what was removed stays in the file, or `Unfinished` says what does."""
        try:
            self.compact()
        except (OSError, ValueError) as error:
            if isinstance(error, Unfinished):
                raise
            self.database.empty_log()  # where the rows stood there are zeros now
            raise Unfinished(
                f"{error}. What went is gone from the store and is overwritten where it stood, but the file could not "
                "be written anew: remains of it may be in pages that are not in use. Make room, and run `solomonic "
                "memory compact`"
            ) from error

    def _rewrite(self, without: set[int]) -> None:
        """Where SQLite can remove nothing from a damaged file: write the file again, of all that is sound."""
        salvaged = self.database.rewrite(without)
        lost = f", with {sum(salvaged.orphans.values())} rows of lost documents" if salvaged.orphans else ""
        self.warn_of_damage(
            "rewritten",
            f"{self.database.uri}: the file {FILE} was damaged, and was written anew of all {salvaged.documents} "
            f"documents that could be read; {salvaged.broken} damaged rows are gone{lost}",
        )


__all__ = ["DiskEngine"]
