"""A long-term store: keys and values of documents that a model has read, found again by its layers' queries."""

import threading
import time as clocks
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .cache import LRUCache
from .engines import Engine, Unfinished, Unreachable, open_engine
from .schema import (
    DTYPES,
    MOST_DOCUMENTS,
    PIECE_BYTES,
    Entries,
    ReadTokens,
    SavePoint,
    StoredDocument,
    StoredTokens,
    StoreSchema,
    TextPiece,
    entry_id,
    entry_of,
    log_admission,
)
from .search.exact import ExactIndex, Keys, store_clock
from .search.inverted_lists import InvertedListsIndex
from .writer_thread import WriterThread

ON_ERROR = ("raise", "continue")
GAP = "\N{REPLACEMENT CHARACTER}".encode()
AWAY = 60.0
"""Seconds for which a store that could not be reached is not asked again."""


@dataclass(frozen=True)
class SearchResult:
    """token_id: document << 32 | position of the tokens that were found, (N, G, k) int64, -1 for none. block: tokens an entry.

    logit: (N, G, k) float32, falling.
    """

    token_id: Tensor
    block: int
    logit: Tensor

    @property
    def entry(self) -> Tensor:
        """(N, G, k) int64, -1 for none."""
        return entry_of(self.token_id, self.block)

    @property
    def position(self) -> Tensor:
        """(N, G, k) int64, of the token in its document, -1 for none."""
        return torch.where(self.token_id < 0, -1, self.token_id & 0xFFFFFFFF)


@dataclass(frozen=True)
class Forgotten:
    """asked: the documents that were asked for. followed: those computed from them, at any remove, which went too.

    unknown: documents that stay, whose rows are damaged, so that nobody can tell whether they were computed from them.
    unfinished: what of them may still be in the store's files, and why; None: nothing.
    """

    asked: tuple[StoredDocument, ...]
    followed: tuple[StoredDocument, ...]
    unknown: tuple[int, ...] = ()
    unfinished: str | None = None


@dataclass(frozen=True)
class Evicted:
    entries: int
    tokens: int
    bytes: int


