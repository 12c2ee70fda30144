"""Sequences of every kind: fresh, continued, padded, packed, and all at once."""

import torch

from solomonic.ops.sequence import Sequences, fresh

KINDS = ["fresh", "continued", "padded", "packed", "packed, continued and padded"]


def sequences_of(kind: str, batch: int, length: int) -> Sequences:
    if kind == "fresh":
        return fresh(batch, length)
    generator = torch.Generator().manual_seed(length)
    before = torch.randint(0, 40, (batch, 1), generator=generator)
    row = torch.arange(length)[None]
    position = before + row
    real = None
    if "padded" in kind:
        real = torch.randint(0, length + 1, (batch,), generator=generator)
        real[0] = length
    if "packed" in kind:
        begins = torch.rand(batch, length, generator=generator) < 0.12
        if real is not None:
            begins &= row < real[:, None]
        start = torch.where(begins, row, -1).cummax(1).values
        position = torch.where(start >= 0, row - start, position)
    count = torch.full((batch,), length) if real is None else real
    last = position.gather(1, (count - 1).clamp_min(0)[:, None])[:, 0]
    end = torch.where(count > 0, last + 1, before[:, 0])
    return Sequences(position, end, real, aligned=False, packed="packed" in kind)


def packed(lengths: list[int], before: int) -> Sequences:
    """One row of documents of these lengths, the first of which continues one of `before` tokens."""
    rows = [torch.arange(n) for n in lengths]
    rows[0] = rows[0] + before
    return Sequences(torch.cat(rows)[None], torch.tensor([lengths[-1]]), aligned=False, packed=True)
