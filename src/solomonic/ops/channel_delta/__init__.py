"""The delta rule with a decay for each key channel: the scan of Kimi Delta Attention and of Gated DeltaNet-2."""

import torch
from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from ..precision import full_precision
from ..recurrence import initial
from ..sequence import LEAST_LOG_DECAY, Sequences
from . import chunked, reference
from .call import ChannelDeltaCall

BACKENDS = {
    "reference": reference.channel_delta,
    "chunked": chunked.channel_delta,
    "compiled": dispatch.compiled_function(__name__, "channel_delta"),
}


def fastest(k: Tensor) -> str:
    """The backend: for several rows on a CPU with numba "compiled".

    Else "chunked", which `torch.compile` compiles, and decodes.
    """
    if k.shape[1] == 1 or k.is_meta or not k.is_cpu or torch.compiler.is_compiling():
        return "chunked"
    return "compiled" if dispatch.compiled_pays(k) else "chunked"


def channel_delta(
    q: Tensor,
    k: Tensor,
    erase: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    sequences: Sequences,
    backend: str | None = None,
    innovate: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """S_t = S_{t-1} Diag(exp(g_t)) (I - p_t k_t^T) + v_t k_t^T, y_t = S_t q_t, with p the keys to erase at.

    q, k, erase p and log_decay g <= 0 (B, T, H, K); v (B, T, H, V); state (B, H, V, K). How much is erased and how much
    is written are sizes of p and k, or of p and v:

        k = b_t k_t, p = k_t                        Kimi Delta Attention (arXiv 2510.26692, section 3)
        p = b_t k_t, v = w_t v_t, by channel        Gated DeltaNet-2 (arXiv 2605.22791)
        k = b_t k_t, p = k_t, one g for all of K    `ops.gated_delta`

    Restarted where a document begins. Returns y (B, T, H, V), the innovations e_t = v_t - S_{t-1} Diag(exp(g_t)) p_t
    (B, T, H, V), and the state after the last real row, all float32. Without `innovate` the innovations may be None.
    `backend` None is `fastest`. ValueError for a backend that is not there, or that cannot serve the call.
    """
    q, k, erase, v, log_decay = (x.float() for x in (q, k, erase, v, log_decay))
    log_decay = log_decay.clamp_min(LEAST_LOG_DECAY)
    state = initial(state, v, k)
    with full_precision(v.device):
        scan = choose("backend", backend or fastest(k), BACKENDS)
        return scan(ChannelDeltaCall(q, k, erase, v, log_decay, state, sequences, innovate))
