"""The laws of the design on every mixer and every preset, in float32, to 1e-4 of the largest value."""

import pytest
import torch

from solomonic import PRESETS

from .cases import (
    MODEL_CASES,
    VOCABULARY,
    assert_close,
    assert_same_gradients,
    assert_same_state,
    gradients_of,
    leaves,
    model_of,
    tokens,
)

pytestmark = pytest.mark.parametrize("case", MODEL_CASES)

LENGTH = 45
CUTS = {
    "one at a time": [1] * LENGTH,
    "halves": [22, 23],
    "window boundaries": [7, 7, 14, 17],
    "odd": [1, 5, 13, 2, 24],
    "long then single": [40, 1, 1, 1, 1, 1],
    "chunk boundaries": [32, 1, 12],
}


def run(model, x, cuts, state=None):
    logits = []
    for part in x.split(cuts, 1):
        y, state = model(part, state)
        logits.append(y)
    return torch.cat(logits, 1), state


def loss(logits, state):
    """A scalar that depends on all logits and all of the state's floats."""
    total = (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()
    for _, tensor in leaves(state):
        if tensor.is_floating_point():
            finite = tensor[tensor.isfinite()]
            total = total + (finite * torch.linspace(1, 2, finite.numel())).sum() / max(1, finite.numel())
    return total


@pytest.mark.parametrize("cut", CUTS)
def test_chunks_equal_whole(case, cut):
    model, x = model_of(case), tokens(2, LENGTH)
    expected, expected_state = model(x)
    loss(expected, expected_state).backward()
    gradients = gradients_of(model)
    model.zero_grad()
    got, state = run(model, x, CUTS[cut])
    loss(got, state).backward()
    assert_close(got, expected, "logits")
    assert_same_state(state, expected_state, "state")
    assert_same_gradients(gradients_of(model), gradients)


def test_random_splits(case):
    model, x = model_of(case), tokens(1, LENGTH)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        expected, expected_state = model(x)
        for _ in range(4):
            ends = torch.randperm(LENGTH - 1, generator=generator)[:5].sort().values + 1
            cuts = torch.diff(ends, prepend=torch.tensor([0]), append=torch.tensor([LENGTH])).tolist()
            got, state = run(model, x, cuts)
            assert_close(got, expected, f"logits cut {cuts}")
            assert_same_state(state, expected_state, f"state cut {cuts}")


def test_causality(case):
    model, x = model_of(case), tokens(2, LENGTH)
    with torch.no_grad():
        expected, _ = model(x)
        for t in (0, 6, 7, 20, LENGTH - 1):
            changed = x.clone()
            changed[:, t:] = (changed[:, t:] + 1) % VOCABULARY
            got, _ = model(changed)
            assert_close(got[:, :t], expected[:, :t], f"before {t}")
            assert not torch.allclose(got[:, t:], expected[:, t:], atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right", "both", "holes"])
def test_padding(case, side):
    """Rows of 30, 11 and 0 real tokens after a state of ragged rows; the padding holds tokens that do not exist."""
    model = model_of(case)
    lengths, T = [30, 11, 0], 34
    first, second = tokens(3, 9, seed=4), tokens(3, 30, seed=5)
    mask = torch.zeros(3, T, dtype=torch.bool)
    generator = torch.Generator().manual_seed(6)
    for row, n in enumerate(lengths):
        if side == "left":
            mask[row, T - n :] = True
        elif side == "right":
            mask[row, :n] = True
        elif side == "both":
            mask[row, 2 : 2 + n] = True
        else:
            mask[row, torch.randperm(T, generator=generator)[:n]] = True
    padded = torch.full((3, T), -7)
    for row, n in enumerate(lengths):
        padded[row, mask[row]] = second[row, :n]
    before_mask = torch.tensor([[True] * 9, [False] * 4 + [True] * 5, [True] * 7 + [False] * 2])
    with torch.no_grad():
        _, before = model(first, mask=before_mask)
        logits, after = model(padded, before, mask=mask)
        more, _ = model(tokens(3, 4, seed=7), after)
        for row, n in enumerate(lengths):
            alone = torch.cat([first[row][before_mask[row]], second[row, :n]])[None]
            expected, state = model(alone)
            assert_close(logits[row, mask[row]], expected[0, before_mask[row].sum() :], f"row {row}")
            for (name, got), (_, want) in zip(leaves(after), leaves(state)):
                if got.dim() > 1 and got.shape[1] > want.shape[1]:
                    got = got[:, -want.shape[1] or got.shape[1] :]  # unbounded rows: the longest row's, older ones zero
                assert_close(got[row], want[0], f"row {row}: {name}")
            continued, _ = model(tokens(3, 4, seed=7)[row : row + 1], state)
            assert_close(more[row], continued[0], f"row {row} continued")


def test_packing(case):
    """Documents of many lengths in one row equal each alone; gradients, the last one's state, a later cut too."""
    model = model_of(case)
    lengths = [1, 9, 2, 21, 7, 5]
    documents = [tokens(1, n, seed=10 + n) for n in lengths]
    packed = torch.cat([*documents], 1)
    segments = torch.repeat_interleave(torch.tensor([3, 4, 6, 7, 8, 9]), torch.tensor(lengths))[None]
    expected, total = [], 0
    for document in documents:
        logits, state = model(document)
        expected.append(logits)
        total = total + logits.square().sum()
    total.backward()
    gradients = gradients_of(model)
    model.zero_grad()
    got, got_state = model(packed, segments=segments)
    got.square().sum().backward()
    assert_close(got, torch.cat(expected, 1), "logits")
    assert_same_state(got_state, state | {"segment": got_state["segment"]}, "state")
    assert_same_gradients(gradients_of(model), gradients)
    with torch.no_grad():
        for cut in (1, 10, 11, 25, 33, 40):
            first, between = model(packed[:, :cut], segments=segments[:, :cut])
            second, end = model(packed[:, cut:], between, segments=segments[:, cut:])
            assert_close(torch.cat([first, second], 1), torch.cat(expected, 1), f"logits cut at {cut}")
            assert_same_state(end, got_state, f"state cut at {cut}")


def test_packing_and_padding_together(case):
    model = model_of(case)
    x, segments = tokens(2, 26, seed=20), torch.tensor([[0] * 11 + [1] * 15, [0] * 20 + [5] * 6])
    mask = torch.ones(2, 26, dtype=torch.bool)
    mask[0, 3:8] = mask[1, :9] = mask[1, 24:] = False
    with torch.no_grad():
        logits, state = model(x, mask=mask, segments=segments)
        more, _ = model(tokens(2, 8, seed=21), state)
        for row in range(2):
            for document in segments[row].unique():
                real = mask[row] & (segments[row] == document)
                expected, alone = model(x[row, real][None])
                assert_close(logits[row, real], expected[0], f"row {row} document {document}")
            continued, _ = model(tokens(2, 8, seed=21)[row : row + 1], alone)
            assert_close(more[row], continued[0], f"row {row} continued")


def test_chunks_of_flat_text(case):
    """Runs of one token leave predictors of the fading output with rounding errors alone: those must not choose."""
    model = model_of(case)
    x = torch.tensor([[1] * 60 + [2] * 60 + [3] * 20 + list(range(4, 20)) * 2])
    with torch.no_grad():
        expected, _ = model(x)
        got, _ = run(model, x, [23] * 7 + [11])
        assert_close(got, expected, "logits")


def test_state_bytes(case):
    model = model_of(case)
    sizes = []
    with torch.no_grad():
        for length in (1, 8, 40, 90):
            _, state = model(tokens(3, length))
            taken = sum(t.numel() * t.element_size() for _, t in leaves(state))
            held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, t in leaves(state)}
            assert taken == model.state_bytes(length, batch=3)
            assert sum(held.values()) == taken  # no view of something larger
            sizes.append(taken)
    if all(block.mixer.bounded for block in model.blocks):
        assert len(set(sizes)) == 1
    else:
        assert sorted(set(sizes)) == sizes


def test_unbounded_where_it_is_said(case):
    if case in PRESETS:
        assert all(b.mixer.bounded for b in model_of(case).blocks) == (case not in ("transformer", "jamba"))


def test_gradient_through_the_state(case):
    """The loss of a second call, differentiated by what was read in the first: as if both had been one call."""
    model = model_of(case)
    x = tokens(2, 30, seed=30)

    def gradient(cuts):
        shift = torch.zeros(2, 18, model.config.d_model, requires_grad=True)
        seen = iter([0, 18] if len(cuts) == 2 else [0])

        def add(module, inputs, embedded):
            if next(seen) == 0:
                return torch.cat([embedded[:, :18] + shift, embedded[:, 18:]], 1)
            return None

        hook = model.embedding.register_forward_hook(add)
        logits, _ = run(model, x, cuts)
        hook.remove()
        return torch.autograd.grad(logits[:, 18:].square().sum(), shift)[0]

    whole = gradient([30])
    assert (whole[:, -1].abs().amax(-1) > 0).all()  # what the first call read last matters to the second
    assert_close(gradient([18, 12]), whole, "gradient by the first call's embeddings")


def test_detached_state_stops_the_gradient(case):
    """The first call's rows of the embedding get a gradient through the state, and none once it is detached."""
    model = model_of(case)
    first, second = torch.arange(12)[None], torch.arange(20, 30)[None]
    for detached in (False, True):
        model.zero_grad()
        _, state = model(first)
        assert any(t.requires_grad for _, t in leaves(state))
        logits, _ = model(second, detach(state) if detached else state)
        logits[..., 40:].square().sum().backward()  # a tied head would reach the rows of the tokens it predicts
        assert (model.embedding.weight.grad[:12].abs().max() == 0) == detached


def detach(state):
    if isinstance(state, torch.Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {key: detach(value) for key, value in state.items()}
    return [detach(value) for value in state]
