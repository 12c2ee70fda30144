"""The gated delta rule by chunks: inside a chunk the errors solve one unit-triangular system
(the WY form of DeltaNet, arXiv 2406.06484, with the gates of arXiv 2412.06464); chunks follow one another.

    (I + A) E = V - diag(exp(G)) K S^T,   A_ts = exp(G_t - G_s) b_s k_t.k_s  for s < t,   G = cumsum(g)

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head.
"""

import torch
from torch import Tensor

from ..chunks import cut, decays, rows
from ..sequence import Sequences
from . import reference


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor,
    sequences: Sequences,
    innovate: bool = True,
    chunk: int = 32,
) -> tuple[Tensor, Tensor, Tensor]:
    T, V = v.shape[1], v.shape[3]
    if T == 1:
        return reference.gated_delta(q, k, v, beta, log_decay, state, sequences)
    if (real := sequences.real()) is not None:
        beta = beta * real[:, :, None]
        log_decay = log_decay * real[:, :, None]
    (q, k, v), (beta, log_decay), document = cut((q, k, v), (beta, log_decay), sequences, chunk)
    C, Q = k.shape[1], k.shape[3]
    decay, into, onward, keep = decays(log_decay, document)
    decay = decay * beta[..., None, :]  # b c h t s
    A = ((k @ k.mT) * decay).tril(-1) + torch.eye(Q, device=v.device)
    solved = torch.linalg.solve_triangular(A, torch.cat([v, into[..., None] * k], -1), upper=False, unitriangular=True)
    free, response = solved.split([V, k.shape[-1]], -1)  # E = free - response S^T
    attend = (q @ k.mT) * decay
    read = into[..., None] * q
    write = (onward * beta)[..., None] * k

    out, errors = [], []
    for c in range(C):
        error = free[:, c] - response[:, c] @ state.mT
        out.append(read[:, c] @ state.mT + attend[:, c] @ error)
        errors.append(error)
        state = keep[:, c, :, None, None] * state + error.mT @ write[:, c]
    return rows(torch.stack(out, 1), T), rows(torch.stack(errors, 1), T), state
