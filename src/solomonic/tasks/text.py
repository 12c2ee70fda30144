r"""Text as bytes: any file or folder, scored in bits a byte.

One sample (length=12) of a document that begins `def f(x):\n    return x`; `⏎` is a newline, `␣` a space:

    tokens    d e f ␣ f ( x ) : ⏎ ␣ ␣
    targets   e f ␣ f ( x ) : ⏎ ␣ ␣ ␣

The target of every position is the next byte; V = 256; all positions are scored, `score` is -log2 p(target).

Documents. Each file of the folder is one, in the order of its path; hidden files and folders (their name starts
with a dot), empty files and binary ones (they hold a NUL byte) are skipped. JSON, parquet and tables with a column `text`
hold a document a record (`corpus`). A document of `length` bytes or fewer
is left out. Of documents with the same bytes only the first stays. A single document, a file or a folder with
one, is cut into pieces of about 16 KiB at line ends (smaller where that would make fewer than ten), so that there
are documents to hold out; then a training piece and a held-out one may be neighbours in the file.
At most 256 MiB of text are kept, in the order of the paths; what comes later is left out, with a warning.

Split. A document is held out when a hash of its path relative to the folder (of its index, for pieces) falls under
`held_out`; it is the same on every machine, and adding files moves no other. If a side would stay empty, the
document nearest to the border moves over. Training never sees a byte of a held-out document.

Training rows are windows of length + 1 bytes, every window of every training document being equally likely.
Test rows are the first T + 1 bytes of blocks of held-out documents. A block has as many bytes as the largest of
`lengths`; those of a document stand end to end from its beginning, and a document with less than one, plus a byte,
has none. So the blocks are the same at every length, and a longer row only adds context. Where no document holds
one, blocks have T bytes. Blocks are drawn without replacement, the first of every document, then the second ones, and so on;
when more are asked for, again in the same order.

With data=None the text is the Python library's own source on this machine (`*.py` under
`sysconfig.get_paths()["stdlib"]`, without site-packages, tests, IDLE and the encodings' tables, which are near
copies of one another). It is there without a download, but differs between versions of Python: compare figures
within one version only.
"""

import hashlib
import sysconfig
import warnings
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.corpus import files as every_file
from ..data.corpus import library, of_file
from ..data.records import FORMS
from . import _bits, _check, _draw
from .base import Batch, Task

PIECE = 16 * 1024  # bytes
LARGEST = 256 * 1024**2  # bytes


class Text(Task):
    """Options:

    data      a file or a folder; None: the Python library's sources
    length    training length, bytes
    lengths   test lengths, bytes; None: 1, 2, 4 and 8 times `length`, as far as held-out documents reach
    held_out  share of the documents that is held out, in (0, 1)

    The text is read here, once. ValueError when there is none, or no two documents of length + 1 bytes.
    """

    name = "text"
    summary = "predict the next byte of any file or folder (default: Python's own library)"
    metric = "bits_per_byte"
    best = 0.0
    by_position = True
    vocab_size = 256

    def __init__(
        self,
        *,
        data: str | Path | None = None,
        length: int = 256,
        lengths: Iterable[int] | None = None,
        held_out: float = 0.1,
    ):
        self.length = _check.whole("length", length, 1, "a row has one byte or more")
        asked = None if lengths is None else _check.increasing("lengths", lengths)
        held_out = _check.share("held_out", held_out, "it is the share of documents to test on", zero=False)
        root, documents = _documents(data)

        documents = _without_repeats(documents)
        longest = max((len(text) for _, text in documents), default=0)
        if not documents:
            raise ValueError(f"data: expected text, got {root}, which holds none; pass a file or folder with text")
        documents = [(path, text) for path, text in documents if len(text) > self.length]
        if len(documents) == 1:
            documents = _without_repeats(_pieces(documents[0][1], self.length, max(asked or (self.length,))))
            documents = [(path, text) for path, text in documents if len(text) > self.length]
        if len(documents) < 2:
            raise ValueError(
                f"data: expected two different documents of {self.length + 1} bytes or more, one to train on and one "
                f"to test on; got {root} with {longest} bytes in its longest; pass more text, or a smaller length"
            )
        train, test = _split(documents, held_out)
        self._train, self._test = _Corpus(train), _Corpus(test)

        reach = int(self._test.sizes.max()) - 1
        if asked is None:
            asked = tuple(m * self.length for m in (1, 2, 4, 8) if m * self.length <= reach)
        self.lengths = tuple(self._possible("lengths", length) for length in asked)

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        windows = (self._train.sizes - self.length).cumsum()
        drawn = rng.integers(windows[-1], size=_check.batch_size(size))
        document = windows.searchsorted(drawn, side="right")
        before = np.where(document > 0, windows[document - 1], 0)
        return self._batch(self._train, self._train.starts[document] + drawn - before, self.length)

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        length, size = self._possible("length", length), _check.batch_size(size)
        block, counts = self._blocks(length)
        document = np.repeat(np.arange(len(counts)), counts)
        rank = np.arange(len(document)) - np.repeat(counts.cumsum() - counts, counts)
        order = rng.permutation(len(document))
        drawn = np.resize(order[rank[order].argsort(kind="stable")], size)
        batch = self._batch(self._test, self._test.starts[document[drawn]] + block * rank[drawn], length)
        return replace(batch, documents=torch.from_numpy(document[drawn]))

    def held_out_rows(self, length: int) -> int:
        return int(self._blocks(self._possible("length", length))[1].sum())

    def document(self, index: int) -> str:
        """The path of a held-out document, relative to `data`; of a single document's pieces, the number."""
        return self._test.names[index]

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: -log2 p(target), bits; NaN where IGNORE."""
        return _bits.code_length(logits, targets)

    def label(self, token: int) -> str:
        shown = {ord("\n"): "⏎", ord(" "): "␣", ord("\t"): "⇥"}
        return shown.get(token) or (chr(token) if 33 <= token < 127 else f"\\x{token:02x}")

    def _blocks(self, length: int) -> tuple[int, np.ndarray]:
        """Bytes of a block, and how many blocks each held-out document has."""
        block = max(length, *self.lengths)
        if block >= self._test.sizes.max():
            block = length
        return block, (self._test.sizes - 1) // block

    def _possible(self, name: str, length: int) -> int:
        reach = int(self._test.sizes.max()) - 1
        if _check.whole(name, length, 1, "a row has one byte or more") > reach:
            raise ValueError(
                f"{name}: expected at most {reach}, the longest held-out document less one byte, got {length}; "
                "take a smaller length, or longer documents"
            )
        return int(length)

    def _batch(self, corpus: "_Corpus", starts: np.ndarray, length: int) -> Batch:
        rows = corpus.bytes[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        return _draw.batch(rows[:, :-1], rows[:, 1:])


class _Corpus:
    """Documents end to end: `bytes` uint8 (N,), and each document's `starts` and `sizes`, int64 (D,), and `names`."""

    def __init__(self, documents: list[tuple[str, bytes]]):
        self.names = [name for name, _ in documents]
        self.bytes = np.frombuffer(b"".join(text for _, text in documents), dtype=np.uint8)
        self.sizes = np.array([len(text) for _, text in documents])
        self.starts = self.sizes.cumsum() - self.sizes


