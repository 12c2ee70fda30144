"""Bits per byte of held-out text, against the length of what the model has read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..model import LanguageModel
from ..tokenizer import Tokenizer


@dataclass(frozen=True)
class Bits:
    """Of one length: `mean` bits a byte over all of the text, and `by_position`, (length,) float64 bits a byte."""

    length: int
    mean: float
    by_position: np.ndarray


def spans(documents: Sequence[np.ndarray], longest: int, most: int) -> np.ndarray:
    """(n, longest + 1) tokens: at most `most` pieces of the documents, evenly from all there are that do not overlap.

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
    chosen = [places[i * len(places) // min(most, len(places))] for i in range(min(most, len(places)))]
    return np.stack([documents[i][start : start + size] for i, start in chosen]).astype(np.int64)


def bits_per_byte(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: np.ndarray,
    length: int,
    batch_tokens: int = 16384,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda tokens: None,
) -> Bits:
    """`text` (n, longest + 1) tokens of `spans`, read in rows of `length`, each from nothing.

    Every length that divides `longest` is scored on the same bytes, so that lengths can be compared. Rows are read in
    chunks that pass the state on, `batch_tokens` tokens a call at most; `report` is told the tokens of each.
    """
    device = next(model.parameters()).device
    whole = (text.shape[1] - 1) // length * length
    inputs, targets = (text[:, first : first + whole].reshape(-1, length) for first in (0, 1))
    nats = np.zeros(length)
    chunk = min(chunk, length)
    rows = max(1, batch_tokens // chunk)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(inputs), rows):
            state = None
            for start in range(0, length, chunk):
                part = (slice(first, first + rows), slice(start, start + chunk))
                logits, state = model(torch.from_numpy(inputs[part]).to(device), state)
                nats[part[1]] += _nats(logits, torch.from_numpy(targets[part]).to(device)).sum(0).cpu().numpy()
                report(inputs[part].size)
    model.train(training)
    size = sum(len(tokenizer.decode(row).encode()) for row in targets) if not tokenizer.is_bytes else targets.size
    by_position = nats / np.log(2) / (size / length)
    return Bits(length, float(by_position.mean()), by_position)


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view_as(targets).double()


__all__ = ["Bits", "bits_per_byte", "spans"]
