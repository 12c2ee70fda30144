"""Reading documents into a long-term store: each by itself, once, and on from where an interruption left it.

A document is read from nothing and attends to nothing that is stored: what is kept of it depends on its own text alone,
and forgetting another document leaves it as it is.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..checkpoints.tensors import pack, unpack
from ..data.tokenizer import Tokenizer
from ..memory import DocumentWriter, Store, StoredDocument, open_store
from ..mixers import State
from ..model import LanguageModel, map_state, state_tensors
from .attach import Attached
from .schema import store_schema

CHUNK, EVERY = 2048, 16
"""Tokens of one call, and calls between two save points: an interruption loses the tokens since the last one."""

ROWS, LENGTH, SKIPPED, FOUND = 4, 96, 8, 2
"""Of `lookup_gain`: passages, their tokens, the first tokens that do not count, and the tokens that a head finds."""


def digest(data: bytes) -> str:
    """32 hexadecimal digits by which a store knows a file again."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_name(name: str) -> str:
    """The name of a document that is a file, PATH, or a record of one, PATH:NUMBER: absolute, links followed."""
    path, number = _parts(name)
    try:
        return os.path.realpath(path) + number
    except (OSError, ValueError):  # a name that no file can have
        return name


def same_file(name: str, other: str) -> bool:
    """Whether two names of documents are of one file, or of one record of it, however the path is spelt."""
    (path, number), (other_path, other_number) = _parts(name), _parts(other)
    if number != other_number:
        return False
    try:
        return os.path.samefile(path, other_path)
    except (OSError, ValueError):  # one of them is not there, or no more
        return file_name(name) == file_name(other)


def _parts(name: str) -> tuple[str, str]:
    """PATH, and ":NUMBER" or nothing."""
    path, colon, number = name.rpartition(":")
    return (name, "") if not (colon and number.isdecimal()) or os.path.lexists(name) else (path, colon + number)


class Names:
    """The names by which a store has files, however their paths were spelt when they were read into it."""

    def __init__(self, store: Store):
        self._names: dict[tuple[str | None, str | None], list[str]] = {}
        for document in store.documents():
            self._names.setdefault((document.digest, document.session), []).append(document.name)

    def __call__(self, name: str, data: bytes, session: str | None = None) -> str:
        """The name in the store of a file, or a record of one, with the text `data`; a new one gets its absolute path."""
        if not os.path.isfile(_parts(name)[0]):  # a pipe has no name of its own
            return name
        known = self._names.setdefault((digest(data), session), [])
        if (stored := next((other for other in known if same_file(other, name)), None)) is not None:
            return stored
        known.append(file_name(name))
        return known[-1]


def remember(
    attached: Attached,
    tokenizer: Tokenizer,
    name: str,
    data: bytes,
    *,
    cuts: Sequence[int] = (),
    session: str | None = None,
    report: Callable[[int], None] = lambda bytes: None,
) -> StoredDocument | None:
    """Read `data`, text, into the store of `attached` as the document `name`; None where it is there already.

    cuts: bytes, rising, that no token crosses: where a question ends, and its answer begins. A document that an
    interruption left incomplete is resumed at its last save point. `report` is called with the number of bytes that have
    been read since its last call, at first those that need not be read again.
    """
    mark, store = digest(data), attached.store
    known = store.find(name, mark, session)
    if known is not None and known.complete:
        return None
    edges = [0, *cuts, len(data)]
    tokens = torch.from_numpy(np.concatenate([tokenizer.encode(data[a:b]) for a, b in itertools.pairwise(edges)]))
    with store.document(name, session=session, digest=mark) as writing, torch.inference_mode():
        spans = Spans(tokenizer, tokens)
        reader = attached.write(writing, spans)
        state = resumed(reader, writing)
        at = 0 if state is None else int(state["position"][0])
        report(int(spans.edges[at]))
        writing.append(data[writing.document.text :])
        rest = tokens[at:].split(CHUNK) if at < len(tokens) else ()
        for count, part in enumerate(rest, 1):
            _, state = reader(part[None].to(attached.device), state)
            if count % EVERY == 0:
                writing.save(saved(reader, state))
            report(int(spans.edges[at + len(part)] - spans.edges[at]))
            at += len(part)
        if state is not None:
            reader.finish(state)
    return writing.document


