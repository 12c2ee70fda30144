"""Random draws that the tasks share, on whole batches at once."""

import numpy as np
import torch

from .base import IGNORE, Batch


def first_of(codes: np.ndarray) -> np.ndarray:
    """(B, M) -> (B, M): the index, in its row, of the first element equal to this one."""
    order = codes.argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(codes, order, 1)
    opens = np.ones(codes.shape, dtype=bool)  # the first of a run of equal elements
    opens[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    run = np.maximum.accumulate(np.where(opens, np.arange(codes.shape[1]), 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, run, 1), 1)
    return first


def distinct(rng: np.random.Generator, rows: int, count: int, n: int) -> np.ndarray:
    """(rows, count) int64: in each row `count` different numbers of [0, n), every ordered choice equally likely.

    Few of many: repeats are drawn again until none is left. No number is treated unlike another, so all ordered
    choices stay equally likely. Otherwise: the head of a random permutation.
    """
    assert count <= n
    if 4 * count > n:
        return rng.random((rows, n)).argsort(axis=1)[:, :count]
    drawn = rng.integers(n, size=(rows, count))
    while (again := first_of(drawn) != np.arange(count)).any():
        drawn[again] = rng.integers(n, size=again.sum())
    return drawn


def training_length(rng: np.random.Generator, least: int, most: int) -> int:
    """The length of a training batch: `most` for half of the batches, else uniform in [least, most]."""
    return most if rng.random() < 0.5 else int(rng.integers(least, most + 1))


def scattered(rng: np.random.Generator, rows: int, blocks: int, size: int, length: int) -> np.ndarray:
    """(rows, blocks) int64, increasing: where blocks of `size` positions start among `length`, without overlap.

    The share of the other positions that stands before a block is drawn uniformly and independently for each, as depths
    are; the blocks then come in the order of their depths.
    """
    free = length - blocks * size
    assert free >= 0
    return np.sort(rng.integers(free + 1, size=(rows, blocks)), axis=1) + size * np.arange(blocks)


def rank_of_its_kind(kinds: np.ndarray, n: int) -> np.ndarray:
    """(B, M) in [0, n) -> (B, M): how many elements of the same number stand before this one in its row."""
    same = kinds[:, :, None] == np.arange(n)
    return np.take_along_axis(same.cumsum(axis=1), kinds[:, :, None], 2)[:, :, 0] - 1


def early_slots(rng: np.random.Generator, rows: int, slots: int, n: int, a: float = 0.01) -> np.ndarray:
    """(rows, n) int64: n of the slots 0, 1, ... drawn without replacement, slot i - 1 with a weight of i^(a-1).

    Exponential clocks of that rate: the order in which they ring is that of draws without replacement. For MQAR
    (`mqar.py`): the first tend to be early.
    """
    rings = rng.standard_exponential((rows, slots)) / np.arange(1, slots + 1) ** (a - 1)
    return rings.argsort(axis=1)[:, :n]


def next_tokens(tokens: np.ndarray) -> np.ndarray:
    """(B, T) -> (B, T): at each position the token that follows; IGNORE at the last."""
    return np.concatenate([tokens[:, 1:], np.full((len(tokens), 1), IGNORE)], axis=1)


def asked_in_order(tokens: np.ndarray, start: int, ask: int, answers: np.ndarray) -> Batch:
    """`tokens` (B, T) from position `start` on: `ask`, then the `answers` (B, T - start - 1), each scored one earlier."""
    tokens[:, start], tokens[:, start + 1 :] = ask, answers
    targets = np.full_like(tokens, IGNORE)
    targets[:, start:-1] = answers
    return batch(tokens, targets)


def batch(tokens: np.ndarray, targets: np.ndarray) -> Batch:
    """Two int64 arrays (B, T) as a Batch, without a copy where they are contiguous."""
    return Batch(torch.from_numpy(np.ascontiguousarray(tokens)), torch.from_numpy(np.ascontiguousarray(targets)))
