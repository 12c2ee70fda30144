"""A long-term store: keys and values of documents that a model has read, searched by its layers' queries."""

import time as clocks
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .contents import StoreContents
from .document import DocumentWriter
from .engines import Engine, Unfinished, open_engine
from .results import Entries, Evicted, Forgotten, ReadTokens, SearchResult
from .schema import (
    DTYPES,
    MOST_DOCUMENTS,
    StoredDocument,
    StoredTokens,
    StoreSchema,
    entry_id,
    entry_of,
    log_admission,
)
from .search.exact import ExactIndex, store_clock
from .search.inverted_lists import InvertedListsIndex

ON_ERROR = ("raise", "continue")
GAP = "\N{REPLACEMENT CHARACTER}".encode()


def open_store(
    uri: str,
    schema: StoreSchema | None = None,
    write: bool = False,
    on_error: str = "raise",
    backlog: int = 256 << 20,
    approximate: bool = False,
) -> "Store":
    """The store at `uri`: `ram:`, a folder or `file:FOLDER`, `milvus:...`.

    schema: of the model; None: the store's own. write: a store that is not there is made; one writer at a time.
    on_error: what happens when the place takes no more (a full disk) or cannot be reached (a server that went away):
    "raise" an OSError at the next call that writes or searches, or "continue" with a warning, writing nothing more, and
    for a minute finding nothing; `Store.flush` raises either way.
    backlog: bytes that may wait to be written before `save` waits for the disk.
    approximate: search misses some of the top k, and takes a fraction of the time in a large store
    (`search/inverted_lists.py`); Milvus, which has indexes of its own, stays exact.
    ValueError for a schema of another model or shape, or a place that is something else; OSError if it cannot be had.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error of a store: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
    return Store(open_engine(uri, schema, write), write, on_error, backlog, approximate)


class Store:
    """An open store. Laws, tested on every engine:

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
        self.writable = write
        index_type = InvertedListsIndex if approximate else ExactIndex
        self.contents = StoreContents(engine, index_type, write, on_error, backlog)
        self._blank = {
            schema.layer: 0 * StoredTokens.blank(schema, self.schema.dtype, 1).packed[0]
            for schema in self.schema.layers
        }

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Writing

    @torch.inference_mode(False)  # what the store keeps outlives the caller's mode
    def document(
        self,
        name: str,
        session: str | None = None,
        time: float | None = None,
        digest: str | None = None,
        sources: Iterable[int] = (),
    ) -> DocumentWriter:
        """A context to write a document in. An incomplete document of the same name, session and digest is resumed.

        time: unix seconds, None: now. ValueError where a complete one with that digest is there: see `find`.
        """
        contents = self.contents
        contents.require_writable()
        if not isinstance(name, str) or not name:
            raise ValueError(f"name of a document: expected text, got {name!r}")
        for text in (name, session or ""):
            try:
                text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise ValueError(f"name of a document, or session: expected text, got {text!r}") from None
        with contents.lock:
            being_written = [writer.document for writer in contents.open_documents.values()]
            if (name, digest, session) in [(d.name, d.digest, d.session) for d in being_written]:
                raise ValueError(f"document {name!r}: it is being written already")
            document = self.find(name, digest, session)
            if document is not None and document.complete and digest is not None:
                raise ValueError(f"document {name!r}: it is in the store already, with the same digest")
            if document is not None and not document.complete and not contents.engine.is_intact(document):
                contents.engine.warn_of_damage(
                    ("resumed", document.id), f"document {name!r}: what was saved of it is damaged; it is begun anew"
                )
                contents.engine.remove({document.id})
                document = None
            resumed = document is not None and not document.complete
            if document is None or not resumed:
                if contents.last_document >= MOST_DOCUMENTS:
                    raise ValueError(f"a store holds {MOST_DOCUMENTS} documents at most")
                contents.last_document += 1
                when = clocks.time() if time is None else float(time)
                document = StoredDocument(contents.last_document, name, session, when, digest)
            document = replace(document, sources=tuple(sorted({*document.sources, *sources})))
            writer = DocumentWriter(contents, document, resumed)
            contents.open_document(writer)
            return writer

    def find(self, name: str, digest: str | None = None, session: str | None = None) -> StoredDocument | None:
        """The newest document of that name, digest and session."""
        same = [d for d in self.documents() if (d.name, d.digest, d.session) == (name, digest, session)]
        return same[-1] if same else None

    def flush(self) -> None:
        """Returns when all save points so far are kept; OSError if they could not be."""
        self.contents.drain()
        writer = self.contents.writer
        if writer is not None and writer.error:
            raise writer.error

    def close(self) -> None:
        """Keep what was saved, and close the engine. A document that is being written stays at its last save point."""
        self.contents.close()

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

        of equal ones those first whose documents' names come first, then those of smaller positions. query: (N, G, D),
        scaled. only: ids of documents, None for all.
        """
        schema, contents = self.schema[layer], self.contents
        if query.dim() != 3 or query.shape[1:] != (schema.heads, schema.dim):
            raise ValueError(f"query: expected the shape (N, {schema.heads}, {schema.dim}), got {tuple(query.shape)}")
        if k < 1:
            raise ValueError(f"k: expected a whole number >= 1, got {k}")
        device, query = query.device, query.detach().to("cpu", torch.float32)
        with contents.lock:
            result = contents.unless_unreachable(lambda: contents.search(layer, query, k, rate, only, now))
        if result is None:
            none = torch.full((len(query), schema.heads, k), -1)
            result = none, torch.full(none.shape, -torch.inf)
        token_id, logit = result
        return SearchResult(token_id.to(device), schema.block, logit.to(device))

    @torch.inference_mode(False)
    def fetch(self, layer: int, entries: Tensor | list[int]) -> Entries:
        """The tokens of entries, in their order: none of -1, of one that was forgotten meanwhile, or of a damaged one."""
        schema, contents = self.schema[layer], self.contents
        device = entries.device if isinstance(entries, Tensor) else None
        ids = entries.tolist() if isinstance(entries, Tensor) else list(entries)
        with contents.lock:
            contents.refresh()
            here, clock_starts = contents.entries(layer, ids), contents.catalog.clock_starts(layer)
        none = StoredTokens.blank(schema, self.schema.dtype)
        parts = [*(here.get(entry, none) for entry in ids), none]  # one more, for where there are none

        def padded(name: str, filler: float = 0) -> Tensor:
            rows = [getattr(tokens, name) for tokens in parts]
            return pad_sequence(rows, batch_first=True, padding_value=filler)[:-1]

        position, clock = padded("position", -1), padded("clock")
        real = position >= 0
        start = torch.tensor([clock_starts.get(entry >> 32, 0.0) for entry in ids], dtype=torch.float64)[:, None]
        clock = (start + clock.double()).float().masked_fill(~real, 0)
        document = torch.tensor([entry >> 32 if entry in here else -1 for entry in ids], dtype=torch.int64)
        key, value, score, span = padded("key").float(), padded("value").float(), padded("score"), padded("span")
        tensors = key, value, score, clock, position, real, document, span
        return Entries(*(x.to(device) for x in tensors))

    @torch.inference_mode(False)
    def read(self, layer: int, token_ids: Sequence[int]) -> ReadTokens:
        """The tokens `token_ids`, in their order, as they were at the last search."""
        schema, contents = self.schema[layer], self.contents
        entries = [entry_id(token_id >> 32, (token_id & 0xFFFFFFFF) // schema.block) for token_id in token_ids]
        with contents.lock:
            here, clock_starts = contents.entries(layer, set(entries)), contents.catalog.clock_starts(layer)
        packed = [self._blank[layer]] if not token_ids else []
        for token_id, entry in zip(token_ids, entries, strict=True):
            row = here[entry].row(token_id & 0xFFFFFFFF) if entry in here else None
            packed.append(self._blank[layer] if row is None else here[entry].packed[row])
        starts = [clock_starts.get(token_id >> 32, 0.0) for token_id in token_ids]
        return ReadTokens(torch.stack(packed)[: len(token_ids)], starts, schema)

    def in_order(self, token_ids: Iterable[int]) -> list[int]:
        """Token ids by the names of their documents, then by position."""
        return self.contents.catalog.in_order(token_ids)

    def documents(self) -> list[StoredDocument]:
        """All documents that have been saved, in the order in which they were begun."""
        self.contents.drain()
        return self.contents.engine.documents()

    def damaged(self) -> dict[int, str]:
        """The ids of documents that `documents` leaves out, as their own rows are damaged, and the names they still have."""
        self.documents()
        return self.contents.engine.damaged()

    def clock(self, layer: int) -> float:
        """How far the layer's clock has run, over all documents: `now` for the next document."""
        with self.contents.lock:
            self.contents.refresh()
            return self.contents.catalog.clock(layer)

    def passage(self, document: int, start: int, end: int) -> tuple[str, int]:
        """The bytes [start, end) of a document's text as text, and the number, from 1, of the line they begin in.

        A part that is damaged is one U+FFFD, and a warning.
        """
        contents = self.contents
        with contents.lock:
            if document in contents.open_documents:
                pieces = contents.open_documents[document].pieces(start, end)
            else:
                contents.drain()
                pieces = contents.engine.pieces(document, start, end)
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

    # Removing, and looking after the files

    def forget(
        self,
        documents: Iterable[int] | None = None,
        before: float | None = None,
        after: float | None = None,
        session: str | None = None,
        dry_run: bool = False,
    ) -> Forgotten:
        """Remove the documents that meet every condition, and every one whose keys were computed from theirs.

        documents: ids, of damaged ones too. before, after: unix seconds, time < before, time >= after. dry_run: remove
        nothing. ValueError without a condition, for an id that the store does not have, or a document being written.
        """
        if documents is None and before is None and after is None and session is None:
            raise ValueError("forget: expected documents, a time or a session, got none of them")
        wanted, contents = None if documents is None else set(documents), self.contents
        if not dry_run:
            contents.require_writable()
        with contents.lock:
            known, damaged = self.documents(), contents.engine.damaged()
            for number in sorted((wanted or set()) - {document.id for document in known}):
                if not contents.engine.has_remains(number):
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
            gone = _with_followers({document.id for document in asked}, known)
            followed = [d for d in known if d.id in gone and d not in asked]
            unfinished = None
            if not dry_run and gone:
                if busy := gone & contents.open_documents.keys():
                    raise ValueError(f"document {min(busy)}: it is being written; it cannot be forgotten now")
                try:
                    contents.engine.remove(gone)
                except Unfinished as error:
                    unfinished = str(error)
                contents.drop(gone)
            unknown = tuple(sorted(damaged.keys() - gone)) if gone else ()
            return Forgotten(tuple(asked), tuple(followed), unknown, unfinished)

    @torch.inference_mode(False)
    def evict(self, budget: int, rate: float = 0.0) -> Evicted:
        """Remove whole entries, those of least weight first, until the others take `budget` bytes at most.

        weight = max over its tokens of logsigmoid(score) * admit + rate * (clock - now), now the layer's clock; of
        equal weights the older entry goes. Documents that are being written are left alone.
        """
        contents = self.contents
        contents.require_writable()
        if budget < 0:
            raise ValueError(f"budget of a store: expected bytes >= 0, got {budget}")
        with contents.lock:
            self.flush()
            documents = contents.catalog.documents.keys() - contents.open_documents.keys()
            entries = []
            for schema in self.schema.layers:
                clock_starts, now = contents.catalog.clock_starts(schema.layer), self.clock(schema.layer)
                token_bytes = 2 * schema.heads * schema.dim * DTYPES[self.schema.dtype].itemsize + 32
                weights: dict[int, tuple[float, int]] = {}
                for keys in contents.engine.scan(schema.layer, documents):
                    weight = rate * (store_clock(keys.token_id, keys.clock, clock_starts) - now)
                    if schema.admit:
                        weight = weight + log_admission(keys.score).double()
                    for entry, of_token in zip(entry_of(keys.token_id, schema.block).tolist(), weight.tolist()):
                        most, count = weights.get(entry, (of_token, 0))
                        weights[entry] = max(most, of_token), count + 1
                entries += [(w, e, schema.layer, count, count * token_bytes) for e, (w, count) in weights.items()]
            size = sum(entry[-1] for entry in entries)
            evicted: dict[int, set[int]] = {}
            tokens = taken = 0
            for _, entry, layer, count, nbytes in sorted(entries):
                if size - taken <= budget:
                    break
                evicted.setdefault(layer, set()).add(entry)
                tokens, taken = tokens + count, taken + nbytes
            if evicted:
                contents.evict(evicted)
            return Evicted(sum(map(len, evicted.values())), tokens, taken)

    def stats(self) -> dict[str, Any]:
        """Numbers: documents, incomplete, tokens (stored, over all layers), text and bytes (of documents), size (of the store),
        clock (of each layer), failed (why nothing more is written, or None), lost (save points since then)."""
        documents, writer = self.documents(), self.contents.writer
        return {
            "documents": len(documents),
            "incomplete": sum(not document.complete for document in documents),
            "tokens": sum(document.tokens for document in documents),
            "text": sum(document.text for document in documents),
            "bytes": sum(document.bytes for document in documents),
            "size": self.contents.engine.size(),
            "clock": {schema.layer: self.clock(schema.layer) for schema in self.schema.layers},
            "failed": str(writer.error) if writer is not None and writer.error else None,
            "lost": writer.lost if writer is not None else 0,
        }

    def compact(self) -> None:
        """Give the room of what was removed back to the disk."""
        self.contents.require_writable()
        self.flush()
        self.contents.engine.compact()

    def verify(self) -> list[str]:
        """Read everything. A line for all that is damaged; none for a sound store."""
        self.contents.drain()
        return self.contents.engine.verify()


def _with_followers(documents: set[int], known: Iterable[StoredDocument]) -> set[int]:
    """`documents`, and those that were computed from them, directly or through others."""
    known, grown = list(known), True
    while grown:
        more = {d.id for d in known if d.id not in documents and documents & {*d.sources}}
        documents, grown = documents | more, bool(more)
    return documents


__all__ = ["Store", "open_store"]