def open_store(
    uri: str,
    schema: StoreSchema | None = None,
    write: bool = False,
    on_error: str = "raise",
    backlog: int = 256 << 20,
    approximate: bool = False,
) -> "Store":
    """The store at `uri`: `ram:`, a folder or `file:FOLDER`, `milvus:...`.

    schema: of the model; None: as the store has it. write: made, where it is not there; one writer at a time.
    on_error: what follows when the place takes no more (a full disk) or cannot be reached (a server that went away):
    "raise" an OSError at the next call that writes or searches, or "continue" without writing for good, and without
    finding anything for a minute, with a warning; `Store.flush` raises either way.
    backlog: bytes that may wait to be written before `save` waits for the disk.
    approximate: search misses some of the best, and takes a fraction of the time in a large store (`lists`); Milvus,
    which has indexes of its own, stays exact.
    ValueError for a schema of another model or shape, or a place that is something else; OSError if it cannot be had.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error of a store: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
    return Store(open_engine(uri, schema, write), write, on_error, backlog, approximate)


class Store:
    """Laws, tested on every engine:

    - Search, unless it is approximate, is its definition (`reference.search`), bit for bit, on every engine, whatever
      was written in between.
    - What was written is found at once by the process that wrote it, and by every process once its document is
      complete and flushed.
    - After `forget`, every search and fetch equals, bit for bit, that of a store which never held the document.
    - What was acknowledged stays: `flush` returned, or the `with` block of a document was left, and the process may
      be killed at any moment. What was not is there up to the document's last save point, or not at all.
    - Nothing that is served depends on the order in which documents were added, but the clock.
    - What is damaged is never read as data: it is left out, and a warning, `Damaged`, names its document, once.

    Calls may come from several threads; a document is written by one.
    """

    def __init__(self, engine: Engine, write: bool, on_error: str, backlog: int, approximate: bool):
        self.schema = engine.schema
        self._kind = InvertedListsIndex if approximate else ExactIndex
        self.writable = write
        self._engine, self._on_error = engine, on_error
        self._lock = threading.RLock()  # the store's own tables
        self._pend = threading.Lock()  # the next line; nothing is waited for while it is held
        self._indexes: dict[int, ExactIndex] = {}
        self._pending: dict[tuple[int, int], StoredTokens] = {}  # (layer, entry) not yet kept by the engine
        self._open: dict[int, DocumentWriter] = {}
        self._away = -AWAY  # when it could not be reached
        self._said = False  # whether the writer's error has been raised, or warned of
        self._version = engine.version()
        self._visible = {document.id: document for document in engine.documents() if document.complete}
        self._starts: dict[int, dict[int, float]] = {}  # of a layer, what `_began` gives until `_visible` changes
        self._ranks: tuple | None = None  # what `_ranked` gives until the documents change
        self._cache = LRUCache()
        self._blank = {
            one.layer: 0 * StoredTokens.blank(one, self.schema.dtype, 1).packed[0] for one in self.schema.layers
        }
        self._last = engine.last_document()
        self._writer = WriterThread(engine.commit, self._committed, backlog) if write else None

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    # DocumentWriter

    @torch.inference_mode(False)  # what the store keeps outlives the caller's mode
    def document(
        self,
        name: str,
        session: str | None = None,
        time: float | None = None,
        digest: str | None = None,
        sources: Iterable[int] = (),
    ) -> "DocumentWriter":
        """A document to write, as a context. One of the same name, session and digest that is incomplete is resumed.

        time: unix seconds, None: now. ValueError if it is there, complete, and has a digest: ask `find` before.
        """
        self._must_write()
        if not isinstance(name, str) or not name:
            raise ValueError(f"name of a document: expected text, got {name!r}")
        for text in (name, session or ""):
            try:
                text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise ValueError(f"name of a document, or session: expected text, got {text!r}") from None
        with self._lock:
            being = [writing.document for writing in self._open.values()]
            if (name, digest, session) in [(d.name, d.digest, d.session) for d in being]:
                raise ValueError(f"document {name!r}: it is being written already")
            before = self.find(name, digest, session)
            if before is not None and before.complete and digest is not None:
                raise ValueError(f"document {name!r}: it is in the store already, with the same digest")
            resumed = before is not None and not before.complete
            if resumed and not self._engine.whole(before):
                self._engine.name(
                    ("resumed", before.id), f"document {name!r}: what was saved of it is damaged; it is begun anew"
                )
                self._engine.remove({before.id})
                resumed = False
            if not resumed:
                if self._last >= MOST_DOCUMENTS:
                    raise ValueError(f"a store holds {MOST_DOCUMENTS} documents at most")
                self._last += 1
                when = clocks.time() if time is None else float(time)
                before = StoredDocument(self._last, name, session, when, digest)
            writing = DocumentWriter(self, replace(before, sources=tuple(sorted({*before.sources, *sources}))), resumed)
            self._open[before.id] = writing
            self._show(writing.document)
            self._add({before.id})
            return writing

    def find(self, name: str, digest: str | None = None, session: str | None = None) -> StoredDocument | None:
        """The newest document of that name, digest and session."""
        same = [d for d in self.documents() if (d.name, d.digest, d.session) == (name, digest, session)]
        return same[-1] if same else None

    def flush(self) -> None:
        """Returns when all save points so far are kept; OSError if they could not be."""
        if self._writer is not None:
            self._writer.drain()
            if self._writer.error:
                raise self._writer.error

    def close(self) -> None:
        """Keeps what was saved, and gives the store back. An open document stays at its last save point."""
        with self._lock:
            for writing in list(self._open.values()):
                writing.abandon()
        if self._writer is not None:
            self._writer.close()
        self._engine.close()
        if self._writer is not None and not self._said:
            self._failure()

    # Reading

    @torch.inference_mode(False)
    def search(
        self,
        layer: int,
        query: Tensor,
        k: int,
        rate: float = 0.0,
        only: Collection[int] | None = None,
        now: float = 0.0,
    ) -> SearchResult:
        """Of each query and head, the k stored tokens with the largest

            q . k + logsigmoid(score) * admit + rate * (clock - now)

        of equal ones those first whose documents' names come first, then the older. query: (N, G, D), scaled. only: ids
        of documents, None for all.
        """
        shape = self.schema[layer]
        if query.dim() != 3 or query.shape[1:] != (shape.heads, shape.dim):
            raise ValueError(f"query: expected the shape (N, {shape.heads}, {shape.dim}), got {tuple(query.shape)}")
        if k < 1:
            raise ValueError(f"k: expected a whole number >= 1, got {k}")
        device, query = query.device, query.detach().to("cpu", torch.float32)
        with self._lock:
            found = self._unless_away(lambda: self._search(layer, query, k, rate, only, now))
        if found is None:
            none = torch.full((len(query), shape.heads, k), -1)
            found = none, torch.full(none.shape, -torch.inf)
        token_id, logit = found
        return SearchResult(token_id.to(device), shape.block, logit.to(device))

    @torch.inference_mode(False)
    def fetch(self, layer: int, entries: Tensor | list[int]) -> Entries:
        """The tokens of entries, in their order: none of -1, of one that was forgotten meanwhile, or of a damaged one."""
        shape = self.schema[layer]
        device = entries.device if isinstance(entries, Tensor) else None
        ids = entries.tolist() if isinstance(entries, Tensor) else list(entries)
        with self._lock:
            self._refresh()
            here, began = self._entries(layer, ids), self._began(layer)
        none = StoredTokens.blank(shape, self.schema.dtype)
        found = [here.get(entry, none) for entry in ids]

        def laid(name: str, filler: float = 0) -> Tensor:
            parts = [getattr(tokens, name) for tokens in (*found, none)]  # one more, for where there are none
            return pad_sequence(parts, batch_first=True, padding_value=filler)[:-1]

        position, clock = laid("position", -1), laid("clock")
        real = position >= 0
        start = torch.tensor([began.get(entry >> 32, 0.0) for entry in ids], dtype=torch.float64)[:, None]
        clock = (start + clock.double()).float().masked_fill(~real, 0)
        document = torch.tensor([entry >> 32 if entry in here else -1 for entry in ids], dtype=torch.int64)
        parts = laid("key").float(), laid("value").float(), laid("score"), clock, position, real, document, laid("span")
        return Entries(*(x.to(device) for x in parts))

    @torch.inference_mode(False)
    def read(self, layer: int, token_ids: Sequence[int]) -> ReadTokens:
        """The tokens `token_ids`, document << 32 | position, as they were at the last search."""
        block = self.schema[layer].block
        entries = [entry_id(token_id >> 32, (token_id & 0xFFFFFFFF) // block) for token_id in token_ids]
        with self._lock:
            here, began = self._entries(layer, set(entries)), self._began(layer)
        packed = [self._blank[layer]] if not token_ids else []
        for token_id, entry in zip(token_ids, entries, strict=True):
            row = here[entry].row(token_id & 0xFFFFFFFF) if entry in here else None
            packed.append(self._blank[layer] if row is None else here[entry].packed[row])
        return ReadTokens(
            torch.stack(packed)[: len(token_ids)],
            [began.get(token_id >> 32, 0.0) for token_id in token_ids],
            self.schema[layer],
        )

    def documents(self) -> list[StoredDocument]:
        """All documents that have been saved, in the order in which they were begun."""
        if self._writer is not None:
            self._writer.drain()
        return self._engine.documents()

    def damaged(self) -> dict[int, str]:
        """Documents that `documents` leaves out, as their own rows are damaged: ids, and the names they still bear."""
        self.documents()
        return self._engine.damaged()

    def clock(self, layer: int) -> float:
        """How far the layer's clock has run, over all documents: what `now` is for the next one."""
        with self._lock:
            self._refresh()
            return sum(self._visible[document].elapsed(layer) for document in sorted(self._visible))

    def passage(self, document: int, start: int, end: int) -> tuple[str, int]:
        """The bytes [start, end) of a document's text as text, and the number, from 1, of the line they begin in.

        A part that is damaged is one U+FFFD, and a warning.
        """
        with self._lock:
            if document in self._open:
                pieces = self._open[document].pieces(start, end)
            else:
                if self._writer is not None:
                    self._writer.drain()
                pieces = self._engine.pieces(document, start, end)
        if not pieces:
            return "", 1
        first, parts, at = pieces[0], [], start
        line = first.lines + first.text[: max(start - first.start, 0)].count(b"\n") + 1
        for piece in pieces:
            if piece.start > at:
                parts.append(GAP)
            parts.append(piece.text[max(at - piece.start, 0) : max(end - piece.start, 0)])
            at = piece.start + len(piece.text)
        return b"".join(parts).decode("utf-8", "replace"), line

    # Keeping house

    def forget(
        self,
        documents: Iterable[int] | None = None,
        before: float | None = None,
        after: float | None = None,
        session: str | None = None,
        dry_run: bool = False,
    ) -> Forgotten:
        """Documents for which all that is given holds, and every one whose keys were computed from theirs.

        documents: ids, of damaged ones too. before, after: unix seconds, time < before, time >= after. With dry_run
        nothing is done.
        """
        if documents is None and before is None and after is None and session is None:
            raise ValueError("forget: expected documents, a time or a session, got none of them")
        wanted = None if documents is None else set(documents)
        if not dry_run:
            self._must_write()
        with self._lock:
            known, damaged = self.documents(), self._engine.damaged()
            for number in sorted((wanted or set()) - {document.id for document in known}):
                if not self._engine.remains(number):
                    raise ValueError(f"document {number}: the store does not hold it")
                if before is None and after is None and session is None:
                    known.append(StoredDocument(number, damaged.get(number) or "?"))
            asked = [
                d
                for d in known
                if (wanted is None or d.id in wanted)
                and (before is None or d.time < before)
                and (after is None or d.time >= after)
                and (session is None or d.session == session)
            ]
            gone = {document.id for document in asked}
            grown = True
            while grown:
                more = {d.id for d in known if d.id not in gone and gone & {*d.sources}}
                gone, grown = gone | more, bool(more)
            followed = [d for d in known if d.id in gone and d not in asked]
            unfinished = None
            if not dry_run and gone:
                if busy := gone & self._open.keys():
                    raise ValueError(f"document {min(busy)}: it is being written; it cannot be forgotten now")
                try:
                    self._engine.remove(gone)
                except Unfinished as error:
                    unfinished = str(error)
                self._drop(gone)
            unknown = tuple(sorted(damaged.keys() - gone)) if gone else ()
            return Forgotten(tuple(asked), tuple(followed), unknown, unfinished)

    @torch.inference_mode(False)
    def evict(self, budget: int, rate: float = 0.0) -> Evicted:
        """Whole entries, the least weight first, until those that stay take `budget` bytes at most.

        weight = max over its tokens of logsigmoid(score) * admit + rate * (clock - now), now the layer's clock; of
        equal weights the older goes. Documents that are being written are left alone.
        """
        self._must_write()
        if budget < 0:
            raise ValueError(f"budget of a store: expected bytes >= 0, got {budget}")
        with self._lock:
            self.flush()
            entries = []
            for shape in self.schema.layers:
                began, now = self._began(shape.layer), self.clock(shape.layer)
                each = 2 * shape.heads * shape.dim * DTYPES[self.schema.dtype].itemsize + 32  # span, position, ...
                weights: dict[int, tuple[float, int]] = {}
                for keys in self._engine.scan(shape.layer, self._visible.keys() - self._open.keys()):
                    weight = rate * (store_clock(keys.token_id, keys.clock, began) - now)
                    if shape.admit:
                        weight = weight + log_admission(keys.score).double()
                    for entry, one in zip(entry_of(keys.token_id, shape.block).tolist(), weight.tolist()):
                        most, count = weights.get(entry, (one, 0))
                        weights[entry] = max(most, one), count + 1
                entries += [(w, e, shape.layer, count, count * each) for e, (w, count) in weights.items()]
            size = sum(entry[-1] for entry in entries)
            gone: dict[int, set[int]] = {}
            tokens = taken = 0
            for _, entry, layer, count, nbytes in sorted(entries):
                if size - taken <= budget:
                    break
                gone.setdefault(layer, set()).add(entry)
                tokens, taken = tokens + count, taken + nbytes
            if gone:
                try:
                    self._engine.evict(gone)
                finally:
                    self._cache.clear()
                    for layer in gone.keys() & self._indexes.keys():
                        self._indexes[layer].remove(entries=gone[layer])
            return Evicted(sum(map(len, gone.values())), tokens, taken)

    def stats(self) -> dict[str, Any]:
        """documents, incomplete, tokens (stored, over all layers), text and bytes (of documents), size (of the store),
        clock (of each layer), failed (why nothing more is written, or None), lost (save points since then)."""
        known = self.documents()
        size = self._engine.size()
        writer = self._writer
        return {
            "documents": len(known),
            "incomplete": sum(not document.complete for document in known),
            "tokens": sum(document.tokens for document in known),
            "text": sum(document.text for document in known),
            "bytes": sum(document.bytes for document in known),
            "size": size,
            "clock": {shape.layer: self.clock(shape.layer) for shape in self.schema.layers},
            "failed": str(writer.error) if writer is not None and writer.error else None,
            "lost": writer.lost if writer is not None else 0,
        }

    def compact(self) -> None:
        """Gives the room of what went back to the disk."""
        self._must_write()
        self.flush()
        self._engine.compact()

    def verify(self) -> list[str]:
        """Reads everything. A line for all that is damaged; none for a sound store."""
        if self._writer is not None:
            self._writer.drain()
        return self._engine.verify()

    # Inside

    def _must_write(self) -> None:
        if self._writer is None:
            raise ValueError("the store was opened to read; open it with write=True")

    def _failure(self) -> bool:
        """True where nothing more is written: said once, or raised."""
        error = self._writer.error
        if error is None:
            return False
        said, self._said = self._said, True
        if self._on_error == "raise" or not isinstance(error, OSError):
            raise error
        if not said:
            warnings.warn(f"nothing more is written to the store: {error}", RuntimeWarning, stacklevel=3)
        return True

    def _unless_away(self, call: Callable[[], Any]) -> Any:
        """None, where the store cannot be reached and goes on without."""
        if clocks.monotonic() < self._away + AWAY:
            return None
        try:
            return call()
        except Unreachable as error:
            if self._on_error == "raise":
                raise
            self._away = clocks.monotonic()
            warnings.warn(
                f"nothing is found in the store for {AWAY:.0f} seconds: {error}", RuntimeWarning, stacklevel=4
            )
            return None

    def _search(
        self, layer: int, query: Tensor, k: int, rate: float, only: Collection[int] | None, now: float
    ) -> tuple[Tensor, Tensor]:
        index, began = self._index(layer), self._began(layer)
        if rate:
            began = {document: start - now for document, start in began.items()}
        return index.search(query, k, rate, began, None if only is None else set(only), self._ranked())

    def _committed(self, batch: SavePoint) -> None:
        with self._pend:
            for layer, entry, tokens in batch.entries:
                if self._pending.get((layer, entry)) is tokens:
                    del self._pending[layer, entry]

    def _waiting(self, layer: int, documents: Collection[int]) -> dict[int, StoredTokens]:
        """Entries that the engine does not keep yet."""
        with self._pend:
            return {e: t for (which, e), t in self._pending.items() if which == layer and e >> 32 in documents}

    def _entries(self, layer: int, entries: Collection[int]) -> dict[int, StoredTokens]:
        """Those that are there, as copies: what reading makes of them goes with them, whatever the engine keeps.

        Under the lock, as is all that puts one into `_pending`.
        """
        with self._pend:
            here = {e: replace(self._pending[layer, e]) for e in entries if (layer, e) in self._pending}
        wanted = {entry for entry in entries if entry >= 0} - here.keys()
        here |= {entry: t for entry in wanted if (t := self._cache.get(layer, entry)) is not None}
        if missing := sorted(wanted - here.keys()):
            read = self._unless_away(lambda: self._engine.fetch(layer, missing)) or {}
            for entry, tokens in read.items():
                here[entry] = replace(tokens)
                self._cache.put(layer, entry, here[entry])
            if len(read) < len(missing) and layer in self._indexes:
                self._without(layer, set(missing) - read.keys())
        return {entry: tokens for entry, tokens in here.items() if entry >> 32 in self._visible}

    def _without(self, layer: int, entries: set[int]) -> None:
        """What the index knows and cannot be read is not found again."""
        index = self._indexes[layer]
        known = entry_of(index.token_id[: index.size], self.schema[layer].block)
        lost = entries & set(known[torch.isin(known, torch.tensor(sorted(entries)))].tolist())
        if lost and (self._writer is not None or self._unless_away(self._engine.version) == self._version):
            for document in sorted({entry >> 32 for entry in lost} & self._visible.keys()):
                self._engine.name(
                    ("part", document, layer),
                    f"document {document} ({self._visible[document].name!r}): some of its tokens of layer {layer} are "
                    "damaged or missing and are left out; forget the document and add it again",
                )
            index.remove(entries=lost)

    def _show(self, document: StoredDocument) -> None:
        if document.id not in self._visible:
            self._ranks = None
        self._visible[document.id] = document
        self._starts.clear()

    def _ranked(self) -> tuple[Tensor, Tensor] | None:
        """Ids of documents, rising, and the place of each in the order of names; None where that is the same order."""
        if self._ranks is None:
            ids = sorted(self._visible)
            order = sorted(ids, key=lambda number: _name(self._visible[number]))
            place = {number: at for at, number in enumerate(order)}
            places = torch.tensor([place[number] for number in ids], dtype=torch.int64)
            self._ranks = (order == ids, place, (torch.tensor(ids, dtype=torch.int64), places))
        return None if self._ranks[0] else self._ranks[2]

    def in_order(self, token_ids: Iterable[int]) -> list[int]:
        """Tokens, document << 32 | position, that were found: by their documents' names, then by their positions."""
        if self._ranked() is None:
            return sorted(token_ids)
        place = self._ranks[1]
        return sorted(token_ids, key=lambda token_id: (place.get(token_id >> 32, 0), token_id))

    def _index(self, layer: int) -> ExactIndex:
        self._refresh()
        if layer not in self._indexes:
            mine = self._waiting(layer, self._visible)
            index = self._engine.index(layer, self._visible.keys(), mine.keys(), self._kind)
            for entry, tokens in mine.items():
                index.add(Keys.of(entry >> 32, tokens))
            self._indexes[layer] = index
        return self._indexes[layer]

    def _add(self, documents: Collection[int]) -> None:
        """Documents that have become visible, to every index."""
        for layer, index in self._indexes.items():
            mine = self._waiting(layer, documents)
            for keys in self._engine.scan(layer, documents, mine.keys()):
                index.add(keys)
            for entry, tokens in mine.items():
                index.add(Keys.of(entry >> 32, tokens))

    def _refresh(self) -> None:
        """What another process has written or taken since."""
        if self._writer is not None:  # no one else writes
            return
        version = self._unless_away(self._engine.version)
        if version is None or version == self._version:
            return
        known = {document.id: document for document in self._engine.documents() if document.complete}
        if version[1] != self._version[1]:
            self._indexes.clear()
            self._cache.clear()
        new = known.keys() - self._visible.keys()
        self._visible, self._version = known, version
        self._starts.clear()
        self._ranks = None
        self._add(new)

    def _began(self, layer: int) -> dict[int, float]:
        """The store's clock where each document begins: what all before it have run. Not to be changed."""
        if layer not in self._starts:
            total, began = 0.0, {}
            for document in sorted(self._visible):
                began[document] = total
                total += self._visible[document].elapsed(layer)
            self._starts[layer] = began
        return self._starts[layer]

    def _drop(self, documents: set[int]) -> None:
        """From all that this process remembers."""
        for document in documents:
            self._visible.pop(document, None)
            self._open.pop(document, None)
        self._starts.clear()
        self._ranks = None
        self._cache.clear()
        with self._pend:
            for key in [key for key in self._pending if key[1] >> 32 in documents]:
                del self._pending[key]
        for index in self._indexes.values():
            index.remove(documents)


