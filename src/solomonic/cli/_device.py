"""Devices, threads and types of numbers by their names on the command line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from .._utils.spelling import choose, unknown
from ._options import DTYPES

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables by which libraries and processes that begin later know how many threads to take."""


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """In the block, this process and those that it begins compute with so many threads; None: as many as they like."""
    if count is None:
        yield
        return
    before, environment = torch.get_num_threads(), {name: os.environ.get(name) for name in POOLS}
    os.environ |= dict.fromkeys(POOLS, str(count))
    try:
        with threadpool_limits(count):
            torch.set_num_threads(count)
            yield
    finally:
        torch.set_num_threads(before)
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def dtype(name: str | None) -> torch.dtype | None:
    """The type of that name; None, or "auto", for that of the model's file."""
    return (
        None
        if name is None
        else choose("dtype", name, {"auto": None} | {known: getattr(torch, known) for known in DTYPES})
    )


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
