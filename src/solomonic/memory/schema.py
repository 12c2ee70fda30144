"""What a store holds: its schema, the tokens that a layer stores, documents, and what a save point adds.

A token id is document << 32 | position, an entry id document << 32 | block: both rise with the document, then with the
position in it.

Shapes: M tokens of an entry, G key/value heads, D their width, S the most tokens of any entry that was fetched.
"""

import json
import math
from bisect import bisect_left
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .._utils.spelling import choose

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
PIECE_BYTES = 1 << 16  # of text, compressed together
MOST_POSITIONS = 2**32
MOST_DOCUMENTS = 2**31 - 1
MOST_SIZE = 2**20


@dataclass(frozen=True)
class LayerSchema:
    """A layer that stores: its index in the model, its key/value heads, their width, tokens a block.

    admit: log-sigmoid of a token's score is added to its logit. least: the admission threshold, the score from which on
    whoever writes stores a token; None: every token is stored.
    """

    layer: int
    heads: int
    dim: int
    block: int
    admit: bool = False
    least: float | None = None

    def __post_init__(self) -> None:
        for name, least in {"layer": 0, "heads": 1, "dim": 1, "block": 1}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_SIZE:
                raise ValueError(
                    f"{name} of a stored layer: expected a whole number from {least} to {MOST_SIZE}, got {value!r}"
                )
        if self.heads * self.dim > MOST_SIZE:
            size = self.heads * self.dim
            raise ValueError(f"heads of a stored layer: expected heads * dim <= {MOST_SIZE}, got {size}")
        if not isinstance(self.admit, bool):
            raise ValueError(f"admit of a stored layer: expected True or False, got {self.admit!r}")
        if not (self.least is None or (type(self.least) in (int, float) and math.isfinite(self.least))):
            raise ValueError(f"least of a stored layer: expected a finite number or None, got {self.least!r}")


@dataclass(frozen=True)
class StoreSchema:
    """The model that a store belongs to, its storing layers, and the type in which keys and values are copied."""

    model: str
    layers: tuple[LayerSchema, ...]
    dtype: str = "float16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model of a store: expected its fingerprint, got {self.model!r}")
        choose("dtype of a store", self.dtype, DTYPES)
        if not self.layers or len({layer.layer for layer in self.layers}) < len(self.layers):
            raise ValueError(f"layers of a store: expected one or more, each once, got {self.layers}")

    def __getitem__(self, layer: int) -> LayerSchema:
        return choose("stored layer", str(layer), {str(known.layer): known for known in self.layers})

    def require(self, other: "StoreSchema", uri: str) -> None:
        """ValueError that names the first difference between this schema, of the store at `uri`, and `other`, asked for."""
        for field in fields(self):
            stored, expected = getattr(self, field.name), getattr(other, field.name)
            if stored != expected:
                raise ValueError(
                    f"{uri}: expected a store with {field.name} {expected}, got one with {stored}; it belongs to another "
                    "model or configuration"
                )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StoreSchema":
        """ValueError for what is not a schema."""
        try:
            plain = json.loads(text)
            return cls(plain["model"], tuple(LayerSchema(**layer) for layer in plain["layers"]), plain["dtype"])
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"schema of a store: expected JSON with model, layers and dtype ({error})") from None


