"""The gated delta rule through flash-linear-attention: Triton kernels for CUDA.

Theirs scales queries by the root of their size by default, keeps the state as (B, H, K, V), and does not return
its errors. Padding on the right writes nothing and decays nothing, so that the state passes through.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from ..sequence import Sequences
from .call import DeltaCall

LARGEST_KEY = 256


def refusal(k: Tensor, sequences: Sequences, innovate: bool) -> str | None:
    """Why it cannot serve keys like k (B, T, H, K), or None where it can."""
    if innovate:
        return "its kernels do not give the innovations"
    if k.device.type != "cuda":
        return f"expected tensors on a CUDA device, got {k.device.type}"
    if k.shape[-1] > LARGEST_KEY:
        return f"expected keys of {LARGEST_KEY} dims at most, got {k.shape[-1]}"
    if sequences.packed:
        return "documents packed into a row need their lengths on the host, which would wait for the device"
    if find_spec("fla") is None:
        return "the package flash-linear-attention is not installed; pip install 'solomonic[gpu]'"
    return None


def gated_delta(call: DeltaCall) -> tuple[Tensor, None, Tensor]:
    """See `gated_delta`. ValueError for what `refusal` names."""
    reason = refusal(call.k, call.sequences, call.innovate)
    if reason:
        raise ValueError(f"backend 'fla': {reason}; backend 'chunked' serves every call")
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return mapped(chunk_gated_delta_rule, call)


def mapped(scan: Callable[..., tuple[Tensor, Tensor]], call: DeltaCall) -> tuple[Tensor, None, Tensor]:
    """What `scan`, which takes the arguments of their `chunk_gated_delta_rule`, gives, in our terms."""
    q, k, v, beta, log_decay, state, sequences, _ = call
    if (real := sequences.real()) is not None:
        beta, log_decay = beta * real[:, :, None], log_decay * real[:, :, None]
    start = state.mT.contiguous()
    y, state = scan(q=q, k=k, v=v, g=log_decay, beta=beta, scale=1.0, initial_state=start, output_final_state=True)
    return y.float(), None, state.mT.to(torch.float32)
