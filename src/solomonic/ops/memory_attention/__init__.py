"""Attention over the memories of a B'MOJO layer in one softmax (arXiv 2407.06324).

For the query of row i, w = window, s = span, positions within its document:

    group     keys and values of rows j      visible when                       rotary
    window    k_j, v_j                       i - w < j <= i                     yes
    fading    k~_j, v~_j                     i - w - s < j <= i - w             yes
    eidetic   k_j, v_j, j in M(i)            j <= i - w; see `ops.selection`    no: found by content at any distance
    stored    what a store gave, `Stored`    `Stored.visible`                   no

The state holds keys before rotation: rotary attention knows lags only, so keys are rotated by their coordinate in the
call, which stays small however long the stream is.
"""

import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ..._utils.spelling import choose
from .. import dispatch
from ..innovation import priority
from ..rotary import Rotation, Scaling
from ..selection import ABSENT
from ..sequence import Sequences, advance, extend
from . import reference, tiled
from .call import AttentionCall, Stored
from .state import AttentionState, init_state


def _load_triton() -> ModuleType:
    from . import triton

    return triton


def _triton(call: AttentionCall) -> tuple[Tensor, Tensor | None]:
    if call.stored is not None:
        raise ValueError(f"backend 'triton': {NOT_STORED}; backend 'tiled' serves every call")
    result: tuple[Tensor, Tensor | None] = dispatch.required_triton(_load_triton, "tiled").attend(call)
    return result


Backend = Callable[[AttentionCall], tuple[Tensor, Tensor | None]]

BACKENDS: dict[str, Backend] = {
    "reference": reference.attend,
    "tiled": tiled.attend,
    "triton": _triton,
    "decode": dispatch.compiled_function(__name__, "attend", "decode"),
}
NOT_STORED = "its kernels do not attend to a store yet"


def refusal(backend: str, x: Tensor) -> str | None:
    """Why `backend` cannot serve queries, keys or values like x (..., D), or None where it can. "decode" serves single rows."""
    choose("backend", backend, BACKENDS)
    if backend == "decode":
        return (
            None if dispatch.numba_serves(x) and x.dtype == torch.float32 else "it is for float32 on a CPU, with numba"
        )
    if backend != "triton":
        return None
    return dispatch.NO_TRITON if (kernels := dispatch.triton_module(_load_triton)) is None else kernels.refusal(x)


def fastest(x: Tensor) -> str:
    """The backend for queries, keys and values like x (..., D): "triton" on an accelerator that it can serve, or "tiled".

    One that it cannot serve gets one warning that says why.
    """
    if x.is_cpu or x.is_meta:
        return "tiled"
    reason = refusal("triton", x)
    if reason is None:
        return "triton"
    if not torch.compiler.is_compiling():
        warnings.warn(f"memory attention is not fused: {reason}", stacklevel=3)
    return "tiled"


def _decodes(x: Tensor, *others: Tensor | None) -> bool:
    """Whether "decode" can serve a row of these."""
    if refusal("decode", x) or torch.is_autocast_enabled("cpu"):
        return False
    return not torch.is_grad_enabled() and all(y is None or y.dtype == x.dtype for y in others)


