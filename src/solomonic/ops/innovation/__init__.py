"""Innovation scores: how new a token is to what the layer already knew."""

import torch
from torch import Tensor

from ..._utils.spelling import choose
from ..sequence import Sequences, advance, extend
from . import reference, shifted

BACKENDS = {"reference": reference.prediction, "shifted": shifted.prediction}
WIDTH = 4
NOISE = 1e-4
"""An error below this share of the output counts as none: on constant input it is rounding, and would decide."""


def innovation(
    f: Tensor, kind: str, state: Tensor | None, sequences: Sequences, backend: str = "shifted"
) -> tuple[Tensor, Tensor]:
    """Error of the causal-average predictor of the fading output (B'MOJO, arXiv 2407.06324, section 3).

    f (B, T, D); kind "norm" or "cosine"; state (B, WIDTH, D), the last outputs. Returns (B, T) float32, state.
    """
    extended = extend(state, f.float(), WIDTH)
    predicted = choose("backend", backend, BACKENDS)(extended, sequences, WIDTH)
    if kind == "norm":
        score, least = (f.float() - predicted).norm(dim=-1), NOISE * f.float().norm(dim=-1)
    else:
        score, least = 1 - torch.cosine_similarity(f.float(), predicted, -1), NOISE
    return torch.where(score > least, score, 0), advance(extended, sequences, WIDTH)


def random_score(position: Tensor) -> Tensor:
    """(B, T) positions -> (B, T) float32 in [0, 1): a fixed hash of the position (splitmix-style, 31 bits)."""
    x = (position + 1) * 0x9E3779B1 & 0x7FFFFFFF
    x = (x ^ (x >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF
    x = (x ^ (x >> 12)) * 0x297A2D39 & 0x7FFFFFFF
    return (x ^ (x >> 15)).float() / 2**31


def rank(score: Tensor) -> Tensor:
    """The float32 score as it is compared: rounded to 8 significant bits, half to even, detached.

    Tokens in the same context have equal scores up to rounding errors, which differ between machines, batch shapes and
    chunks. Rounding to fewer bits makes them equal again, and selection prefers the older one. A cast to bfloat16 and
    back rounds in the same way, but compilers remove it.
    """
    bits = score.detach().view(torch.int32)
    odd = (bits & 0x10000) != 0
    return ((bits + 0x7FFF + odd) & ~0xFFFF).view(torch.float32)


def priority(score: Tensor, lost: Tensor | None, exact: bool) -> Tensor:
    """What candidates for the slots are sorted by, (B, S): the rank of their scores (B, S), less what these have lost.

    `lost` (B, S) is by the layer's clock, None where scores do not decay. `exact` compares the scores as they are.
    """
    order = score.detach() if exact else rank(score)
    return order if lost is None else order - lost.detach()
