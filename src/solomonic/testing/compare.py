"""What laws are made of: comparisons that say what differs."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..model import State, state_tensors

VOCABULARY = 50


def expect(holds: object, message: str) -> None:
    """AssertionError with the message unless `holds`; `assert` is silent under python -O, and bare outside of tests."""
    if not holds:
        raise AssertionError(message)


def expect_refused(call: Callable[[], object], says: str, what: str) -> None:
    """AssertionError unless the call raises a ValueError whose message has the pattern `says`."""
    try:
        call()
    except ValueError as error:
        expect(re.search(says, str(error)), f"{what}: expected a ValueError that says {says!r}, got {error}")
    else:
        raise AssertionError(f"{what}: expected a ValueError that says {says!r}, got none")


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def shake(model: nn.Module, size: float) -> None:
    """Move every parameter away from its initial value, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + size * torch.randn_like(parameter))


def assert_close(got: Tensor, expected: Tensor, label: str, bound: float = 1e-4, floor: float = 1e-3) -> None:
    """Relative to the largest expected value, or to `floor` where that is less; equal infinities are equal."""
    expect(got.shape == expected.shape, f"{label}: {tuple(got.shape)} against {tuple(expected.shape)}")
    if not got.is_floating_point():
        expect(torch.equal(got, expected), f"{label}: other whole numbers")
        return
    infinite = expected.isinf()
    expect(torch.equal(got[infinite], expected[infinite]), f"{label}: infinities elsewhere")
    got, expected = got[~infinite], expected[~infinite]
    expect(not got.isnan().any(), f"{label}: NaN")
    if got.numel():
        error = (got - expected).abs().max() / expected.abs().max().clamp_min(floor)
        expect(error <= bound, f"{label}: relative error {error:.2e}")


def assert_same_state(got: State, expected: State, label: str, row: slice = slice(None)) -> None:
    mine, theirs = dict(state_tensors(got)), dict(state_tensors(expected))
    expect(mine.keys() == theirs.keys(), f"{label}: leaves {sorted(mine)} against {sorted(theirs)}")
    for name, tensor in theirs.items():
        assert_close(mine[name][row], tensor[row], f"{label}: {name}")


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, Tensor], expected: dict[str, Tensor], label: str = "") -> None:
    """Relative to each parameter's largest gradient, but not below 1% of the model's largest.

    A gradient is a sum over positions; where its terms cancel, it is small beside the rounding of those terms.
    """
    expect(
        got.keys() == expected.keys(), f"{label}gradients of {sorted(got.keys() ^ expected.keys())} are in one alone"
    )
    floor = 1e-2 * max(g.abs().max().item() for g in expected.values())
    for name, gradient in expected.items():
        assert_close(got[name], gradient, f"{label}gradient of {name}", floor=floor)


def laws_of(laws: object) -> dict[str, Callable[[], Any]]:
    """The laws of an object: its methods `test_...`, by the rest of the name."""
    return {name.removeprefix("test_"): getattr(laws, name) for name in dir(laws) if name.startswith("test_")}


def check(laws: object, what: str) -> None:
    """AssertionError with a line for each law that is broken; what else is raised has a note of the law."""
    broken = []
    for name, law in laws_of(laws).items():
        torch.manual_seed(0)
        try:
            law()
        except AssertionError as error:
            broken.append(f"{name}: {error}")
        except Exception as error:
            error.add_note(f"in the law {name} of {what}")
            raise
    expect(not broken, f"{what} breaks {len(broken)} of {len(laws_of(laws))} laws:\n" + "\n".join(broken))


__all__ = [
    "VOCABULARY", "assert_close", "assert_same_gradients", "assert_same_state", "check", "expect", "expect_refused",
    "gradients_of", "laws_of", "shake", "tokens",
]  # fmt: skip
