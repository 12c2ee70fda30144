"""The eidetic memory whose scores lose weight by a clock, against its definition, and far into a stream."""

import itertools

import pytest
import torch

from solomonic.ops.innovation import rank
from solomonic.ops.memory_attention import memory_attention
from solomonic.ops.sequence import Sequences

from .sequences import KINDS, sequences_of

BATCH, WINDOW, BLOCK, CAPACITY = 3, 7, 4, 5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def read(length, cuts=(), start=0, state=None, clock=None, backend=None):
    """The kept positions after each call, and the last state, of rows start .. start + length of one stream."""
    score, held = drawn(1, 400), []
    clock = drawn(1, 400, seed=1).abs() if clock is None else clock
    x = drawn(1, 400, 2, 4, seed=2)
    edges = [start, *cuts, start + length]
    for a, b in itertools.pairwise(edges):
        position = torch.arange(a, b)[None]
        sequences = Sequences(position, torch.tensor([b]), aligned=a == 0)
        rows = x[:, a:b]
        _, state = memory_attention(
            rows, rows, rows, state, sequences, window=WINDOW, score=score[:, a:b], clock=clock[:, a:b], capacity=CAPACITY,
            block=BLOCK, backend=backend,
        )  # fmt: skip
        kept = (b - state["slot_age"])[state["slot_score"] > -torch.inf]
        held.append((b, sorted(kept.tolist())))
    return held, state


@pytest.mark.parametrize("backend", ["reference", None])
def test_what_is_kept_is_the_best_by_score_and_clock(backend):
    """At a multiple c of the block: the best of rows j < c by rank(s_j) + sum of the clock up to j."""
    held, _ = read(97, cuts=range(1, 97), backend=backend)
    worth = rank(drawn(1, 400))[0].double() + drawn(1, 400, seed=1).abs()[0].double().cumsum(0)
    for end, kept in held:
        boundary = (end - 1) // BLOCK * BLOCK
        best = sorted(range(boundary), key=lambda j: (-worth[j].item(), j))[:CAPACITY]
        assert kept == sorted(best), end


def test_no_cut_into_calls_changes_what_is_kept():
    _, whole = read(300)
    for cuts in ([1, 2, 150], [4, 8, 33, 299], range(1, 300)):
        _, state = read(300, cuts)
        assert torch.equal(state["slot_age"], whole["slot_age"])
        for name in ("lost", "slot_lost", "time"):
            torch.testing.assert_close(state[name], whole[name], rtol=1e-12, atol=1e-12)


def test_far_into_a_stream_nothing_is_rounded_away():
    """Ten million nats later, steps of a millionth still decide."""
    state = read(40)[1]
    for name, x in state.items():
        if name in ("lost", "slot_lost", "time"):
            state[name] = x + 1e7
    flat = torch.full((1, 400), 1e-6)
    score = torch.zeros(1, 400)
    x = drawn(1, 400, 2, 4)
    sequences = Sequences(torch.arange(40, 80)[None], torch.tensor([80]), aligned=False)
    rows = x[:, 40:80]
    _, after = memory_attention(
        rows, rows, rows, state, sequences, window=WINDOW, score=score[:, 40:80], clock=flat[:, 40:80], capacity=CAPACITY,
        block=BLOCK,
    )  # fmt: skip
    kept = (80 - after["slot_age"])[after["slot_score"] > -torch.inf]
    assert sorted(kept.tolist()) == list(range(71, 76))  # the youngest of equals; without a clock the oldest


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_logits_that_fade_keep_their_digits_in_a_long_call(backend):
    """A million nats pass, then hundredths: rows see them in one call as in calls that begin behind the million."""
    x, score = drawn(1, 300, 2, 4), drawn(1, 300, seed=1)
    clock = torch.where(torch.arange(300) < 100, 1e4, drawn(1, 300, seed=2).abs() / 50)

    def outputs(cuts):
        state, rows = None, []
        for a, b in itertools.pairwise([0, *cuts, 300]):
            sequences = Sequences(torch.arange(a, b)[None], torch.tensor([b]), aligned=a == 0)
            part = x[:, a:b]
            y, state = memory_attention(
                part, part, part, state, sequences, window=WINDOW, score=score[:, a:b], clock=clock[:, a:b], fades=True,
                admit=True, capacity=CAPACITY, block=BLOCK, backend=backend,
            )  # fmt: skip
            rows.append(y)
        return torch.cat(rows, 1)

    torch.testing.assert_close(outputs([]), outputs([100, 204]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_moves_no_clock(kind):
    sequences = sequences_of(kind, BATCH, 19)
    x, score, clock = drawn(BATCH, 19, 2, 4), drawn(BATCH, 19), drawn(BATCH, 19, seed=3).abs()
    options = {"window": WINDOW, "capacity": CAPACITY, "block": BLOCK}
    _, state = memory_attention(x, x, x, None, sequences, score=score, clock=clock, **options)
    if (real := sequences.real()) is not None:
        other = torch.where(real, clock, 1e9)
        _, changed = memory_attention(x, x, x, None, sequences, score=score, clock=other, **options)
        assert all(torch.equal(changed[name], state[name]) for name in ("lost", "slot_lost", "time"))
    begin = sequences.last() - sequences.end[:, None]
    row = torch.arange(19)
    current = (row >= begin) & (row < sequences.last())
    torch.testing.assert_close(state["time"], (clock * current).double().sum(1))
