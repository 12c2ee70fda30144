"""Rows cut into chunks, for scans with one decay a head: their shapes, and what is left of a memory from where to where.

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head; g the log decays, G their cumsum inside a chunk.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from .sequence import Sequences

LEAST_LOG = -60.0
"""Of what is kept, less than e^-60 is nothing: products of such numbers leave the range in which processors are fast."""


def kept(log: Tensor, visible: Tensor | None = None) -> Tensor:
    """exp(log), where it is not next to nothing and, if `visible` is given, where that is true; else 0."""
    far = log <= LEAST_LOG
    return log.masked_fill(far if visible is None else far | ~visible, -torch.inf).exp()


def cut(
    wide: tuple[Tensor, ...], narrow: tuple[Tensor, ...], sequences: Sequences, chunk: int
) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """(B, T, H, D) each -> b c h t d, (B, T, H) each -> b c h t, and the document of every row, b or 1, c t, or None.

    Zeros fill the last chunk, as rows of the last document.
    """
    B, T, H = narrow[0].shape
    Q = min(chunk, T)
    C = -(-T // Q)
    document = sequences.document()
    if C * Q > T:
        wide = tuple(pad(x, (0, 0, 0, 0, 0, C * Q - T)) for x in wide)
        narrow = tuple(pad(x, (0, 0, 0, C * Q - T)) for x in narrow)
        if document is not None:
            document = torch.cat([document, document[:, -1:].expand(-1, C * Q - T)], 1)
    return (
        [x.view(B, C, Q, H, -1).transpose(2, 3) for x in wide],
        [x.view(B, C, Q, H).transpose(2, 3) for x in narrow],
        None if document is None else document.view(-1, C, Q),
    )


def rows(x: Tensor, length: int) -> Tensor:
    """b c h t d -> (B, length, H, D): the inverse of `cut`."""
    return x.transpose(2, 3).flatten(1, 2)[:, :length]


def decays(g: Tensor, document: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is left: of row s at row t (b c h t s), of the chunk's incoming memory at row t (b c h t), of row s in the
    outgoing memory (b c h t), and of the incoming memory in the outgoing (b c h); 0 across documents."""
    Q = g.shape[-1]
    total = g.cumsum(-1)
    visible = torch.ones(Q, Q, dtype=torch.bool, device=g.device).tril()
    into, onward, keep = kept(total), kept(total[..., -1:] - total), kept(total[..., -1])
    if document is not None:
        end = pad(document[..., -1], (1, 0))
        visible = visible & (document[..., :, None] == document[..., None, :])[:, :, None]
        into = into * (document == end[:, :-1, None])[:, :, None]
        onward = onward * (document == end[:, 1:, None])[:, :, None]
        keep = keep * (end[:, 1:] == end[:, :-1])[:, :, None]
    decay = kept(total[..., :, None] - total[..., None, :], visible)
    return decay, into, onward, keep


def carry_errors(
    free: Tensor, response: Tensor, read: Tensor, attend: Tensor, write: Tensor, keep: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The delta rule from chunk to chunk: E = free - response S^T, Y = read S^T + attend E, S = keep * S + E^T write.

    All but the state S (b h v k) have the chunks' axis second; returns Y and E, b c h t v, and the last S.
    """
    out, errors = [], []
    for c in range(free.shape[1]):
        error = free[:, c] - response[:, c] @ state.mT
        out.append(read[:, c] @ state.mT + attend[:, c] @ error)
        errors.append(error)
        state = keep[:, c] * state + error.mT @ write[:, c]
    return torch.stack(out, 1), torch.stack(errors, 1), state
