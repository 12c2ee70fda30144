"""The clock of a fading memory against a loop over rows; what a scan leaves of an old state is exp of it."""

import pytest
import torch

from solomonic.ops.clock import clock
from solomonic.ops.sequence import LEAST_LOG_DECAY
from solomonic.ops.ssd import ssd

from ..laws.cases import assert_close
from .sequences import KINDS, sequences_of

BATCH, HEADS = 3, 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 31])
def test_clock(length, kind):
    sequences = sequences_of(kind, BATCH, length)
    decay = -30 * torch.rand(BATCH, length, HEADS) ** 4
    before = None
    if kind != "fresh":  # nothing has been forgotten before a document's first row
        before = -torch.rand(BATCH, HEADS) * (sequences.position[:, 0] > 0)[:, None]
    expected = torch.zeros(BATCH, HEADS) if before is None else before.clone()
    for b in range(BATCH):
        for t in range(length if sequences.length is None else int(sequences.length[b])):
            if sequences.packed and sequences.position.expand(BATCH, -1)[b, t] == 0:
                expected[b] = 0
            expected[b] += decay[b, t].clamp_min(LEAST_LOG_DECAY)
    assert_close(clock(decay, before, sequences), expected, "clock")


@pytest.mark.parametrize("kind", ["continued", "padded"])
def test_what_a_scan_leaves_of_an_old_state(kind):
    sequences, decay = sequences_of(kind, BATCH, 9), -torch.rand(BATCH, 9, HEADS)
    old = torch.randn(BATCH, HEADS, 5, 6)
    nothing, read = torch.zeros(BATCH, 9, HEADS, 5), torch.randn(BATCH, 9, 1, 6)
    _, left = ssd(nothing, read, read, decay, old, sequences)
    assert_close(left, clock(decay, None, sequences).exp()[..., None, None] * old, "what is left")
