"""Layers: the short way gives what the plain one does."""

import torch

from solomonic.layers import RMSNorm, ShortConvolution
from solomonic.ops.sequence import Sequences


def test_the_convolution_of_rows_without_packing_is_that_of_one_document():
    """Two ways through the code: `packed` with nothing packed, and not."""
    torch.manual_seed(0)
    conv = ShortConvolution(6, 4)
    x, state = torch.randn(2, 9, 6, requires_grad=True), torch.randn(2, 3, 6, requires_grad=True)
    position = torch.arange(20, 29)[None]
    plain = conv(x, state, Sequences(position, torch.full((2,), 29), aligned=False, packed=True))[0]
    fused = conv(x, state, Sequences(position, torch.full((2,), 29), aligned=False))[0]
    torch.testing.assert_close(fused, plain)
    inputs, weight = [x, state, conv.weight], torch.randn(2, 9, 6)
    expected = torch.autograd.grad((plain * weight).sum(), inputs)
    for got, wanted in zip(torch.autograd.grad((fused * weight).sum(), inputs), expected):
        torch.testing.assert_close(got, wanted)


def test_the_norm_and_its_gradients_are_those_of_torch():
    torch.manual_seed(0)
    norm, x, dy = RMSNorm(6), torch.randn(3, 5, 6, requires_grad=True), torch.randn(3, 5, 6)
    torch.nn.init.normal_(norm.weight)
    plain = torch.nn.functional.rms_norm(x, (6,), norm.weight, norm.eps)
    inputs, ours = [x, norm.weight], norm(x)
    assert torch.equal(ours, plain)
    expected = torch.autograd.grad(plain, inputs, dy)
    for got, wanted in zip(torch.autograd.grad(ours, inputs, dy), expected):
        torch.testing.assert_close(got, wanted)