@dataclass(frozen=True)
class StoredTokens:
    """Tokens of one document that a layer stores, oldest first.

    position: (M,) int64, strictly increasing, counted from the document's first token.
    key, value: (M, G, D). score, clock: (M,) float32; the clock is the document's own, 0 where it begins.
    span: (M, 2) int64, the bytes [start, end) of the document's text that the token stands for.
    """

    position: Tensor
    key: Tensor
    value: Tensor
    score: Tensor
    clock: Tensor
    span: Tensor

    def __len__(self) -> int:
        return self.position.shape[0]

    @cached_property
    def packed(self) -> Tensor:
        """(M, 2 G D + 3) float32: the key, value, score and clock of each token side by side, and 1 for a real one."""
        scalars = torch.stack([self.score, self.clock, torch.ones_like(self.score)], 1)
        return torch.cat([self.key.flatten(1).float(), self.value.flatten(1).float(), scalars], 1)

    @cached_property
    def _positions(self) -> list[int]:
        positions: list[int] = self.position.tolist()
        return positions

    def row(self, position: int) -> int | None:
        """The row of the token at `position`; None where it is not there."""
        at = bisect_left(self._positions, position)
        return at if self._positions[at : at + 1] == [position] else None

    def __getitem__(self, rows: slice) -> "StoredTokens":
        return StoredTokens(*(getattr(self, field.name)[rows] for field in fields(self)))

    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def join(self, later: "StoredTokens") -> "StoredTokens":
        return StoredTokens(*(torch.cat([getattr(self, f.name), getattr(later, f.name)]) for f in fields(self)))

    @classmethod
    def blank(cls, schema: LayerSchema, dtype: str, count: int = 0) -> "StoredTokens":
        heads = {"key": (schema.heads, schema.dim), "value": (schema.heads, schema.dim), "span": (2,)}
        return cls(*(torch.zeros(count, *heads.get(name, ()), dtype=kind) for name, kind in _types(dtype).items()))

    def checked(self, schema: LayerSchema, dtype: str) -> "StoredTokens":
        """A copy on the CPU, as it is stored. ValueError for other shapes, or numbers that `dtype` cannot hold."""
        m = len(self.position)
        heads = (m, schema.heads, schema.dim)
        for name, shape in {"key": heads, "value": heads, "score": (m,), "clock": (m,), "span": (m, 2)}.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"{name} of tokens: expected the shape {shape}, got {tuple(getattr(self, name).shape)}"
                )
        copied = StoredTokens(
            *(getattr(self, n).detach().to("cpu", t, copy=True).contiguous() for n, t in _types(dtype).items())
        )
        for name in ("key", "value", "score", "clock"):
            if not getattr(copied, name).isfinite().all():
                raise ValueError(f"{name} of tokens: expected finite numbers that fit {dtype}, got others")
        if m and (
            copied.position[0] < 0 or copied.position[-1] >= MOST_POSITIONS or (copied.position.diff() <= 0).any()
        ):
            raise ValueError("position of tokens: expected strictly increasing numbers from 0 on")
        if m and (copied.clock[0] < 0 or (copied.clock.diff() < 0).any()):
            raise ValueError("clock of tokens: expected numbers >= 0 that do not fall")
        return copied

    def blocks(self, size: int) -> list[tuple[int, "StoredTokens"]]:
        """Cut at absolute multiples of `size` positions: (block, its tokens)."""
        numbers, counts = torch.unique_consecutive(self.position // size, return_counts=True)
        ends = counts.cumsum(0).tolist()
        return [
            (number, self[end - count : end]) for number, count, end in zip(numbers.tolist(), counts.tolist(), ends)
        ]


@dataclass(frozen=True)
class StoredDocument:
    """A file, or a session of generation, as the store has it.

    time: unix seconds. digest: of the file, as whoever added it gave it. sources: the documents whose tokens were
    retrieved when its keys and values were computed. tokens: stored, over all layers. text: its length in bytes. bytes:
    what it takes in the store. clock: (layer, the layer's clock at its end). complete: False while it is written and
    after that was interrupted; only the process that writes it finds its tokens then.
    """

    id: int
    name: str
    session: str | None = None
    time: float = 0.0
    digest: str | None = None
    sources: tuple[int, ...] = ()
    tokens: int = 0
    text: int = 0
    bytes: int = 0
    clock: tuple[tuple[int, float], ...] = ()
    complete: bool = False

    def elapsed(self, layer: int) -> float:
        """How far the clock of `layer` ran in this document."""
        return next((elapsed for known, elapsed in self.clock if known == layer), 0.0)


@dataclass(frozen=True)
class TextPiece:
    """Text of a document from byte `start` on; `lines` line breaks come before it."""

    start: int
    lines: int
    text: bytes


@dataclass(frozen=True)
class SavePoint:
    """What a save point adds to a store, all or nothing; an entry or a piece that is there already is replaced."""

    document: StoredDocument
    entries: tuple[tuple[int, int, StoredTokens], ...]  # layer, entry, its tokens
    pieces: tuple[TextPiece, ...]
    state: bytes

    def size(self) -> int:
        return sum(tokens.nbytes() for _, _, tokens in self.entries) + sum(len(piece.text) for piece in self.pieces)


def entry_id(document: int, block: int) -> int:
    return (document << 32) | block


def entry_of(token_id: Tensor, block: int) -> Tensor:
    """The ids of the entries, of `block` tokens each, that tokens are in; -1 stays -1."""
    document, position = token_id >> 32, token_id & 0xFFFFFFFF
    return torch.where(token_id < 0, -1, (document << 32) | position.div(block, rounding_mode="floor"))


def log_admission(score: Tensor) -> Tensor:
    """log-sigmoid of scores, rounded from float64, so that it does not depend on the shape of the call."""
    x = score.numpy().astype(np.float64)
    return torch.from_numpy((np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))).astype(np.float32))


def _types(dtype: str) -> dict[str, torch.dtype]:
    kind = DTYPES[dtype]
    return {
        "position": torch.int64,
        "key": kind,
        "value": kind,
        "score": torch.float32,
        "clock": torch.float32,
        "span": torch.int64,
    }
