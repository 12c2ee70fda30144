"""The laws of composition on every mixer and every preset of bounded state; the others refuse."""

from itertools import permutations

import pytest
import torch

from solomonic.mixers import MIXERS
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.ops.composition import METHODS

from .cases import (
    MAMBA,
    MIXER_CASES,
    MODEL_CASES,
    assert_close,
    assert_same_state,
    language_model,
    leaves,
    model_of,
    tokens,
)

LENGTHS = [9, 1, 22, 6]  # shorter and longer than every window; boundaries of no block
UNBOUNDED = ["attention-default", "attention-grouped", "attention-all-settings-None", "transformer", "jamba"]
BOUNDED = [case for case in MODEL_CASES if case not in UNBOUNDED]
APPROXIMATE = ["gated_deltanet-default", "gated_deltanet2-default", "kda-default", "mamba3-default"]
"""Composing in sequence is an approximation of the delta rule, whose transitions are no multiples of the identity, and of
Mamba-3, whose first row after a seam has no row before it."""

DEFAULTS = {case: MIXER_CASES[case] for case in BOUNDED if case.endswith("-default") and case not in APPROXIMATE}
FIRST_LAYERS = DEFAULTS | {
    "mamba2": Mamba2Config(state_size=4, head_dim=8, n_groups=2),
    "window": AttentionConfig(window=5),
    "bmojo": BMojoConfig(fading=MAMBA, window=6, capacity=5, block=4),
    "bmojo, decay": BMojoConfig(fading=MAMBA, window=6, capacity=5, block=4, slot_decay=0.7),
    "bmojo, block of one": BMojoConfig(fading=MAMBA, window=3, capacity=40, block=1),
    "bmojo, span": BMojoConfig(fading=MAMBA, window=7, span=4, capacity=9, block=6, readout="both"),
}


def chunks(lengths=LENGTHS, batch=2):
    return [tokens(batch, n, seed=40 + i) for i, n in enumerate(lengths)]


def read(model, parts):
    return [model(part)[1] for part in parts]


def faded(state):
    """The leaves that order does not matter to."""
    return {name: x for name, x in leaves(state) if name.endswith((".ssm", ".h", ".u", ".log_decay", ".position"))}


def first_layer(case):
    """A model of one layer of which no convolution sees past the present row: no seams."""
    model = language_model([FIRST_LAYERS[case]])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv.weight" in name:
                parameter[..., :-1] = 0
    return model


def test_every_fading_mixer_says_what_fades():
    for name, mixer in MIXERS.items():
        assert mixer.is_fading == bool(mixer.fades), name


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("case", BOUNDED)
@torch.no_grad()
def test_one_state_is_itself(case, how):
    model = model_of(case)
    for part in chunks():
        (state,) = read(model, [part])
        assert_same_state(model.compose([state], how), state, how)


@pytest.mark.parametrize("how", ["picaso", "soup"])
@pytest.mark.parametrize("case", BOUNDED)
@torch.no_grad()
def test_order_does_not_matter_to_what_fades(case, how):
    model = model_of(case)
    states = read(model, chunks())
    expected = faded(model.compose(states, how))
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        assert_same_state(faded(model.compose([states[i] for i in order], how)), expected, f"{how} {order}")


@pytest.mark.parametrize("case", BOUNDED)
@torch.no_grad()
def test_sequence_is_associative(case):
    model = model_of(case)
    states = read(model, chunks())
    expected = model.compose(states, "sequence")
    for cut in (1, 2, 3):
        parts = [model.compose(part, "sequence") for part in (states[:cut], states[cut:])]
        assert_same_state(model.compose(parts, "sequence"), expected, f"cut at {cut}")


@pytest.mark.parametrize("lengths", [LENGTHS, [4, 8, 12], [1, 2, 1, 1], [40, 40]], ids=str)
@pytest.mark.parametrize("case", FIRST_LAYERS)
@torch.no_grad()
def test_sequence_is_reading_in_a_row(case, lengths):
    """All but the keys and values of fading outputs, which depend on the fading state; so do logits where there are."""
    model, parts = first_layer(case), chunks(lengths)
    _, expected = model(torch.cat(parts, 1))
    got = model.compose(read(model, parts), "sequence")
    own = [{name: x for name, x in leaves(s) if not name.endswith("_fading")} for s in (got, expected)]
    assert_same_state(*own, "state")
    if len(own[1]) == len(list(leaves(expected))):
        more = tokens(2, 30, seed=60)
        assert_close(model(more, got)[0], model(more, expected)[0], "logits that follow")


