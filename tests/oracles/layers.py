"""A layer or a model of ours beside one of others."""

import torch

from solomonic import LanguageModel
from solomonic.ops.sequence import fresh

from ..laws.cases import assert_close, shake


def beside(theirs, translate, settings):
    """Their model with every parameter away from its initial value, and ours with the same weights."""
    theirs = theirs.eval()
    shake(theirs, 0.2)
    translated, weights = translate(settings.to_dict(), theirs.state_dict())
    ours = LanguageModel(translated)
    ours.load_state_dict(weights)
    return theirs, ours


def assert_same_layers(ours, theirs, x):
    """Outputs for x (B, T, d_model), and the gradients of x; those of the parameters are left on them."""
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = ours(mine, None, fresh(*x.shape[:2]))[0], theirs(other)
    assert_close(got, expected, "output")
    direction = torch.randn_like(got)
    (got * direction).sum().backward()
    (expected * direction).sum().backward()
    assert_close(mine.grad, other.grad, "gradient of the input")