def _documents(data: str | Path | None) -> tuple[Path, list[tuple[str, bytes]]]:
    """Where the text is, and its documents: (path relative to it, bytes), in the order of the paths."""
    if data is not None and not isinstance(data, (str, Path)):
        raise ValueError(f"data: expected the path of a file or folder, got {data!r}; pass one")
    root = Path(sysconfig.get_paths()["stdlib"] if data is None else data)
    if not root.exists():
        raise ValueError(f"data: expected a file or folder, got {root}, which does not exist; pass another path")
    paths = library() if data is None else every_file(root) if root.is_dir() else [root]
    files = [(path.relative_to(root).as_posix() if root.is_dir() else root.name, path) for path in paths]

    documents: list[tuple[str, bytes]] = []
    left = LARGEST
    for name, path in files:
        for part, text in read_documents(name, path, left, named=path == root):
            if len(text) > left:
                warnings.warn(
                    f"data: {root} holds more than {LARGEST >> 20} MiB of text; {part} is cut and what follows is left "
                    "out",
                    stacklevel=3,
                )
                return root, documents + ([(part, text[:left])] if left else [])
            documents.append((part, text))
            left -= len(text)
    return root, documents


def read_documents(name: str, path: Path, most: int, named: bool) -> Iterator[tuple[str, bytes]]:
    """The documents of a file, the first bytes of a text that has more than `most`."""
    if path.suffix.lower() in FORMS:
        for document in of_file(path, named=named):
            yield f"{name}:{document.start}" if document.start else name, document.text
        return
    with path.open("rb") as file:
        text = file.read(8192)
        if text and b"\0" not in text:
            text += file.read(max(most + 1 - len(text), 0))
    text = text.removeprefix(BOM_UTF8)
    if text and b"\0" not in text:
        yield name, text


def _without_repeats(documents: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    first: dict[bytes, tuple[str, bytes]] = {}
    for path, text in documents:
        first.setdefault(hashlib.blake2b(text).digest(), (path, text))
    return list(first.values())


def _pieces(text: bytes, length: int, longest: int) -> list[tuple[str, bytes]]:
    """One document as n, cut near each of n - 1 even places: after the next line end, or there if that is too far.

    A cut moves so little that every piece keeps length + 1 bytes, where `text` has that many for two.
    """
    n = max(len(text) // max(PIECE, 2 * longest), min(10, len(text) // (2 * length + 2)), 2)
    near = min(len(text) // (2 * n), max(len(text) // n - length - 1, 0))
    cuts = [0]
    for i in range(1, n):
        place = len(text) * i // n
        line_end = text.find(b"\n", place - 1, place + near)
        cuts.append(place if line_end < 0 else line_end + 1)
    return [(str(i), text[a:b]) for i, (a, b) in enumerate(zip(cuts, cuts[1:] + [len(text)]))]


def _split(documents: list[tuple[str, bytes]], held_out: float) -> tuple[list, list]:
    """Training and held-out documents, at least one of each."""
    place = {path: _place(path) for path, _ in documents}
    ranked = sorted(place, key=lambda path: place[path])
    border = sum(value < held_out for value in place.values())
    tested = set(ranked[: min(max(border, 1), len(ranked) - 1)])
    return [d for d in documents if d[0] not in tested], [d for d in documents if d[0] in tested]


def _place(path: str) -> float:
    """A number in [0, 1) that depends on the path alone."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
