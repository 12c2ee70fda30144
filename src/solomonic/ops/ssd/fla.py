"""State-space duality through flash-linear-attention's simple GLA, whose recurrence it is: Triton kernels for CUDA.

Theirs scales queries by the root of their size by default, keeps the state as (B, H, N, P), and has as many
heads of keys as of values. Padding on the right writes nothing and decays nothing, so that the state passes through.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from ..sequence import Sequences
from .call import SSDCall


def refusal(x: Tensor, sequences: Sequences) -> str | None:
    """Why it cannot serve values like x (B, T, H, P), or None where it can."""
    if x.device.type != "cuda":
        return f"expected tensors on a CUDA device, got {x.device.type}"
    if sequences.packed:
        return "documents packed into a row need their lengths on the host, which would wait for the device"
    if find_spec("fla") is None:
        return "the package flash-linear-attention is not installed; pip install 'solomonic[gpu]'"
    return None


def ssd(call: SSDCall) -> tuple[Tensor, Tensor]:
    """See `ssd`. ValueError for what `refusal` names."""
    reason = refusal(call.v, call.sequences)
    if reason:
        raise ValueError(f"backend 'fla': {reason}; backend 'chunked' serves every call")
    from fla.ops.simple_gla import chunk_simple_gla

    return mapped(chunk_simple_gla, call)


def mapped(scan: Callable[..., tuple[Tensor, Tensor]], call: SSDCall) -> tuple[Tensor, Tensor]:
    """What `scan`, which takes the arguments of their `chunk_simple_gla`, gives, in our terms."""
    v, k, q, log_decay, state, sequences, *_ = call
    if (real := sequences.real()) is not None:
        v, log_decay = v * real[:, :, None, None], log_decay * real[:, :, None]
    k, q = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (k, q))
    state = state.mT.contiguous()
    y, state = scan(q=q, k=k, v=v, g=log_decay, scale=1.0, initial_state=state, output_final_state=True)
    return y.float(), state.mT.to(torch.float32)