@torch.no_grad()
def test_picaso_is_the_mean_of_reading_in_every_order():
    model, parts = first_layer("mamba2"), chunks()
    states = read(model, parts)
    real = [model(torch.cat(order, 1))[1]["layers"][0]["ssm"] for order in permutations(parts)]
    got = model.compose(states, "picaso")["layers"][0]["ssm"]
    assert_close(got, torch.stack(real).mean(0), "mean over all orders")
    cyclic = [model(torch.cat(parts[i:] + parts[:i], 1))[1]["layers"][0]["ssm"] for i in range(len(parts))]
    got = model.compose(states, "cyclic")["layers"][0]["ssm"]
    assert_close(got, torch.stack(cyclic).mean(0), "mean over cyclic orders")


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("case", BOUNDED)
@torch.no_grad()
def test_rows_are_composed_alone(case, how):
    """Chunks of ragged rows, one of them empty; the model goes on from the composition in both rows alike."""
    model = model_of(case)
    lengths = [[9, 3], [2, 11], [14, 0], [5, 5]]
    ragged, alone = [], [[], []]
    for x, (a, b) in zip(chunks([max(n) for n in lengths]), lengths):
        mask = torch.arange(x.shape[1]) < torch.tensor([[a], [b]])
        ragged.append(model(x, mask=mask)[1])
        for row, n in enumerate((a, b)):
            alone[row].append(model(x[row : row + 1, :n])[1] if n else model.init_state(1))
    got, more = model.compose(ragged, how), tokens(2, 12, seed=61)
    logits, _ = model(more, got)
    for row in range(2):
        expected = model.compose(alone[row], how)
        assert_same_state({name: x[row : row + 1] for name, x in leaves(got)}, dict(leaves(expected)), "state")
        assert_close(logits[row : row + 1], model(more[row : row + 1], expected)[0], "logits that follow")


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("case", BOUNDED)
def test_gradient_through_the_composition(case, how):
    """What follows depends on every chunk, the second of which is shorter than a window, and is differentiated by it."""
    model = model_of(case)
    states = read(model, chunks([6, 3]))
    kept = [[t for _, t in leaves(state) if t.requires_grad] for state in states]
    logits, _ = model(tokens(2, 5, seed=62), model.compose(states, how))
    for i, state in enumerate(kept):
        gradients = torch.autograd.grad(logits.square().sum(), state, retain_graph=True, allow_unused=True)
        assert all(g.isfinite().all() for g in gradients if g is not None)
        assert any(g is not None and g.abs().max() > 0 for g in gradients), f"chunk {i}"


@pytest.mark.parametrize("case", UNBOUNDED)
def test_full_attention_refuses(case):
    model = model_of(case)
    with pytest.raises(ValueError, match="attention: expected a bounded state, got one that keeps every token"):
        model.compose(read(model, chunks()))


def test_states_that_cannot_be_composed():
    model, other = model_of("bmojo"), model_of("mamba2")
    (state,) = read(model, chunks([5]))
    for states, says in [
        ([], "expected a list of one state or more, got none"),
        (state, "expected a list of one state or more, got dict"),
        ([7], "state: expected what a call returned"),
        ([state, 7], "state: expected what a call returned"),
        ([state, read(model, chunks([5], batch=1))[0]], "state: expected state.position of shape"),
        (read(other, chunks([5])), "use the state of a model with this configuration"),
        ([state, read(other, chunks([5]))[0]], "use the state of a model with this configuration"),
    ]:
        with pytest.raises(ValueError, match=says):
            model.compose(states)
    with pytest.raises(ValueError, match="unknown way to compose 'picasso': did you mean 'picaso'"):
        model.compose([state], "picasso")
