"""Gated DeltaNet against the one in Hugging Face's Qwen3-Next, weights copied: outputs, gradients, state."""

import pytest
import torch

from solomonic.mixers.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from solomonic.ops.sequence import Sequences, fresh

from ..laws.cases import assert_close, assert_same_gradients, gradients_of, shake
from .layers import assert_same_layers

transformers = pytest.importorskip("transformers", minversion="5.23")
modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")

CASES = {  # width, heads, key dim, value dim, conv width
    "plain": (16, 2, 8, 8, 4),
    "wide values": (24, 3, 4, 16, 4),
    "one head": (16, 1, 16, 8, 2),
}


def pair(case: str):
    width, heads, key_dim, value_dim, conv_width = CASES[case]
    config = modeling.Qwen3NextConfig(
        hidden_size=width,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=key_dim,
        linear_value_head_dim=value_dim,
        linear_conv_kernel_dim=conv_width,
        rms_norm_eps=1e-5,
    )
    theirs = modeling.Qwen3NextGatedDeltaNet(config, 0)
    ours = GatedDeltaNet(width, GatedDeltaNetConfig(heads, key_dim, value_dim, conv_width))
    shake(theirs, 0.3)
    with torch.no_grad():
        theirs.in_proj_qkvz.weight *= 3
    ours.load_state_dict(renamed({name: weight.detach() for name, weight in theirs.named_parameters()}, CASES[case]))
    return theirs, ours, config


def renamed(theirs: dict[str, torch.Tensor], sizes) -> dict[str, torch.Tensor]:
    """Their weights, or gradients, by our names: theirs orders rows by head, ours by what they are."""
    _, heads, key_dim, value_dim, _ = sizes
    rows = theirs["in_proj_qkvz.weight"].unflatten(0, (heads, -1)).split([key_dim, key_dim, value_dim, value_dim], 1)
    q, k, v, gate = (x.flatten(0, 1) for x in rows)
    beta, step = theirs["in_proj_ba.weight"].unflatten(0, (heads, 2)).unbind(1)
    same = {name: theirs[name] for name in ("A_log", "dt_bias", "norm.weight")}
    return same | {
        "qkv.weight": torch.cat([q, k, v]),
        "gates.weight": torch.cat([beta, step, gate]),
        "conv.weight": theirs["conv1d.weight"],
        "out.weight": theirs["out_proj.weight"],
    }


@pytest.mark.parametrize("length", [1, 3, 32, 75])
@pytest.mark.parametrize("case", CASES)
def test_mixer(case, length):
    theirs, ours, _ = pair(case)
    assert_same_layers(ours, theirs, torch.randn(2, length, CASES[case][0]))
    assert_same_gradients(gradients_of(ours), renamed(gradients_of(theirs), CASES[case]))


@pytest.mark.parametrize("prefill", [1, 2, 33])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_state(case, prefill):
    """After a prefill the states are the same; from theirs, ours goes on as theirs does."""
    theirs, ours, config = pair(case)
    x, more = torch.randn(2, prefill, CASES[case][0]), torch.randn(2, 6, CASES[case][0])
    cache = transformers.DynamicCache(config=config)
    theirs(x, cache_params=cache)
    _, state = ours(x, None, fresh(2, prefill))
    carried = {"conv": cache.get_conv_state(0)[:, :, 1:].mT.clone(), "ssm": cache.get_recurrent_state(0).mT.clone()}
    for name, expected in carried.items():
        assert_close(state[name], expected, name)
    expected = torch.cat([theirs(row, cache_params=cache) for row in more.split(1, 1)], 1)
    sequences = Sequences(prefill + torch.arange(6)[None], torch.full((2,), prefill + 6), aligned=False)
    got, after = ours(more, state | carried, sequences)  # the clock is ours alone
    assert_close(got, expected, "outputs that follow")
    assert_close(after["ssm"], cache.get_recurrent_state(0).mT, "ssm at the end")
    assert_close(after["conv"], cache.get_conv_state(0)[:, :, 1:].mT, "conv at the end")
