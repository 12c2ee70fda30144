"""The gated delta rule: the scan of Gated DeltaNet."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from ..precision import full_precision
from ..recurrence import initial
from ..sequence import LEAST_LOG_DECAY, Sequences
from . import chunked, fla, reference
from .call import DeltaCall

BACKENDS: dict[str, Callable[[DeltaCall], tuple[Tensor, Tensor | None, Tensor]]] = {
    "reference": reference.gated_delta,
    "chunked": chunked.gated_delta,
    "compiled": dispatch.compiled_function(__name__, "gated_delta"),
    "fla": fla.gated_delta,
}


def fastest(k: Tensor, sequences: Sequences, innovate: bool) -> str:
    """The backend: for several rows "fla" on an accelerator that it can serve, "compiled" on a CPU with numba.

    Else "chunked", which `torch.compile` compiles, and decodes.
    """
    if k.shape[1] == 1 or k.is_meta or torch.compiler.is_compiling():
        return "chunked"
    if k.is_cpu:
        return "compiled" if dispatch.compiled_pays(k) else "chunked"
    return "chunked" if fla.refusal(k, sequences, innovate) else "fla"


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    sequences: Sequences,
    backend: str | None = None,
    innovate: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """S_t = exp(g_t) S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T, y_t = S_t q_t (arXiv 2412.06464).

    q, k (B, T, H, K); v (B, T, H, V); beta in [0, 1] and log_decay g <= 0 (B, T, H); state (B, H, V, K).
    Restarted where a document begins. Returns y (B, T, H, V), the innovations e_t = v_t - exp(g_t) S_{t-1} k_t
    (B, T, H, V), and the state after the last real row, all float32. Without `innovate` the innovations may be None.
    `backend` None is `fastest`. ValueError for a backend that is not there, or that cannot serve the call.
    """
    q, k, v, beta, log_decay = (x.float() for x in (q, k, v, beta, log_decay))
    log_decay = log_decay.clamp_min(LEAST_LOG_DECAY)
    state = initial(state, v, k)
    with full_precision(v.device):
        scan = choose("backend", backend or fastest(k, sequences, innovate), BACKENDS)
        return scan(DeltaCall(q, k, v, beta, log_decay, state, sequences, innovate))
