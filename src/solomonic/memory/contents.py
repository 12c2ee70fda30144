"""What a store has open, shared by the store and the writers of its documents."""

import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from .cache import LRUCache
from .catalog import Catalog
from .engines import Engine, Unreachable
from .schema import SavePoint, StoredDocument, StoredTokens, TextPiece, entry_of
from .search.exact import ExactIndex, Keys, Scope
from .writer_thread import WriterThread

T = TypeVar("T")
RETRY_AFTER = 60.0
"""Seconds for which a store that could not be reached is not asked again."""


class OpenDocument(Protocol):
    """A document that is being written: a `DocumentWriter`."""

    document: StoredDocument

    def pieces(self, start: int, end: int) -> list[TextPiece]: ...


class StoreContents:
    """The engine, the thread that writes to it, and in memory the catalog, the indexes and the entries read last.

    Tokens are in the index and among the unsaved entries at once, and in the engine when the thread has kept them.
    """

    def __init__(self, engine: Engine, index_type: type[ExactIndex], write: bool, on_error: str, backlog: int):
        self.engine, self.schema = engine, engine.schema
        self.lock = threading.RLock()  # of everything here but `_unsaved`
        self.open_documents: dict[int, OpenDocument] = {}
        self._index_type, self._on_error = index_type, on_error
        self._indexes: dict[int, ExactIndex] = {}
        self._unsaved: dict[tuple[int, int], StoredTokens] = {}  # (layer, entry) that the engine does not have yet
        self._unsaved_lock = threading.Lock()  # nothing is waited for while it is held
        self._unreachable_since = -RETRY_AFTER
        self._reported = False  # whether the writer thread's error has been raised or warned of
        self._version = engine.version()
        self.catalog = Catalog(document for document in engine.documents() if document.complete)
        self._cache = LRUCache()
        self.last_document = engine.last_document()
        self.writer = WriterThread(engine.commit, self._saved, backlog) if write else None

    # Errors of the place where the store is kept

    def require_writable(self) -> None:
        if self.writer is None:
            raise ValueError("the store was opened to read; open it with write=True")

    def writing_failed(self) -> bool:
        """True where nothing more is written: the error is raised, or warned of once, as `on_error` asks."""
        assert self.writer is not None
        error = self.writer.error
        if error is None:
            return False
        reported, self._reported = self._reported, True
        if self._on_error == "raise" or not isinstance(error, OSError):
            raise error
        if not reported:
            warnings.warn(f"nothing more is written to the store: {error}", RuntimeWarning, stacklevel=3)
        return True

    def unless_unreachable(self, call: Callable[[], T]) -> T | None:
        """What `call` returns; None where the store cannot be reached and `on_error` is to continue."""
        if time.monotonic() < self._unreachable_since + RETRY_AFTER:
            return None
        try:
            return call()
        except Unreachable as error:
            if self._on_error == "raise":
                raise
            self._unreachable_since = time.monotonic()
            warnings.warn(
                f"nothing is found in the store for {RETRY_AFTER:.0f} seconds: {error}", RuntimeWarning, stacklevel=4
            )
            return None

    def drain(self) -> None:
        """Returns when the writer thread has nothing left to write."""
        if self.writer is not None:
            self.writer.drain()

    def close(self) -> None:
        with self.lock:
            self.drop(set(self.open_documents))
        if self.writer is not None:
            self.writer.close()
        self.engine.close()
        if self.writer is not None and not self._reported:
            self.writing_failed()

    # Writing

    def open_document(self, writer: OpenDocument) -> None:
        """This process finds the document that is being written from now on."""
        self.open_documents[writer.document.id] = writer
        self.catalog.put(writer.document)
        self._index_documents({writer.document.id})

    def add(self, document: int, layer: int, tokens: StoredTokens, entries: dict[int, StoredTokens]) -> None:
        """New tokens of a document, and all tokens, old and new, of the entries that they are in."""
        if layer in self._indexes:
            self._indexes[layer].add(Keys.of(document, tokens))
        for entry, parts in entries.items():
            with self._unsaved_lock:
                self._unsaved[layer, entry] = parts
            self._cache.drop(layer, entry)

    def unsaved(self, keys: Iterable[tuple[int, int]]) -> tuple[tuple[int, int, StoredTokens], ...]:
        """(layer, entry, tokens) of each (layer, entry)."""
        return tuple((*key, self._unsaved[key]) for key in keys)

    def put(self, point: SavePoint) -> None:
        """Hand a save point to the writer thread."""
        assert self.writer is not None
        self.writer.put(point)

    def drop(self, documents: set[int]) -> None:
        """Documents from all that this process has in memory."""
        self.catalog.remove(documents)
        for document in documents:
            self.open_documents.pop(document, None)
        self._cache.clear()
        with self._unsaved_lock:
            for key in [key for key in self._unsaved if key[1] >> 32 in documents]:
                del self._unsaved[key]
        for index in self._indexes.values():
            index.remove(documents)

    def evict(self, entries: dict[int, set[int]]) -> None:
        """layer: entries."""
        try:
            self.engine.evict(entries)
        finally:
            self._cache.clear()
            for layer in entries.keys() & self._indexes.keys():
                self._indexes[layer].remove(entries=entries[layer])

    def _saved(self, point: SavePoint) -> None:
        with self._unsaved_lock:
            for layer, entry, tokens in point.entries:
                if self._unsaved.get((layer, entry)) is tokens:
                    del self._unsaved[layer, entry]

    # Reading

    def index(self, layer: int) -> ExactIndex:
        self.refresh()
        if layer not in self._indexes:
            unsaved = self._unsaved_of(layer, self.catalog.documents)
            index = self.engine.index(layer, self.catalog.documents.keys(), unsaved.keys(), self._index_type)
            for entry, tokens in unsaved.items():
                index.add(Keys.of(entry >> 32, tokens))
            self._indexes[layer] = index
        return self._indexes[layer]

    def search(
        self, layer: int, query: Tensor, k: int, rate: float, only: Collection[int] | None, now: float
    ) -> tuple[Tensor, Tensor]:
        """As `ExactIndex.search`."""
        index, clock_starts = self.index(layer), self.catalog.clock_starts(layer)
        if rate:
            clock_starts = {document: start - now for document, start in clock_starts.items()}
        documents = None if only is None else set(only)
        return index.search(query, k, Scope(rate, clock_starts, documents), self.catalog.name_order().tensors)

    def entries(self, layer: int, entries: Collection[int]) -> dict[int, StoredTokens]:
        """Those that are there, as copies: what reading computes of them goes with them, whatever the engine keeps.

        Under `lock`, as is all that adds to `_unsaved`.
        """
        with self._unsaved_lock:
            here = {e: replace(self._unsaved[layer, e]) for e in entries if (layer, e) in self._unsaved}
        wanted = {entry for entry in entries if entry >= 0} - here.keys()
        here |= {entry: t for entry in wanted if (t := self._cache.get(layer, entry)) is not None}
        if missing := sorted(wanted - here.keys()):
            fetched = self.unless_unreachable(lambda: self.engine.fetch(layer, missing)) or {}
            for entry, tokens in fetched.items():
                here[entry] = replace(tokens)
                self._cache.put(layer, entry, here[entry])
            if len(fetched) < len(missing) and layer in self._indexes:
                self._drop_unreadable(layer, set(missing) - fetched.keys())
        return {entry: tokens for entry, tokens in here.items() if entry >> 32 in self.catalog.documents}

    def refresh(self) -> None:
        """Take in what another process has written or removed since."""
        if self.writer is not None:  # no one else writes
            return
        version = self.unless_unreachable(self.engine.version)
        if version is None or version == self._version:
            return
        complete = {document.id: document for document in self.engine.documents() if document.complete}
        if version[1] != self._version[1]:
            self._indexes.clear()
            self._cache.clear()
        new = complete.keys() - self.catalog.documents.keys()
        self.catalog.replace_all(complete.values())
        self._version = version
        self._index_documents(new)

    def _index_documents(self, documents: Collection[int]) -> None:
        """Add documents that have become visible to every index."""
        for layer, index in self._indexes.items():
            unsaved = self._unsaved_of(layer, documents)
            for keys in self.engine.scan(layer, documents, unsaved.keys()):
                index.add(keys)
            for entry, tokens in unsaved.items():
                index.add(Keys.of(entry >> 32, tokens))

    def _unsaved_of(self, layer: int, documents: Collection[int]) -> dict[int, StoredTokens]:
        with self._unsaved_lock:
            return {e: t for (of, e), t in self._unsaved.items() if of == layer and e >> 32 in documents}

    def _drop_unreadable(self, layer: int, entries: set[int]) -> None:
        """Entries that the index has and the engine cannot read are not found again."""
        index = self._indexes[layer]
        indexed = entry_of(index.token_id[: index.size], self.schema[layer].block)
        lost = entries & set(indexed[torch.isin(indexed, torch.tensor(sorted(entries)))].tolist())
        if lost and (self.writer is not None or self.unless_unreachable(self.engine.version) == self._version):
            documents = self.catalog.documents
            for document in sorted({entry >> 32 for entry in lost} & documents.keys()):
                self.engine.warn_of_damage(
                    ("part", document, layer),
                    f"document {document} ({documents[document].name!r}): some of its tokens of layer {layer} are "
                    "damaged or missing and are left out; forget the document and add it again",
                )
            index.remove(entries=lost)


__all__ = ["StoreContents"]
