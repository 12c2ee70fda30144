"""The gated delta rule by chunks: inside a chunk the errors solve one unit-triangular system
(the WY form of DeltaNet, arXiv 2406.06484, with the gates of arXiv 2412.06464); chunks follow one another.

    (I + A) E = V - diag(exp(G)) K S^T,   A_ts = exp(G_t - G_s) b_s k_t.k_s  for s < t,   G = cumsum(g)

Letters: b batch, c chunk, t s rows of a chunk (Q of them), h head.
"""

import torch
from torch import Tensor

from ..chunks import carry_errors, cut, decays, rows
from . import reference
from .call import DeltaCall


def gated_delta(call: DeltaCall, chunk: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, beta, log_decay, state, sequences, _ = call
    T, V = v.shape[1], v.shape[3]
    if T == 1:
        return reference.gated_delta(call)
    if (real := sequences.real()) is not None:
        beta = beta * real[:, :, None]
        log_decay = log_decay * real[:, :, None]
    (q, k, v), (beta, log_decay), document = cut((q, k, v), (beta, log_decay), sequences, chunk)
    Q = k.shape[3]
    decay, into, onward, keep = decays(log_decay, document)
    decay = decay * beta[..., None, :]  # b c h t s
    A = ((k @ k.mT) * decay).tril(-1) + torch.eye(Q, device=v.device)
    solved = torch.linalg.solve_triangular(A, torch.cat([v, into[..., None] * k], -1), upper=False, unitriangular=True)
    free, response = solved.split([V, k.shape[-1]], -1)  # E = free - response S^T
    attend = (q @ k.mT) * decay
    read = into[..., None] * q
    write = (onward * beta)[..., None] * k

    y, errors, state = carry_errors(free, response, read, attend, write, keep[..., None, None], state)
    return rows(y, T), rows(errors, T), state