def memory_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: AttentionState | None,
    sequences: Sequences,
    *,
    window: int,
    fading: tuple[Tensor, Tensor, Tensor] | None = None,
    span: int = 0,
    score: Tensor | None = None,
    clock: Tensor | None = None,
    fades: bool = False,
    admit: bool = False,
    exact: bool = False,
    capacity: int = 0,
    block: int,
    base: float = 10000.0,
    scaling: Scaling | None = None,
    stored: Stored | None = None,
    backend: str | None = None,
    observe: Callable[[Backend, AttentionCall], tuple[Tensor, Tensor | None]] | None = None,
) -> tuple[Tensor, AttentionState]:
    """q (B, T, H, D); k, v (B, T, G, D), H a multiple of G, before rotation; fading (q~, k~, v~), shaped alike.

    score (B, T) float32 ranks the rows for the eidetic memory, rounded (`innovation.rank`) unless `exact`; `admit` adds
    its log-sigmoid to the logits of the rows it admitted, which is how it gets a gradient. `clock` (B, T) >= 0 is what the
    scores of all earlier rows lose at each row: of two rows the order is that of s_j + sum of the clock up to j, the same
    whenever it is asked for. With `fades` the rows' logits lose it too, which is how the clock gets a gradient.
    `block <= window` when there is a capacity, so that no row leaves the window before it could be kept. `stored` is attended to as it is given.
    Returns (B, T, H, D) and the state after the last real row; its slot_age counts the rows since the slot's own, 0 in
    an empty slot. `backend` None is `fastest`, and "tiled" where something is stored.
    `observe` is given the backend and the call, and returns what the backend would. ValueError for a backend that is not there,
    or that cannot serve the call.
    """
    B, T, G, D = k.shape
    if state is None:
        sizes = {"window": window, "span": span, "capacity": capacity}
        state = init_state(B, G, D, **sizes, decays=clock is not None, device=k.device, dtype=k.dtype)
    after: AttentionState = {}

    def extended(name: str, x: Tensor, size: int) -> Tensor:
        """The ring of that name with the call's rows behind it; the ring moves on."""
        rows = extend(state[name], x, size)
        after[name] = advance(rows, sequences, size)
        return rows

    q_far = k_far = v_far = q_kept = k_kept = v_kept = None
    if window and not capacity:
        k, v = extended("k", k, window), extended("v", v, window)
    if fading is not None:
        q_far, k_fading, v_fading = fading
        k_far, v_far = extended("k_fading", k_fading, window + span), extended("v_fading", v_fading, window + span)
    order = coordinate = bias = raw = lost = faded = None
    if capacity:
        assert score is not None
        raw = torch.cat([state["slot_score"], extended("score", score.float(), window)], 1)
        empty = raw == -torch.inf
        bias = torch.nn.functional.logsigmoid(raw.masked_fill(empty, 0)) if admit else None
        if clock is not None:
            lost, after["lost"], after["time"] = _decayed(clock, state, sequences, window)
            faded = lost if fades else None
            if faded is not None and T == 1:
                since = (lost[:, -1:] - lost).float()
                bias, faded = since if bias is None else bias + since, None
        order = priority(raw, lost, exact)
        past = torch.arange(-window, T, device=k.device).expand(B, -1)
        slots = (-state["slot_age"]).clamp_min(ABSENT).masked_fill(empty[:, :capacity], ABSENT)
        coordinate = torch.cat([slots, past], 1)
        q_kept = q
        k_kept, v_kept = (
            torch.cat([state[f"slot_{name}"].to(x.dtype), state[name].to(x.dtype), x], 1)
            for name, x in (("k", k), ("v", v))
        )
        k, v = k_kept[:, capacity:], v_kept[:, capacity:]
        after["k"], after["v"] = advance(k, sequences, window), advance(v, sequences, window)
    queries, keys, values = (q, q_far, q_kept), (k, k_far, k_kept), (v, v_far, v_kept)

    if backend is None:
        backend = fastest(v) if stored is None else "tiled"
        if backend == "tiled" and T == 1 and observe is None and _decodes(q, *keys, *values, bias, *(stored or ())[:4]):
            backend = "decode"
    call = AttentionCall(
        queries,
        keys,
        values,
        score=order,
        coordinate=coordinate,
        bias=bias,
        lost=faded,
        sequences=sequences,
        window=window,
        span=span,
        block=block,
        capacity=capacity,
        stored=stored,
        rotation=Rotation(base, scaling),
    )
    attend = choose("backend", backend, BACKENDS)
    y, carried = attend(call) if observe is None else observe(attend, call)
    if carried is not None:
        assert k_kept is not None and v_kept is not None and raw is not None and coordinate is not None
        held, at = carried >= 0, carried.clamp_min(0)
        heads = at[..., None, None].expand(-1, -1, G, D)
        after["slot_k"] = torch.where(held[..., None, None], k_kept.gather(1, heads), 0)
        after["slot_v"] = torch.where(held[..., None, None], v_kept.gather(1, heads), 0)
        after["slot_score"] = raw.gather(1, at).masked_fill(~held, -torch.inf)
        after["slot_age"] = torch.where(held, sequences.last() - coordinate.gather(1, at), 0)
        if lost is not None:
            after["slot_lost"] = torch.where(held, lost.gather(1, at) - lost[:, -1:], 0)
    return y, after


def _decayed(clock: Tensor, state: AttentionState, sequences: Sequences, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each candidate's score (B, S) has lost when the call begins, less than nothing for the call's own rows; the
    ring and the document's time after the call. Sums are from the call's first row on, so that a long stream costs no
    digits."""
    clock = clock.to(state["lost"].dtype)
    if (real := sequences.real()) is not None:
        clock = clock * real
    passed = clock.cumsum(1)
    lost = torch.cat([state["lost"], -passed], 1)
    total = passed[:, -1:]
    begin = sequences.last() - sequences.end[:, None]  # coordinate of the document's first row
    row = torch.arange(clock.shape[1], device=clock.device)
    time = (clock * (row >= begin)).sum(1) + torch.where(begin[:, 0] < 0, state["time"], 0)
    real = torch.arange(window, 0, -1, device=clock.device) <= sequences.end[:, None]
    ring = torch.where(real, advance(lost + total, sequences, window), 0)
    return torch.cat([state["slot_lost"], lost], 1), ring, time
