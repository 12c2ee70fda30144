"""State-space duality: the scan of Mamba-2."""

import torch
from torch import Tensor

from ...spelling import choose
from ..place import LEAST_LOG_DECAY, Place
from ..precision import full_precision
from . import chunked, fla, reference

BACKENDS = {"reference": reference.ssd, "chunked": chunked.ssd, "fla": fla.ssd}


def fastest(v: Tensor, place: Place) -> str:
    """The backend: "fla" for several rows on an accelerator that it can serve, else "chunked", which compiles and decodes."""
    if v.shape[1] == 1 or v.is_cpu or v.is_meta or torch.compiler.is_compiling():
        return "chunked"
    return "chunked" if fla.refusal(v, place) else "fla"


def ssd(
    v: Tensor,
    k: Tensor,
    q: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    place: Place,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t) S_{t-1} + v_t k_t^T, y_t = S_t q_t (arXiv 2405.21060), restarted where a document begins.

    v (B, T, H, P); k, q (B, T, G, N), G groups of H/G heads; log_decay g <= 0 (B, T, H); state (B, H, P, N).
    Returns y (B, T, H, P) and the state after the last real row, both float32. `backend` None is `fastest`. ValueError
    for a backend that is not there, or that cannot serve the call.
    """
    v, k, q, log_decay = (x.float() for x in (v, k, q, log_decay))
    log_decay = log_decay.clamp_min(LEAST_LOG_DECAY)
    if state is None:
        state = v.new_zeros(v.shape[0], v.shape[2], v.shape[3], k.shape[3])
    with full_precision(v.device):
        return choose("backend", backend or fastest(v, place), BACKENDS)(v, k, q, log_decay, state, place)
