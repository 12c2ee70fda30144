"""Which types of number a device computes in; scans run in float32, also where autocast would lower their products."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Inside it autocast is off."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def widest(device: torch.device) -> torch.dtype:
    """float64 where the device has it, else float32."""
    return torch.float64 if _has_float64(device.type) else torch.float32


def _has_float64(kind: str) -> bool:
    try:
        torch.empty(0, dtype=torch.float64, device=kind)
    except (TypeError, RuntimeError):
        return False
    return True


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bf16 pay on this device; the CPU trains in float32."""
    if device.type == "cpu":
        return False
    supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    return bool(supported and supported())
