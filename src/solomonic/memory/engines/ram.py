"""`ram:` in this process, gone when it is closed. `ram:NAME` is found again by the same process."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..schema import SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece
from ..search.exact import Keys
from .base import Absent, Engine, Ids

NAMED: dict[str, "RamEngine"] = {}


class RamEngine(Engine):
    @classmethod
    def open(cls, name: str, schema: StoreSchema | None) -> "RamEngine":
        engine = NAMED.get(name)
        if engine is None:
            if schema is None:
                raise Absent(f"ram:{name}: there is no store; a store in memory ends with its process")
            engine = cls(schema)
            if name:
                NAMED[name] = engine
        elif schema is not None:
            engine.schema.require(schema, f"ram:{name}")
        return engine

    def __init__(self, schema: StoreSchema):
        super().__init__()
        self.schema = schema
        self._lock = threading.RLock()
        self._documents: dict[int, StoredDocument] = {}
        self._last = 0
        self._entries: dict[int, dict[int, StoredTokens]] = {known.layer: {} for known in schema.layers}
        self._pieces: dict[int, dict[int, TextPiece]] = {}
        self._states: dict[int, bytes] = {}

    def documents(self) -> list[StoredDocument]:
        with self._lock:
            count: Counter[int] = Counter()
            size: Counter[int] = Counter()
            for entries in self._entries.values():
                for entry, tokens in entries.items():
                    count[entry >> 32] += len(tokens)
                    size[entry >> 32] += tokens.nbytes()
            return [
                replace(document, tokens=count[number], bytes=size[number] + document.text)
                for number, document in sorted(self._documents.items())
            ]

    def last_document(self) -> int:
        return self._last

    def commit(self, points: Sequence[SavePoint]) -> None:
        for point in points:
            document = point.document.id
            with self._lock:
                self._documents[document] = point.document
                self._last = max(self._last, document)
                self._states[document] = point.state
                for layer, entry, tokens in point.entries:
                    self._entries[layer][entry] = tokens
                self._pieces.setdefault(document, {}).update({piece.start: piece for piece in point.pieces})

    def remove(self, documents: set[int]) -> None:
        with self._lock:
            for document in documents:
                self._documents.pop(document, None)
                self._pieces.pop(document, None)
                self._states.pop(document, None)
            for layer, entries in self._entries.items():
                self._entries[layer] = {entry: t for entry, t in entries.items() if entry >> 32 not in documents}

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._lock:
            for layer, gone in entries.items():
                for entry in gone:
                    del self._entries[layer][entry]

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        with self._lock:
            here = self._entries[layer]
            return {entry: here[entry] for entry in entries if entry in here}

    def scan(self, layer: int, documents: Ids, without: Ids = ()) -> Iterator[Keys]:
        wanted, unwanted = set(documents), set(without)
        with self._lock:
            entries = sorted(self._entries[layer].items(), key=lambda item: item[0])
        for entry, tokens in entries:
            if entry >> 32 in wanted and entry not in unwanted:
                yield Keys.of(entry >> 32, tokens)

    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        with self._lock:
            ids = [entry for entry in self._entries[layer] if entry >> 32 == document]
            return (max(ids), self._entries[layer][max(ids)]) if ids else None

    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        with self._lock:
            pieces = self._pieces.get(document, {})
            return [pieces[at] for at in sorted(pieces) if at < end and at + len(pieces[at].text) > start]

    def state(self, document: int) -> bytes:
        return self._states[document]

    def size(self) -> int:
        with self._lock:
            entries = sum(t.nbytes() for of_layer in self._entries.values() for t in of_layer.values())
            return entries + sum(len(p.text) for of_document in self._pieces.values() for p in of_document.values())

    def verify(self) -> list[str]:
        return []
