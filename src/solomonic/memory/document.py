"""Writing a document into a store: its tokens, its text, and save points from which it is resumed."""

from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType

import torch

from .contents import StoreContents
from .schema import PIECE_BYTES, SavePoint, StoredDocument, StoredTokens, TextPiece, entry_id


class DocumentWriter:
    """A document being written: a context; when it is left, the document is complete and acknowledged.

    After an exception the document stays, incomplete, at its last save point, to be resumed by `Store.document` with the
    same name, session and digest; without a save point nothing of it stays.

    state: the argument of the last `save`, b"" for a new document. resumed: whether anything of it was there.
    """

    def __init__(self, contents: StoreContents, document: StoredDocument, resumed: bool):
        self.document = document
        self.state = b""
        self._contents = contents
        self._dirty: set[tuple[int, int]] = set()  # (layer, entry) written since the last save point
        self._last: dict[int, tuple[int, StoredTokens]] = {}  # layer: its last entry, which may grow
        self._pieces: list[TextPiece] = []  # not saved yet; the last one may grow
        self.resumed = self._has_save_point = resumed
        if resumed:
            engine = contents.engine
            self.state = engine.state(document.id)
            for schema in contents.schema.layers:
                if last := engine.last_entry(schema.layer, document.id):
                    self._last[schema.layer] = last
            if document.text:
                self._pieces = engine.pieces(document.id, document.text - 1, document.text)

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        contents = self._contents
        if kind is not None:
            self.abandon()
        if self.id not in contents.open_documents:
            return
        try:
            self._save(b"", complete=True)
            contents.drain()
            contents.writing_failed()
        except OSError:
            self.abandon()
            raise
        contents.open_documents.pop(self.id, None)

    @property
    def id(self) -> int:
        return self.document.id

    @torch.inference_mode(False)
    def write(self, layer: int, tokens: StoredTokens, clock: float | None = None) -> None:
        """Store tokens that come after all before. This process finds them at once; the next `save` keeps them.

        clock: the layer's own clock now, where it has run past the last token's. Never waits.
        """
        contents, schema = self._contents, self._contents.schema[layer]
        self._require_open()
        tokens = tokens.checked(schema, contents.schema.dtype)
        if contents.writing_failed():
            return
        with contents.lock:
            last, tail = self._last.get(layer, (-1, None))
            position = -1 if tail is None else int(tail.position[-1])
            if len(tokens) and tokens.position[0] <= position:
                raise ValueError(
                    f"position of tokens: expected more than {position}, the last one written, got {tokens.position[0]}"
                )
            elapsed = max([self.document.elapsed(layer), *tokens.clock[-1:].tolist(), clock or 0.0])
            self.document = replace(
                self.document,
                tokens=self.document.tokens + len(tokens),
                clock=tuple(sorted({**dict(self.document.clock), layer: elapsed}.items())),
            )
            contents.catalog.put(self.document)
            if not len(tokens):
                return
            entries = {}
            for block, part in tokens.blocks(schema.block):
                entry = entry_id(self.id, block)
                entries[entry] = tail.join(part) if tail is not None and entry == last else part
            contents.add(self.id, layer, tokens, entries)
            self._dirty |= {(layer, entry) for entry in entries}
            self._last[layer] = entry, entries[entry]

    def append(self, text: bytes) -> None:
        """The next bytes of the document's text."""
        self._require_open()
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
        """A save point: all that was written so far and `state`, kept together by the writer thread. See `Store.flush`."""
        self._require_open()
        self._save(state, complete=False)

    def abandon(self) -> None:
        """Stop here: the document stays at its last save point; without one it is dropped."""
        contents = self._contents
        with contents.lock:
            if self.id in contents.open_documents:
                contents.drop({self.id})

    def pieces(self, start: int, end: int) -> list[TextPiece]:
        """The pieces of text that overlap the bytes [start, end), in order, saved or not."""
        contents = self._contents
        contents.drain()
        saved = contents.engine.pieces(self.id, start, end) if self._has_save_point else []
        pieces = {piece.start: piece for piece in saved} | {
            p.start: p for p in self._pieces if p.start < end and p.start + len(p.text) > start
        }
        return [pieces[at] for at in sorted(pieces)]

    def _require_open(self) -> None:
        if self.id not in self._contents.open_documents:
            raise ValueError(f"document {self.document.name!r}: it has been left; nothing more can be written")

    def _save(self, state: bytes, complete: bool) -> None:
        contents = self._contents
        if contents.writing_failed():
            return
        with contents.lock:
            self.document = replace(self.document, complete=complete)
            contents.catalog.put(self.document)
            entries = contents.unsaved(sorted(self._dirty))
            self._dirty.clear()
            self.state, self._has_save_point = state, True
            point = SavePoint(self.document, entries, tuple(self._pieces), state)
            del self._pieces[:-1]
        contents.put(point)


__all__ = ["DocumentWriter"]
