"""Layers: the short way gives what the plain one does."""

import torch

from solomonic.layers import ShortConvolution
from solomonic.ops.place import Place, fresh


def test_a_convolution_along_a_direction_is_its_product_with_it():
    torch.manual_seed(0)
    for bias in (False, True):
        conv, direction = ShortConvolution(6, 4, bias), torch.randn(6, requires_grad=True)
        if bias:
            torch.nn.init.normal_(conv.bias)
        x, state = torch.randn(2, 9, 6, requires_grad=True), torch.randn(2, 3, 6, requires_grad=True)
        position = torch.tensor([[7, 8, 9, 0, 1, 2, 3, 0, 1], [3, 4, 5, 6, 7, 8, 9, 10, 11]])
        packed = Place(position, position[:, -1] + 1, aligned=False, packed=True)
        for place, before in ((fresh(2, 9), None), (packed, state)):
            plain, rows = conv(x, before, place)
            short, same = conv.along(direction, x, before, place)
            torch.testing.assert_close(short, plain @ direction)
            assert torch.equal(rows, same)
            given = [x, direction, *conv.parameters(), *([] if before is None else [state])]
            weight = torch.randn(2, 9)
            expected = torch.autograd.grad((plain @ direction * weight).sum(), given)
            for got, wanted in zip(torch.autograd.grad((short * weight).sum(), given), expected):
                torch.testing.assert_close(got, wanted)


def test_the_convolution_of_rows_without_packing_is_that_of_one_document():
    """Two ways through the code: `packed` with nothing packed, and not."""
    torch.manual_seed(0)
    conv = ShortConvolution(6, 4)
    x, state = torch.randn(2, 9, 6, requires_grad=True), torch.randn(2, 3, 6, requires_grad=True)
    position = torch.arange(20, 29)[None]
    plain = conv(x, state, Place(position, torch.full((2,), 29), aligned=False, packed=True))[0]
    fused = conv(x, state, Place(position, torch.full((2,), 29), aligned=False))[0]
    torch.testing.assert_close(fused, plain)
    given, weight = [x, state, conv.weight], torch.randn(2, 9, 6)
    expected = torch.autograd.grad((plain * weight).sum(), given)
    for got, wanted in zip(torch.autograd.grad((fused * weight).sum(), given), expected):
        torch.testing.assert_close(got, wanted)
