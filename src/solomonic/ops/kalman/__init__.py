"""Test-time ridge regression of values on keys: the scan of Gated KalmaNet."""

from torch import Tensor

from ..._utils.spelling import choose
from ..precision import full_precision
from ..sequence import LEAST_LOG_DECAY, Sequences
from . import chunked, reference
from .call import KalmanCall

BACKENDS = {"reference": reference.kalman, "chunked": chunked.kalman}


def kalman(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor,
    mix: Tensor,
    log_decay: Tensor,
    h: Tensor | None,
    u: Tensor | None,
    sequences: Sequences,
    iterations: int = 30,
    innovate: bool = False,
    backend: str = "chunked",
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """H_t = exp(g_t) H_{t-1} + w_t k_t k_t^T, U_t = exp(g_t) U_{t-1} + w_t v_t k_t^T, x_t = (H_t + l_t I)^-1 q_t,
    y_t = U_t (q_t + a_t (x_t - q_t)), with l_t = 0.02 |H_t| (Frobenius) (arXiv 2511.21016).

    U_t (H_t + l_t I)^-1 is the matrix that fits the weighted past values from their keys best. q, k (B, T, H, K);
    v (B, T, H, V); weight w >= 0, mix a in [0, 1] and log_decay g <= 0 (B, T, H); h (B, H, K, K) and u (B, H, V, K).
    x_t comes of `iterations` steps of Chebyshev's method; each takes a quarter of what is left of the error, or more.
    Restarted where a document begins. Returns y (B, T, H, V), the innovations (B, T, H, V), which are the errors of
    v_t predicted from k_t before it was seen, or None without `innovate` (they cost a second solution), and h and u
    after the last real row, all float32. ValueError when `iterations` is no whole number >= 0.
    """
    if type(iterations) is not int or iterations < 0:
        raise ValueError(
            f"kalman: expected iterations to be a whole number >= 0, got {iterations!r}; the paper's is 30"
        )
    q, k, v, weight, mix, log_decay = (x.float() for x in (q, k, v, weight, mix, log_decay))
    log_decay = log_decay.clamp_min(LEAST_LOG_DECAY)
    B, _, H, V = v.shape
    if h is None or u is None:
        h, u = v.new_zeros(B, H, k.shape[3], k.shape[3]), v.new_zeros(B, H, V, k.shape[3])
    h, u = h.float(), u.float()
    with full_precision(v.device):
        call = KalmanCall(q, k, v, weight, mix, log_decay, h, u, sequences, iterations, innovate)
        return choose("backend", backend, BACKENDS)(call)
