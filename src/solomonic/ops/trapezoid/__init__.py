"""The exponential-trapezoidal scan of a complex state: Mamba-3's."""

from torch import Tensor

from ..._utils.spelling import choose
from ..precision import full_precision
from ..sequence import LEAST_LOG_DECAY, Sequences
from . import reference, scan
from .call import TrapezoidCall
from .composition import compose
from .rotation import phase, wrap

BACKENDS = {"reference": reference.trapezoid, "scan": scan.trapezoid}


def trapezoid(
    x: Tensor,
    B: Tensor,
    C: Tensor,
    log_decay: Tensor,
    step: Tensor,
    mix: Tensor,
    angle: Tensor,
    state: Tensor | None,
    sequences: Sequences,
    backend: str = "scan",
) -> tuple[Tensor, Tensor]:
    """h_t = a_t R_t (h_{t-1} + (1 - l_t) d_t u_{t-1}) + l_t d_t u_t, y_{t,r} = h_t C_{t,r} (arXiv 2603.15569).

    u_t = sum_r x_{t,r} B_{t,r}^T, a = exp(log_decay), d = step, l = mix; R_t rotates dims m and m + M by angle_m.

    x (B, 1 + T, R, H, P) and B (B, 1 + T, R, H, N) of the row before the call, x zero where there is none, and of its T
    rows, in R ranks; C (B, T, R, H, N); log_decay <= 0, step >= 0 and mix in [0, 1] (B, T, H); angle (B, T, H, M) with
    2 M <= N; state (B, H, P, N) after the row before the call. Restarted where a document begins. Returns y (B, T, R,
    H, P) and the state after the last real row, both float32. ValueError for shapes that do not fit, or an unknown
    backend.
    """
    (batch, T, R, H, N), P, M = C.shape, x.shape[-1], angle.shape[-1]
    fits = x.shape == (batch, T + 1, R, H, P) and B.shape == (batch, T + 1, R, H, N) and 2 * M <= N
    fits = fits and log_decay.shape == step.shape == mix.shape == (batch, T, H) and angle.shape == (batch, T, H, M)
    if not (fits and (state is None or state.shape == (batch, H, P, N))):
        shapes = [list(y.shape) for y in (x, B, C, log_decay, step, mix, angle, state) if y is not None]
        expected = (
            "x (B, 1 + T, R, H, P), B (B, 1 + T, R, H, N), C (B, T, R, H, N), log_decay, step and mix (B, T, H), "
            "angle (B, T, H, M) with 2 M <= N, state (B, H, P, N)"
        )
        raise ValueError(f"expected {expected}, got shapes {', '.join(map(str, shapes))}")
    x, B, C, log_decay, step, mix, angle = (y.float() for y in (x, B, C, log_decay, step, mix, angle))
    log_decay = log_decay.clamp_min(LEAST_LOG_DECAY)
    state = x.new_zeros(batch, H, P, N) if state is None else state.float()
    with full_precision(x.device):
        call = TrapezoidCall(x, B, C, log_decay, step, mix, angle, state, sequences)
        return choose("backend", backend, BACKENDS)(call)


__all__ = ["BACKENDS", "compose", "phase", "trapezoid", "wrap"]
