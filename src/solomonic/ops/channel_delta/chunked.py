"""The rule by chunks: inside a chunk the errors solve one unit-triangular system (the WY form of arXiv 2510.26692,
section 3, with keys to erase at that are not those written at); chunks follow one another.

    (I + A) E = V - (P * exp(G)) S^T,   A_ts = sum_n p_tn k_sn exp(g_{s+1,n} + ... + g_tn)  for s < t,   G = cumsum(g)

A decay for each channel stands inside the sum over channels, and exp(G_t) exp(-G_s) leaves float32 where decay is
strong. So A is made by halves: between two neighbouring blocks of rows what is left is exp(sum from the second block's
beginning to t) exp(sum from s to the first one's end), neither above 1; blocks of 1, 2, 4, ... rows give all of A.

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head, n key channel.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..chunks import carry_errors, cut, decays, kept, rows
from . import reference
from .call import ChannelDeltaCall


def channel_delta(call: ChannelDeltaCall, chunk: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    q, k, erase, v, log_decay, state, sequences, _ = call
    B, T, H, V = v.shape
    if T == 1:
        return reference.channel_delta(call)
    if (real := sequences.real()) is not None:
        k, log_decay = (x * real[:, :, None, None] for x in (k, log_decay))
    (q, k, erase, v, g), (none,), document = cut((q, k, erase, v, log_decay), (v.new_zeros(B, T, H),), sequences, chunk)
    Q = k.shape[3]
    visible, into, onward, keep = decays(none, document)  # without any decay: 1, and 0 across documents
    into, onward, keep = into[..., None] * kept(g.cumsum(-2)), onward[..., None] * kept(_after(g)), keep[..., None]
    keep = keep * kept(g.sum(-2))  # b c h n
    attend, A = (left(torch.stack([q, erase]), k, g) * visible).unbind()  # b c h t s
    A = A.tril(-1) + torch.eye(Q, device=v.device)
    solved = torch.linalg.solve_triangular(A, torch.cat([v, into * erase], -1), upper=False, unitriangular=True)
    free, response = solved.split([V, k.shape[-1]], -1)  # E = free - response S^T
    read, write = into * q, onward * k

    y, errors, state = carry_errors(free, response, read, attend, write, keep[..., None, :], state)
    return rows(y, T), rows(errors, T), state


def left(at: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """sum_n at_tn k_sn exp(g_{s+1,n} + ... + g_tn) for s <= t, else 0: (..., Q, N) each -> (..., Q, Q)."""
    Q, size = g.shape[-2], 1
    while size < Q:
        size *= 2
    at, k, g = (pad(x, (0, 0, 0, size - Q)) for x in (at, k, g))
    blocks, size = (at * k).sum(-1)[..., None, None], 1
    while size < Q:
        (_, late), (early, _), (before, after) = (x.unflatten(-2, (-1, 2, size)).unbind(-3) for x in (at, k, g))
        below = (late * kept(after.cumsum(-2))) @ (early * kept(_after(before))).mT
        first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
        blocks = torch.cat([torch.cat([first, below], -2), torch.cat([torch.zeros_like(below), second], -2)], -1)
        size *= 2
    return blocks[..., 0, :Q, :Q]


def _after(g: Tensor) -> Tensor:
    """(..., Q, N) -> the sums over the rows after each."""
    return pad(g[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)
