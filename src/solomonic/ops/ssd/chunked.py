"""State-space duality by chunks (Mamba-2, arXiv 2405.21060, section 6): matrix products inside a chunk,
a short recurrence between chunks. Cost linear in T, no loop over time; chunks go `GROUP` at a time.

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head, p value dim, n key dim.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..chunks import kept
from ..sequence import Sequences
from .call import SSDCall

GROUP = 64  # chunks whose states are carried by one (GROUP + 1)^2 product


def ssd(call: SSDCall, chunk: int = 32) -> tuple[Tensor, Tensor]:
    v, k, q, log_decay, state, sequences, *_ = call
    B, T, H, P = v.shape
    if (real := sequences.real()) is not None:
        v = v * real[:, :, None, None]
        log_decay = log_decay * real[:, :, None]
    if T == 1:
        return _step(v, k, q, log_decay, state, sequences)
    Q = min(chunk, T)
    C = -(-T // Q)
    document = sequences.document()
    end = state.new_zeros(1, C + 1)  # the document each chunk ends in; column 0 is the state's
    if C * Q > T:
        v, k, q = (pad(x, (0, 0, 0, 0, 0, C * Q - T)) for x in (v, k, q))
        log_decay = pad(log_decay, (0, 0, 0, C * Q - T))
        if document is not None:
            document = torch.cat([document, document[:, -1:].expand(-1, C * Q - T)], 1)
    G, N = k.shape[2:]
    R = H // G
    v = v.view(B, C, Q, G, R, P).permute(0, 1, 3, 4, 2, 5)  # b c g r s p
    k, q = (x.view(B, C, Q, G, N).transpose(2, 3) for x in (k, q))  # b c g s n
    total = log_decay.view(B, C, Q, G, R).permute(0, 1, 3, 4, 2).cumsum(-1)  # b c g r t

    decay = total[..., :, None] - total[..., None, :]  # from row s to row t
    visible = torch.ones(Q, Q, dtype=torch.bool, device=v.device).tril()
    into = kept(total)  # what the chunk's incoming state keeps at row t
    onward = kept(total[..., -1:] - total)  # what row s keeps at the chunk's end
    if document is not None:
        document = document.view(-1, C, Q)
        end = pad(document[..., -1], (1, 0))
        visible = visible & (document[..., :, None] == document[..., None, :])[:, :, None, None]
        into = into * (document == end[:, :-1, None])[:, :, None, None]
        onward = onward * (document == end[:, 1:, None])[:, :, None, None]
    weight = kept(decay, visible) * (q @ k.mT)[:, :, :, None]
    y = weight @ v  # b c g r t p

    added = (v * onward[..., None]).mT @ k[:, :, :, None]  # b c g r p n
    state = state.view(B, 1, G, R, P, N)
    incoming = []
    for first in range(0, C, GROUP):
        part = slice(first, first + GROUP)
        log_keep = pad(total[:, part, ..., -1].permute(0, 2, 3, 1), (1, 0))  # b g r c
        # sums of what lies between two chunks, not differences of sums from the first: a strong decay long ago
        # would take the last digits of a weak one now
        keep = log_keep[..., :, None].expand(*log_keep.shape, log_keep.shape[-1]).tril(-1).cumsum(-2)
        here = end[:, first : first + GROUP + 1]
        same = (here[:, :, None] == here[:, None, :]).tril()[:, None, None]
        keep = kept(keep, same)
        states = torch.cat([state, added[:, part]], 1).permute(0, 2, 3, 1, 4, 5).flatten(4)  # b g r c pn
        states = (keep @ states).unflatten(4, (P, N)).permute(0, 3, 1, 2, 4, 5)  # b c g r p n
        incoming.append(states[:, :-1])
        state = states[:, -1:]
    y = y + into[..., None] * (q[:, :, :, None] @ torch.cat(incoming, 1).mT)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(B, C * Q, H, P)[:, :T]
    return y, state.reshape(B, H, P, N).clone()  # not a view of all chunks' states


def _step(
    v: Tensor, k: Tensor, q: Tensor, log_decay: Tensor, state: Tensor, sequences: Sequences
) -> tuple[Tensor, Tensor]:
    """One row: S = exp(g) S + v k^T, y = S q."""
    _B, _, H, _P = v.shape
    keep = log_decay[:, 0].exp()
    if sequences.packed:
        keep = keep * (sequences.position != 0)
    k, q = (x[:, 0].repeat_interleave(H // x.shape[2], 1) for x in (k, q))  # b h n
    state = keep[..., None, None] * state + v[:, 0, :, :, None] * k[:, :, None]
    return (state @ q[..., None])[..., 0][:, None], state