class DocumentWriter:
    """A document being written: a context, complete and acknowledged when it is left.

    After an exception it stays, incomplete, at its last save point, to be resumed by `Store.document` with the same
    name, session and digest; without a save point nothing of it stays.

    state: what was given to the last `save`, b"" for a new document. resumed: whether anything of it was there.
    """

    def __init__(self, store: Store, document: StoredDocument, resumed: bool):
        self.document = document
        self.state = b""
        self._store = store
        self._dirty: set[tuple[int, int]] = set()
        self._last: dict[int, tuple[int, StoredTokens]] = {}  # layer: its last entry, which may grow
        self._pieces: list[TextPiece] = []  # not yet put; the last one may grow
        self.resumed = self._saved = resumed
        if resumed:
            self.state = store._engine.state(document.id)
            for shape in store.schema.layers:
                if last := store._engine.last(shape.layer, document.id):
                    self._last[shape.layer] = last
            if document.text:
                self._pieces = store._engine.pieces(document.id, document.text - 1, document.text)

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        store = self._store
        if kind is not None:
            self.abandon()
        if self.id not in store._open:
            return
        try:
            self._save(b"", complete=True)
            store._writer.drain()
            store._failure()
        except OSError:
            self.abandon()
            raise
        store._open.pop(self.id, None)

    @property
    def id(self) -> int:
        return self.document.id

    def began(self, layer: int) -> float:
        """The store's clock where this document begins: what all earlier ones have run."""
        with self._store._lock:
            return self._store._began(layer)[self.id]

    @torch.inference_mode(False)
    def write(self, layer: int, tokens: StoredTokens, clock: float | None = None) -> None:
        """Later tokens than all before, found at once by this process; kept from the next `save` on.

        clock: the layer's own clock now, where it has run past the last token's. Never waits.
        """
        store, shape = self._store, self._store.schema[layer]
        self._must_be_open()
        tokens = tokens.checked(shape, store.schema.dtype)
        if store._failure():
            return
        with store._lock:
            last, tail = self._last.get(layer, (-1, None))
            position = -1 if tail is None else int(tail.position[-1])
            if len(tokens) and tokens.position[0] <= position:
                raise ValueError(
                    f"position of tokens: expected more than {position}, the last one written, got {tokens.position[0]}"
                )
            ran = max([self.document.elapsed(layer), *tokens.clock[-1:].tolist(), clock or 0.0])
            self.document = replace(
                self.document,
                tokens=self.document.tokens + len(tokens),
                clock=tuple(sorted({**dict(self.document.clock), layer: ran}.items())),
            )
            store._show(self.document)
            if not len(tokens):
                return
            if layer in store._indexes:
                store._indexes[layer].add(Keys.of(self.id, tokens))
            for block, part in tokens.blocks(shape.block):
                entry = entry_id(self.id, block)
                if entry == last:
                    part = tail.join(part)
                with store._pend:
                    store._pending[layer, entry] = part
                store._cache.drop(layer, entry)
                self._dirty.add((layer, entry))
            self._last[layer] = entry, part

    def append(self, text: bytes) -> None:
        """The next bytes of the document's text."""
        self._must_be_open()
        at = self.document.text
        self.document = replace(self.document, text=at + len(text))
        if self._pieces and len(self._pieces[-1].text) < PIECE_BYTES:
            last = self._pieces.pop()
            text, at, lines = last.text + text, last.start, last.lines
        else:
            lines = self._pieces[-1].lines + self._pieces[-1].text.count(b"\n") if self._pieces else 0
        for begin in range(0, len(text), PIECE_BYTES):
            part = text[begin : begin + PIECE_BYTES]
            self._pieces.append(TextPiece(at + begin, lines, part))
            lines += part.count(b"\n")

    def add_sources(self, documents: Iterable[int]) -> None:
        """This document's keys and values are computed from those of `documents` too: they are forgotten together."""
        self.document = replace(self.document, sources=tuple(sorted({*self.document.sources, *documents})))

    def save(self, state: bytes = b"") -> None:
        """A save point: all that was written so far and `state` are kept together, by and by; `flush` waits for it."""
        self._must_be_open()
        self._save(state, complete=False)

    def abandon(self) -> None:
        """Stop here: the document stays at its last save point, or goes, where it has none."""
        store = self._store
        with store._lock:
            if self.id not in store._open:
                return
            store._drop({self.id})

    def pieces(self, start: int, end: int) -> list[TextPiece]:
        """As `Engine.pieces`, with what is not kept yet."""
        store = self._store
        store._writer.drain()
        kept = store._engine.pieces(self.id, start, end) if self._saved else []
        mine = {piece.start: piece for piece in kept} | {
            p.start: p for p in self._pieces if p.start < end and p.start + len(p.text) > start
        }
        return [mine[at] for at in sorted(mine)]

    def _must_be_open(self) -> None:
        if self.id not in self._store._open:
            raise ValueError(f"document {self.document.name!r}: it has been left; nothing more can be written")

    def _save(self, state: bytes, complete: bool) -> None:
        store = self._store
        if store._failure():
            return
        with store._lock:
            self.document = replace(self.document, complete=complete)
            store._show(self.document)
            entries = tuple((*key, store._pending[key]) for key in sorted(self._dirty))
            self._dirty.clear()
            self.state, self._saved = state, True
            batch = SavePoint(self.document, entries, tuple(self._pieces), state)
            del self._pieces[:-1]
        store._writer.put(batch)


def _name(document: StoredDocument) -> tuple:
    """By what documents are put in order: not by when they were added."""
    return document.name, document.session or "", document.digest or "", document.id


__all__ = ["DocumentWriter", "Evicted", "Forgotten", "SearchResult", "Store", "open_store"]
