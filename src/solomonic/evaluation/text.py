"""Bits per byte of held-out text, by the number of tokens that the model has read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.tokenizer import Tokenizer
from .score import ScoredModel, nats, reading


@dataclass(frozen=True)
class Bits:
    """Bits a byte of rows of one length: `mean` over all of the text, and `by_position`, (length,) float64.

    By position, a token counts as many bytes as a token of this text has on average.
    """

    length: int
    mean: float
    by_position: np.ndarray


def spans(documents: Sequence[np.ndarray], longest: int, most: int) -> np.ndarray:
    """(n, longest + 1) tokens: at most `most` pieces of the documents, evenly from all that do not overlap.

    ValueError when no document has longest + 1 tokens.
    """
    size = longest + 1
    places = [(i, start) for i, tokens in enumerate(documents) for start in range(0, len(tokens) - size + 1, size)]
    if not places:
        reach = max((len(tokens) for tokens in documents), default=0)
        raise ValueError(
            f"expected a document of {size} tokens or more to score lengths up to {longest}, the longest has {reach}; "
            "take a smaller length, or longer documents"
        )
    evenly = [places[i * len(places) // min(most, len(places))] for i in range(min(most, len(places)))]
    return np.stack([documents[i][start : start + size] for i, start in evenly]).astype(np.int64)


def bits_per_byte(
    model: ScoredModel,
    tokenizer: Tokenizer,
    text: np.ndarray,
    length: int,
    batch_tokens: int = 16384,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda tokens: None,
) -> Bits:
    """`text` (n, longest + 1) tokens of `spans`, read in rows of `length`, each from nothing.

    Every length that divides `longest` is scored on the same bytes, so that lengths can be compared. Rows are read in
    chunks that pass the state on, `batch_tokens` tokens a call at most; `report` gets the number of tokens of each call.
    ValueError for a length that is not in [1, longest], and for text of nothing but special tokens.
    """
    longest = text.shape[1] - 1
    if not 1 <= length <= longest:
        raise ValueError(f"length: expected 1 to {longest}, as the pieces of text are long, got {length}")
    scored = longest // length * length
    inputs, targets = (text[:, first : first + scored].reshape(-1, length) for first in (0, 1))
    size = _bytes(tokenizer, text[:, 1 : 1 + scored])
    if not size:
        raise ValueError("expected text, got pieces that hold nothing but special tokens")
    total = np.zeros(length)
    chunk = min(chunk, length)
    rows = max(1, batch_tokens // chunk)
    with reading(model) as device:
        for first in range(0, len(inputs), rows):
            state = None
            for start in range(0, length, chunk):
                part = (slice(first, first + rows), slice(start, start + chunk))
                logits, state = model(torch.from_numpy(inputs[part]).to(device), state)
                total[part[1]] += nats(logits, torch.from_numpy(targets[part]).to(device)).sum(0).cpu().numpy()
                report(inputs[part].size)
    by_position = total / np.log(2) / (size / length)
    return Bits(length, float(by_position.mean()), by_position)


def buckets(by_position: np.ndarray) -> list[tuple[int, int, float]]:
    """(first, last, mean) of positions 1-16, 17-64, 65-256, ..., by powers of 4; the last one ends where they end."""
    ends = [16]
    while ends[-1] < len(by_position):
        ends.append(4 * ends[-1])
    ranges = [(first, min(last, len(by_position))) for first, last in zip([0, *ends], ends)]
    return [(first + 1, last, float(by_position[first:last].mean())) for first, last in ranges]


def _bytes(tokenizer: Tokenizer, pieces: np.ndarray) -> int:
    """Bytes of text; pieces are decoded whole, so that the count is the same whatever rows they are cut into."""
    if tokenizer.is_bytes:
        return int((pieces < 256).sum())
    return sum(len(tokenizer.decode(piece).encode()) for piece in pieces)


__all__ = ["Bits", "bits_per_byte", "buckets", "spans"]
