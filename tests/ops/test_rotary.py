"""Rotary attention knows lags alone: where a call begins makes no difference, however far the position."""

import math

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.ops.rotary import Rotation, rotary


def test_angles_far_from_the_beginning_are_those_of_the_definition():
    position = torch.tensor([0, 1, 1000, 99_999, 1_000_000])
    cos, sin = Rotation().table(position, 8)
    for i, p in enumerate(position.tolist()):
        for d in range(4):
            angle = p * float(torch.tensor(10000.0) ** (-torch.tensor(d, dtype=torch.float32) / 4))
            assert abs(cos[i, d].item() - math.cos(angle)) < 1e-6 and abs(sin[i, d].item() - math.sin(angle)) < 1e-6


@pytest.mark.parametrize("far", [1_000, 100_000, 10_000_000])
def test_products_depend_on_the_lag_alone(far):
    q, k = torch.randn(2, 1, 5, 1, 32)
    near = [rotary(x, torch.arange(5)[None] + shift) for x, shift in ((q, 3), (k, 0))]
    away = [rotary(x, torch.arange(5)[None] + shift) for x, shift in ((q, far + 3), (k, far))]
    torch.testing.assert_close((near[0] * near[1]).sum(-1), (away[0] * away[1]).sum(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["sliding_window", "bmojo_f", "bmojo"])
def test_one_call_of_a_hundred_thousand_tokens_is_that_of_chunks(name):
    torch.manual_seed(0)
    sizes = dict(d_model=8, n_layers=1, n_heads=1, window=8, capacity=4, state_size=4, d_ff=8)
    model = LanguageModel(preset(name, vocab_size=16, **sizes)).eval()
    tokens = torch.randint(16, (1, 100_000))
    with torch.inference_mode():
        whole, _ = model(tokens)
        state, parts = None, []
        for chunk in tokens.split(4096, 1):
            logits, state = model(chunk, state)
            parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
