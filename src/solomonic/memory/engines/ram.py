"""`ram:` in this process, gone when it is closed. `ram:NAME` is found again by the same process."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from ..schema import SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece
from ..search.exact import Keys
from .base import Absent, Engine

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
        self.schema = schema
        self._lock = threading.RLock()
        self._documents: dict[int, StoredDocument] = {}
        self._last = 0
        self._entries: dict[int, dict[int, StoredTokens]] = {one.layer: {} for one in schema.layers}
        self._pieces: dict[int, dict[int, TextPiece]] = {}
        self._states: dict[int, bytes] = {}

    def documents(self) -> list[StoredDocument]:
        with self._lock:
            tokens, size = Counter(), Counter()
            for kept in self._entries.values():
                for entry, one in kept.items():
                    tokens[entry >> 32] += len(one)
                    size[entry >> 32] += one.nbytes()
            return [
                replace(document, tokens=tokens[number], bytes=size[number] + document.text)
                for number, document in sorted(self._documents.items())
            ]

    def last_document(self) -> int:
        return self._last

    def commit(self, batches: Sequence[SavePoint]) -> None:
        for batch in batches:
            document = batch.document.id
            with self._lock:
                self._documents[document] = batch.document
                self._last = max(self._last, document)
                self._states[document] = batch.state
                for layer, entry, tokens in batch.entries:
                    self._entries[layer][entry] = tokens
                self._pieces.setdefault(document, {}).update({piece.start: piece for piece in batch.pieces})

    def remove(self, documents: set[int]) -> None:
        with self._lock:
            for document in documents:
                for kept in (self._documents, self._pieces, self._states):
                    kept.pop(document, None)
            for layer, entries in self._entries.items():
                self._entries[layer] = {entry: t for entry, t in entries.items() if entry >> 32 not in documents}

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._lock:
            for layer, gone in entries.items():
                for entry in gone:
                    del self._entries[layer][entry]

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        with self._lock:
            kept = self._entries[layer]
            return {entry: kept[entry] for entry in entries if entry in kept}

    def scan(self, layer: int, documents: Collection[int], without: Collection[int] = ()) -> Iterator[Keys]:
        wanted, unwanted = set(documents), set(without)
        with self._lock:
            entries = sorted(self._entries[layer].items(), key=lambda item: item[0])
        for entry, tokens in entries:
            if entry >> 32 in wanted and entry not in unwanted:
                yield Keys.of(entry >> 32, tokens)

    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        with self._lock:
            mine = [entry for entry in self._entries[layer] if entry >> 32 == document]
            return (max(mine), self._entries[layer][max(mine)]) if mine else None

    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        with self._lock:
            kept = self._pieces.get(document, {})
            return [kept[at] for at in sorted(kept) if at < end and at + len(kept[at].text) > start]

    def state(self, document: int) -> bytes:
        return self._states[document]

    def size(self) -> int:
        with self._lock:
            entries = sum(t.nbytes() for kept in self._entries.values() for t in kept.values())
            return entries + sum(len(p.text) for kept in self._pieces.values() for p in kept.values())

    def verify(self) -> list[str]:
        return []
