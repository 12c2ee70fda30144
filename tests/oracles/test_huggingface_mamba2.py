"""Mamba-2 against the one of Hugging Face's `transformers`, weights copied: mixer, whole model, state."""

import pytest
import torch

from solomonic.checkpoints.formats import mamba2

from ..laws.cases import assert_close, assert_same_gradients, gradients_of
from .layers import assert_same_layers, beside

pytest.importorskip("transformers", minversion="5.23")  # older: another cache, no norm of groups
modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")

VOCABULARY = 50
CASES = {  # width, head_dim, state_size, groups, expand, conv width, their chunk size
    "plain": (16, 8, 8, 1, 2, 4, 16),
    "wide heads": (24, 16, 16, 1, 2, 4, 8),
    "groups": (16, 8, 16, 2, 2, 4, 16),
    "groups of three heads": (24, 8, 4, 2, 2, 3, 256),
    "narrow": (16, 16, 8, 1, 1, 2, 5),
}
LENGTHS = [1, 3, 32, 75]


def pair(case: str, layers: int = 2):
    """Their model and ours with the same weights, all of them away from their initial values."""
    width, head_dim, state_size, groups, expand, conv_width, chunk = CASES[case]
    config = modeling.Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_heads=width * expand // head_dim,
        head_dim=head_dim,
        state_size=state_size,
        n_groups=groups,
        expand=expand,
        conv_kernel=conv_width,
        chunk_size=chunk,
        num_hidden_layers=layers,
        tie_word_embeddings=True,
    )
    return beside(modeling.Mamba2ForCausalLM(config), mamba2.translate, config)


def assert_same_mixers(theirs, ours, length):
    """Outputs, and the gradients of the input and of every parameter."""
    model, theirs, ours = theirs, theirs.backbone.layers[0].mixer, ours.blocks[0].mixer
    assert_same_layers(ours, theirs, torch.randn(2, length, ours.out.out_features))
    gradients = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()} | gradients_of(model)
    _, gradients = mamba2.translate(model.config.to_dict(), gradients)
    prefix = "blocks.0.mixer."
    expected = {name.removeprefix(prefix): grad for name, grad in gradients.items() if name.startswith(prefix)}
    assert_same_gradients(gradients_of(ours), expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES)
def test_mixer(case, length):
    assert_same_mixers(*pair(case, layers=1), length)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_model(case, length):
    theirs, ours = pair(case)
    tokens = torch.randint(0, VOCABULARY, (3, length))
    assert_close(ours(tokens)[0], theirs(tokens, use_cache=False).logits, "logits")


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_left_padding(case):
    theirs, ours = pair(case)
    tokens = torch.randint(0, VOCABULARY, (3, 40))
    mask = torch.arange(40) >= torch.tensor([0, 7, 39])[:, None]
    expected = theirs(tokens, attention_mask=mask.long(), use_cache=False).logits
    assert_close(ours(tokens, mask=mask)[0][mask], expected[mask], "logits")


def state_of(cache, layer: int) -> dict[str, torch.Tensor]:
    """Theirs keeps (B, D, width) columns, of which the first is not needed; ours (B, width - 1, D) rows."""
    conv, ssm = cache.get_conv_state(layer), cache.get_recurrent_state(layer)
    return {"conv": conv[:, :, 1:].mT.clone(), "ssm": ssm.clone()}


@pytest.mark.parametrize("prefill", [1, 2, 33])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_state(case, prefill):
    """After a prefill the states are the same; from theirs, our model goes on as theirs does."""
    theirs, ours = pair(case)
    tokens, more = torch.randint(0, VOCABULARY, (2, prefill)), torch.randint(0, VOCABULARY, (2, 6))
    cache = theirs(tokens, use_cache=True).cache_params
    _, state = ours(tokens)
    carried = [state_of(cache, i) for i in range(2)]
    for i, layer in enumerate(carried):
        for name, expected in layer.items():
            assert_close(state["layers"][i][name], expected, f"layer {i}: {name}")
    expected = [theirs(token, cache_params=cache, use_cache=True).logits for token in more.split(1, 1)]
    carried = [mine | layer for mine, layer in zip(state["layers"], carried)]  # the clock is ours alone
    got, after = ours(more, state | {"layers": carried})
    assert_close(got, torch.cat(expected, 1), "logits that follow")
    for i in range(2):
        for name, last in state_of(cache, i).items():
            assert_close(after["layers"][i][name], last, f"layer {i}: {name} at the end")
