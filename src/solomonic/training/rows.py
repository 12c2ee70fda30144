"""Documents as tokens on disk, and the rows that each step of a run reads of them.

Each document is preceded by the token that ends one, so that a model knows how texts begin and learns where they end.
What a step reads is a function of the seed and the step alone: a run that goes on needs no more than its step.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._utils import jsontext
from .._utils.files import replacing, write
from ..data.corpus import Document
from ..data.tokenizer import Tokenizer

LONG = 64 * 1024
"""Bytes from which the end of a document is held out; of shorter ones all or nothing is, by a hash."""


@dataclass(frozen=True)
class TokenizedText:
    """`values` (N,), the token ids of all documents, each after an end token; `starts` (D,) int64, the places of these end
    tokens; `size`, bytes of text.
    """

    values: np.ndarray
    starts: np.ndarray
    size: int

    def documents(self) -> list[np.ndarray]:
        """The tokens of each document, without the end before it."""
        return [self.values[a + 1 : b] for a, b in zip(self.starts, [*self.starts[1:], len(self.values)])]


@dataclass(frozen=True)
class Data:
    train: TokenizedText
    held_out: TokenizedText
    digest: str  # of every token


def prepare(
    folder: Path,
    documents: Callable[[], Iterable[Document]],
    held_out: Callable[[], Iterable[Document]] | None,
    share: float,
    tokenizer: Tokenizer,
    origin: Any = None,
) -> None:
    """Write the tokens to `folder`, for `read`. `origin`, plain values, identifies the text that they are of.

    held_out: the documents to score; None: `share` of `documents` is held out.

    Of a document of `LONG` bytes or more the last `share` is held out; of shorter ones those whose hash falls under
    it, wherever they lie, so that copies stay on one side; of every document the end, where a side would be empty.
    ValueError for a tokenizer without an end.
    """
    if tokenizer.end is None:
        raise ValueError(
            "expected a tokenizer with a token that ends a document, got one that has none, nor room for one"
        )
    for long in (LONG, 0):
        index: dict[str, list[tuple[int, int]]] = {"train": [], "held_out": []}
        digest = hashlib.blake2b(tokenizer.to_json().encode(), digest_size=16)
        contents = {side: hashlib.blake2b(digest_size=16) for side in index}
        with (
            replacing(folder / "train.tokens") as train,
            replacing(folder / "held_out.tokens") as held,
            train.open("wb") as a,
            held.open("wb") as b,
        ):
            files = {"train": a, "held_out": b}

            def put(side: str, text: bytes) -> None:
                values: np.ndarray = np.concatenate([[tokenizer.end], tokenizer.encode(text)]).astype(_dtype(tokenizer))
                files[side].write(values.tobytes())
                digest.update(values.tobytes())
                contents[side].update(values.tobytes())
                index[side].append((len(values), len(text)))

            for document in documents():
                for side, text in _sides(document, 0.0 if held_out else share, long):
                    put(side, text)
            for document in held_out() if held_out else ():
                put("held_out", document.text)
        if all(index.values()) or held_out or not share:
            break
    if not index["train"]:
        for side in index:  # a folder that holds no run is not left behind
            (folder / f"{side}.tokens").unlink()
        raise ValueError("expected text to train on, got none: the files named are empty or binary")
    content = {"origin": origin, "digest": digest.hexdigest(), "dtype": _dtype(tokenizer).__name__, **index}
    content["contents"] = {side: side_digest.hexdigest() for side, side_digest in contents.items()}
    write(folder / "tokens.json", json.dumps(content | {"seal": jsontext.digest(content)}))


def origin(folder: Path) -> Any:
    """The `origin` that `prepare` wrote to `folder`; None where there is none, or, with a warning, where tokens are damaged.

    Every token is read: `read` need not do so again.
    """
    if not (folder / "tokens.json").exists():
        return None
    try:
        read(folder)
        return _content(folder)["origin"]
    except (ValueError, OSError) as error:
        warnings.warn(f"{error}; they are made again of the text", stacklevel=2)
        return None


def read(folder: Path, check: bool = True) -> Data:
    """The tokens that `prepare` wrote, mapped from the disk. ValueError where they are damaged.

    Without `check` the contents are not compared with their digest: `prepare` or `origin` has just done so.
    """
    content = _content(folder)

    def side_of(side: str) -> TokenizedText:
        sizes = np.array(content[side], dtype=np.int64).reshape(-1, 2)
        path = folder / f"{side}.tokens"
        dtype = np.dtype(content["dtype"])
        if check and _digest(path) != content["contents"][side]:
            raise ValueError(f"{path}: expected the tokens that were written, got others: the file is damaged")
        values: np.ndarray = np.memmap(path, dtype, "r") if len(sizes) else np.zeros(0, dtype)
        return TokenizedText(values, sizes[:, 0].cumsum() - sizes[:, 0], int(sizes[:, 1].sum()))

    return Data(side_of("train"), side_of("held_out"), content["digest"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _content(folder: Path) -> dict[str, Any]:
    path = folder / "tokens.json"
    content = jsontext.read(path, dict)
    if content.pop("seal", None) != jsontext.digest(content):
        raise ValueError(f"{path}: expected what the tokens are of, got a file that is damaged")
    return content


LANES = 16
"""Places that rows with `carry` read in by turns, at most."""


class RowBatch(NamedTuple):
    """tokens, targets, segments (B, T) int64; may_see[i, j] (B, B) bool: whether row i finds tokens of row j, None for none."""

    tokens: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    may_see: np.ndarray | None = None


class Rows:
    """The batch of each step: B rows of T tokens, and the tokens after each of them.

    Documents follow one another in an order that every epoch draws anew. Without `carry` the rows are cut from it and
    shuffled. With `carry`, the steps take turns in `lanes`: row b of a step goes on where row b of the step before
    in its lane ended, for `carry` steps of the lane, so that a state can be carried; then it begins at another position.
    Steps that follow one another so read in different places, as shuffled rows do: in one lane they do not, and what is
    learnt is worse, with a state and without (docs/log.md). The first step of a lane in an epoch begins anew. Segments,
    which grow along a row, number the documents and their parts after such a jump: a state is carried no further.
    """

    def __init__(self, tokens: TokenizedText, length: int, batch_size: int, seed: int, carry: int = 0):
        self.tokens, self.length, self.batch_size, self.seed, self.carry = tokens, length, batch_size, seed, carry
        count = len(tokens.values)
        self.epoch = (count - length) // (batch_size * length)  # steps
        if self.epoch < 1:
            raise ValueError(
                f"expected text of {(batch_size + 1) * length:,} tokens or more, for {batch_size:,} rows of {length:,}, "
                f"got {count:,}; pass more text, or a smaller length or batch"
            )
        self.lanes = max(1, min(LANES, self.epoch // carry)) if carry else 1
        self.sizes = np.diff(np.append(tokens.starts, count))
        self._order = lru_cache(2)(self._draw)

    def lane(self, step: int) -> int:
        """Which of the `lanes` the step is of; each has a state of its own."""
        return step % self.epoch % self.lanes

    def begins(self, step: int) -> bool:
        """Whether no row of this step goes on from the step before in its lane."""
        return not self.carry or step % self.epoch < self.lanes

    def batch(self, step: int, rows: slice = slice(None)) -> RowBatch:
        """The rows `rows` of the batch of step 0, 1, ..."""
        documents, offsets, shift, row, stretch = self._order(step // self.epoch)
        step %= self.epoch
        numbers = np.arange(self.batch_size)[rows]
        if self.carry:
            (steps, longer), (at, lane) = divmod(self.epoch, self.lanes), divmod(step, self.lanes)
            index = numbers * self.epoch + lane * steps + min(lane, longer) + at
        else:
            index = step * self.batch_size + numbers
        position = shift + row[index, None] * self.length + np.arange(self.length + 1)
        document = offsets.searchsorted(position, side="right") - 1
        tokens = self.tokens.values[self.tokens.starts[documents[document]] + position - offsets[document]].astype(
            np.int64
        )
        segment = stretch[index, None] * len(documents) + document
        return RowBatch(tokens[:, :-1], tokens[:, 1:], segment[:, :-1])

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, np.ndarray]:
        """Of an epoch: the order of the documents, the start of each in it, the offset of the rows, the order of the rows, and
        the number of jumps before each row.
        """
        rng = np.random.default_rng([self.seed, epoch])
        documents = rng.permutation(len(self.sizes))
        sizes = self.sizes[documents]
        shift = int(rng.integers(self.length))
        count = self.epoch * self.batch_size
        if not self.carry:
            return documents, sizes.cumsum() - sizes, shift, rng.permutation(count), np.zeros(count, np.int64)
        stretches = np.array_split(np.arange(count), range(int(rng.integers(self.carry)) + 1, count, self.carry))
        order = rng.permutation(len(stretches))
        row = np.concatenate([stretches[i] for i in order])
        return documents, sizes.cumsum() - sizes, shift, row, (np.diff(row, prepend=row[0] - 1) != 1).cumsum()


def _sides(document: Document, share: float, long: int) -> Iterable[tuple[str, bytes]]:
    text = document.text
    if len(text) >= long:
        border = len(text) - round(len(text) * share)
        border = text.find(b"\n", border) + 1 or border
        return [(side, part) for side, part in (("train", text[:border]), ("held_out", text[border:])) if part]
    place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
    return [("held_out" if place < share else "train", text)]


def _dtype(tokenizer: Tokenizer) -> type:
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


__all__ = ["Data", "RowBatch", "Rows", "TokenizedText", "origin", "prepare", "read"]
