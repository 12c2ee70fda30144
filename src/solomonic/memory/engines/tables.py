"""The tables of a store on the disk, the seal of a row, and the check of the tables of a file that is opened."""

import json
import sqlite3
import struct
from hashlib import blake2b
from typing import Any

from ..schema import StoreSchema

FILE = "store.sqlite"
SCHEMA_FILE = f"{FILE}.layout"  # a copy of the store's schema, for when the file has lost its own
Row = tuple[Any, ...]
"""As SQLite returns it: whoever reads it judges the types, since a damaged file has any."""

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
FORMAT = 1
PAGE = 1 << 15  # a row of 4 KiB is common; on a small page most of its room would be lost
INTO_DOCUMENTS = f"INTO documents VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT){', ?' * 8})"
DOCUMENT = "id, name, session, time, digest, sources, text, clock, complete, state, seal"
PIECE = "document, start, lines, length, text, seal"
KEYS = "id, tokens, position, score, clock, key, seal"
VALUES = "id, value, span, seal"


def statements(schema: StoreSchema) -> list[str]:
    """The SQL statements that create the tables of a store of this schema."""
    text = TABLES + "".join(LAYER_TABLES.format(layer_schema.layer) for layer_schema in schema.layers)
    return [statement for part in text.split(";\n") if (statement := part.strip())]


def check_tables(sql: sqlite3.Connection, uri: str) -> set[str]:
    """The names of the tables. ValueError for a table, trigger, view or index that no store has: none of it has been run."""
    objects = sql.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    names = {name for kind, name, *_ in objects if kind == "table"}
    for kind, name, table, text in objects:
        if kind == "index" and text is None and table in names and str(name) == f"sqlite_autoindex_{table}_1":
            continue
        if kind != "table" or not isinstance(text, str) or " ".join(text.split()) != _expected(str(name)):
            raise ValueError(
                f"{uri}: expected the tables of a store and nothing else, got the {kind} {name!r}; nothing of it was "
                "run; if this is a store of yours, `solomonic memory repair` takes what is sound out of it"
            )
    return names


def _expected(name: str) -> str:
    _table, _, layer = name.partition("_")
    text = TABLES if not layer else LAYER_TABLES.format(layer) if layer.isdecimal() else ""
    every = {part.split()[2]: part for part in (" ".join(p.split()) for p in text.split(";\n")) if part}
    return every.get(name, "")


def require_tables(names: set[str], schema: StoreSchema, uri: str) -> None:
    """ValueError where a table is missing, or a table is not of the schema."""
    expected = {statement.split()[2] for statement in statements(schema)}
    if names != expected:
        what = ", ".join(sorted(names ^ expected))
        raise ValueError(f"{uri}: expected the tables of its schema, not {what}; run `solomonic memory repair`")


def seal(row: Row, layer: int = -1) -> bytes:
    """A digest of a row: of each value with its type and length, so that no two rows have the same bytes."""
    parts = [struct.pack("<q", layer)]
    for value in row:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        parts += struct.pack("<cq", type(value).__name__[:1].encode(), len(data)), data
    return blake2b(b"".join(parts), digest_size=16).digest()


def sound(row: Row, layer: int = -1) -> bool:
    """Whether a row, its seal last, is as it was written."""
    return bool(seal(row[:-1], layer) == row[-1])


def about(sql: sqlite3.Connection, name: str) -> str | None:
    """The value of a row of the table `about`; None where it is missing or damaged."""
    row = sql.execute("SELECT name, value, seal FROM about WHERE name = ?", (name,)).fetchone()
    return row[1] if row is not None and sound(row) else None


def set_about(sql: sqlite3.Connection, name: str, value: str) -> None:
    sql.execute("REPLACE INTO about VALUES (?, ?, ?)", (name, value, seal((name, value))))


def sealed_schema(schema: StoreSchema) -> str:
    """The copy of a schema that is kept beside the file, for when the file has lost it."""
    text = schema.to_json()
    return json.dumps({"layout": text, "seal": seal((text,)).hex()}) + "\n"


def unsealed_schema(text: str) -> StoreSchema | None:
    """The schema of such a copy; None where it is damaged."""
    try:
        plain = json.loads(text)
        if seal((plain["layout"],)).hex() == plain["seal"]:
            return StoreSchema.from_json(plain["layout"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def encoded(text: str | None) -> bytes | None:
    """A name as bytes for SQLite: one that is not UTF-8, as a file's may be, is read back as the same name."""
    return None if text is None else text.encode("utf-8", "surrogateescape")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
