"""Times of several calls measured in rounds, the memory of one, and the floors that the machine sets."""

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Times:
    """Seconds of `values`: the median, and the quarter of them that are faster and slower."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high


def side_by_side(
    works: Mapping[str, Work], device: torch.device, seconds: float, least: int = 3, most: int = 100
) -> dict[str, Times]:
    """Each of `works` once to warm up, then all in rounds, for about `seconds` in all: `least` to `most` rounds.

    Rounds make ratios fair on a machine that others use too: what slows one slows its neighbours.
    """
    taken = [timed(work, device)[0] for work in works.values()]
    rounds = max(least, min(most, int(seconds / max(sum(taken), 1e-9))))
    values: dict[str, list[float]] = {name: [] for name in works}
    for n in range(rounds):
        for name in list(works) if n % 2 else reversed(list(works)):
            values[name].append(timed(works[name], device)[0])
    return {name: Times(tuple(v)) for name, v in values.items()}


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` has what it needs: on a CPU a C++ compiler."""
    return device.type != "cpu" or bool(shutil.which("g++") or shutil.which("c++") or shutil.which("clang++"))


def peak_bytes(work: Work, device: torch.device) -> int:
    """On an accelerator the most memory held during `work`; on the CPU what autograd keeps for the backward pass."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        work()
        torch.accelerator.synchronize(device)
        return torch.accelerator.max_memory_allocated(device) - before
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(held.values())


def operations(work: Work) -> int:
    """Multiplications and additions of the matrix products and attentions in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def floors(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """(operations a second of a large matrix product, bytes a second of a large copy): the best this device shows."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.empty(2**26 if device.type == "cpu" else 2**30, device=device, dtype=torch.uint8)
    y = torch.empty_like(x)
    product = side_by_side({"product": lambda: a @ b}, device, 1.0)["product"]
    copy = side_by_side({"copy": lambda: y.copy_(x)}, device, 1.0)["copy"]
    return 2 * size**3 / min(product.values), 2 * x.numel() / min(copy.values)


def timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds that `work` takes until the device is done, and its result."""
    began = time.perf_counter()
    result = work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - began, result


__all__ = ["Times", "Work", "can_compile", "floors", "operations", "peak_bytes", "side_by_side", "timed"]
