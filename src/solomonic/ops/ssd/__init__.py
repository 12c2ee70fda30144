"""State-space duality: the scan of Mamba-2."""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from ..precision import full_precision
from ..sequence import LEAST_LOG_DECAY, Sequences
from . import chunked, fla, reference
from .call import SSDCall

_compiled = dispatch.compiled_function(__name__, "ssd")


def _load_triton() -> ModuleType:
    from . import triton

    return triton


def _triton(call: SSDCall) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = dispatch.required_triton(_load_triton, "chunked").ssd(call)
    return result


BACKENDS: dict[str, Callable[[SSDCall], tuple[Tensor, Tensor]]] = {
    "reference": reference.ssd,
    "chunked": chunked.ssd,
    "compiled": _compiled,
    "fla": fla.ssd,
    "triton": _triton,
}
TAKE_STEP_AND_SKIP = (_compiled, _triton)
"""Those whose loops take a step and a skip; for others the values are multiplied beforehand."""


def fastest(v: Tensor, k: Tensor, sequences: Sequences) -> str:
    """The backend: for several rows "triton" or "fla" on an accelerator that it can serve, "compiled" on a CPU with numba.

    Else "chunked", which decodes, and is what `torch.compile` makes something of where there is no "triton".
    """
    if v.shape[1] == 1 or v.is_meta:
        return "chunked"
    if v.is_cpu:
        return "compiled" if dispatch.compiled_pays(v) else "chunked"
    if (kernels := dispatch.triton_module(_load_triton)) is not None and kernels.refusal(v, k) is None:
        return "triton"
    return "chunked" if torch.compiler.is_compiling() or fla.refusal(v, sequences) else "fla"


def ssd(
    v: Tensor,
    k: Tensor,
    q: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    sequences: Sequences,
    backend: str | None = None,
    *,
    step: Tensor | None = None,
    skip: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = exp(g_t) S_{t-1} + step_t v_t k_t^T, y_t = S_t q_t + skip v_t (arXiv 2405.21060), restarted where a document begins.

    v (B, T, H, P); k, q (B, T, G, N), G groups of H/G heads; log_decay g <= 0 (B, T, H); state (B, H, P, N); step
    (B, T, H), None for 1; skip (H,), None for 0. Returns y (B, T, H, P) and the state after the last real row, both
    float32. `backend` None is `fastest`. ValueError for shapes that do not fit, and for a backend that is not there, or that
    cannot serve the call.
    """
    (B, T, H, P), (G, N) = v.shape, k.shape[2:]
    fits = k.shape == q.shape == (B, T, G, N) and H % G == 0 and log_decay.shape == (B, T, H)
    fits = fits and (state is None or state.shape == (B, H, P, N))
    if not (fits and (step is None or step.shape == (B, T, H)) and (skip is None or skip.shape == (H,))):
        shapes = [list(x.shape) for x in (v, k, q, log_decay, state, step, skip) if x is not None]
        expected = "v (B, T, H, P), k and q (B, T, G, N), log_decay and step (B, T, H), state (B, H, P, N), skip (H,)"
        raise ValueError(f"expected {expected}, got shapes {', '.join(map(str, shapes))}")
    scan = choose("backend", backend or fastest(v, k, sequences), BACKENDS)
    if scan is not _triton:
        v, k, q = (x.float() for x in (v, k, q))
    step, skip = (None if x is None else x.float() for x in (step, skip))
    log_decay = log_decay.float().clamp_min(LEAST_LOG_DECAY)
    if state is None:
        state = log_decay.new_zeros(B, H, P, N)
    with full_precision(v.device):
        if scan in TAKE_STEP_AND_SKIP:
            return scan(SSDCall(v, k, q, log_decay, state, sequences, step, skip))
        y, state = scan(SSDCall(v if step is None else v * step[..., None], k, q, log_decay, state, sequences))
        return y if skip is None else y + v * skip[:, None], state
