"""The laws of composition on every mixer and every preset of bounded state; the others refuse."""

from itertools import permutations

import pytest
import torch

from solomonic.mixers import MIXERS
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.testing.mixers import CHUNKS, check_reading_in_a_row, chunks, read, without_seams

from .cases import (
    MAMBA,
    MIXER_CASES,
    MODEL_CASES,
    assert_close,
    language_model,
    model_of,
)

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


def first_layer(case):
    """A model of one layer of which no convolution sees past the present row: no seams."""
    model = language_model([FIRST_LAYERS[case]])
    without_seams(model)
    return model


def test_every_fading_mixer_says_what_fades():
    for name, mixer in MIXERS.items():
        assert mixer.is_fading == bool(mixer.fades), name


@pytest.mark.parametrize("lengths", [CHUNKS, [4, 8, 12], [1, 2, 1, 1], [40, 40]], ids=str)
@pytest.mark.parametrize("case", FIRST_LAYERS)
def test_sequence_is_reading_in_a_row(case, lengths):
    check_reading_in_a_row(first_layer(case), lengths)


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