def lookup_gain(model: LanguageModel, layers: Collection[int] | None = None) -> float:
    """What a store is worth to a model: bits a token by which it predicts passages better that are stored there.

    The median over the tokens of passages of random tokens. Each passage is read into a store by itself; then its end is
    read again without the store and with it: nothing but a look-up predicts random tokens. A model that was not trained
    to look things up (`training.lookup`) has about 0; one that was, several bits. layers: those that store, None for all
    that can.
    ValueError for a model or a layer without an eidetic memory.
    """
    device, random = model.device, torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (ROWS, LENGTH), generator=random).to(device)
    with open_store("ram:", store_schema(model, layers, "float32"), write=True) as store, torch.inference_mode():
        attached = Attached(model, store, k=FOUND)
        for row, passage in enumerate(tokens):
            with store.document(str(row)) as writing:
                reader = attached.write(writing)
                _, state = reader(passage[None])
                reader.finish(state)
        again = tokens[:, LENGTH // 4 :]

        def bits(reader: LanguageModel | Attached) -> Tensor:
            logits, _ = reader(again[:, :-1])
            logits = logits[:, SKIPPED:].flatten(0, 1).float()
            return cross_entropy(logits, again[:, SKIPPED + 1 :].flatten(), reduction="none") / math.log(2)

        return (bits(model) - bits(attached)).median().item()


class Talk:
    """A text that is written to the store while it is read and generated, and found again in it; called as a model is.

    It begins with nothing read. `finish` writes what is still in the windows. The document's sources are the documents
    whose tokens were found when it was computed, so that it is forgotten with them.
    """

    def __init__(self, attached: Attached, tokenizer: Tokenizer, writing: DocumentWriter):
        self.reader = attached.write(writing, self._spans, k=attached.k)
        self._writing = writing
        self._state: State | None = None
        text = tokenizer.stream()
        by_byte = tokenizer.is_bytes  # bytes that are not UTF-8 stay as they are
        self._text: Callable[[int], bytes] = (
            (lambda t: bytes([t]) if t < 256 else b"") if by_byte else (lambda t: text(t).encode())
        )
        self._edges = [0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def __call__(
        self, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `LanguageModel.forward`. ValueError for a state that is not where this text is."""
        read = 0 if state is None else int(state["position"][0])
        if read != len(self._edges) - 1:
            raise ValueError(
                f"expected the text to go on after its {len(self._edges) - 1} tokens, got a state of {read}"
            )
        for token in tokens[0].tolist():
            piece = self._text(token)
            self._writing.append(piece)
            self._edges.append(self._edges[-1] + len(piece))
        logits, self._state = self.reader(tokens, state, mask=mask)
        self._writing.add_sources(self.reader.used - {self._writing.id})
        return logits, self._state

    def finish(self) -> None:
        if self._state is not None:
            self.reader.finish(self._state)

    def _spans(self, position: Tensor) -> Tensor:
        return torch.tensor([[self._edges[p], self._edges[p + 1]] for p in position.tolist()])


class Spans:
    """The bytes of a text that its tokens (T,) stand for, by their positions: (M,) -> (M, 2)."""

    def __init__(self, tokenizer: Tokenizer, tokens: Tensor):
        if tokenizer.is_bytes:
            ends = torch.arange(1, len(tokens) + 1)
        else:
            step = tokenizer.stream()
            ends = torch.tensor([len(step(int(token)).encode()) for token in tokens], dtype=torch.int64).cumsum(0)
        self.edges = torch.nn.functional.pad(ends, (1, 0))

    def __call__(self, position: Tensor) -> Tensor:
        return torch.stack([self.edges[position], self.edges[position + 1]], 1)


def saved(reader: Attached, state: State) -> bytes:
    """All that is needed to go on from here: the model's state, and the reader's."""
    named = {f"model.{name}": tensor for name, tensor in state_tensors(state)}
    return pack(named | {f"reader.{name}": tensor for name, tensor in reader.saved().items()})


def resumed(reader: Attached, writing: DocumentWriter) -> State | None:
    """The model's state at the last save point of a document, None where there is none; the reader's is restored."""
    if not writing.state:
        return None
    tensors = unpack(writing.state)
    reader.restore({name.removeprefix("reader."): t for name, t in tensors.items() if name.startswith("reader.")})
    like = reader.model.init_state(1, 0, "meta")
    named = iter(f"model.{name}" for name, _ in state_tensors(like))
    device = reader.model.device
    return map_state(lambda _: tensors[next(named)].to(device), like)


__all__ = ["Names", "Spans", "Talk", "digest", "file_name", "lookup_gain", "remember", "resumed", "same_file", "saved"]
