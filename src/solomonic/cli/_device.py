"""The device and the type of numbers that a person names."""

import torch

from ..spelling import unknown

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}


def device_names() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] if accelerator is None else [accelerator.type, "cpu"]


def device(name: str | None) -> torch.device:
    """The device of that name, or the best there is. ValueError when it is not there."""
    if name is None:
        return torch.device(device_names()[0])
    kind, _, index = name.partition(":")
    if kind not in device_names():
        raise unknown("device", name, device_names())
    count = torch.accelerator.device_count() if kind != "cpu" else 1
    if index and not (index.isdigit() and int(index) < count):
        raise ValueError(f"--device: expected {kind}:0 to {kind}:{count - 1}, got {name!r}")
    return torch.device(name)
