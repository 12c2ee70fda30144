"""Trains and decodes every preset on the test device, and compares with the CPU; a program, for it changes PyTorch."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from solomonic import PRESETS
from solomonic.cli._device import device as device_of
from solomonic.evaluation.tasks import evaluate
from solomonic.model import map_state
from solomonic.tasks.distractor_recall import DistractorRecall
from solomonic.training.config import TrainConfig
from solomonic.training.optimizer import build_optimizer
from solomonic.training.tasks import fit

from ..laws.cases import assert_close, assert_same_gradients, assert_same_state, gradients_of, leaves, model_of, tokens
from . import register

LENGTH = 40
STILL = 1e-12  # a learning rate that moves no weight


def batches() -> list[dict[str, Tensor]]:
    """What a step may be given: plain rows, padded rows, packed documents, all at once."""
    mask = torch.arange(LENGTH) >= torch.tensor([[0], [11]])
    segments = (torch.arange(LENGTH) >= torch.tensor([[9], [30]])).long()
    return [{}, {"mask": mask}, {"segments": segments}, {"mask": mask, "segments": segments}]


def train(model, device, rate: float) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Losses and gradients of one step of AdamW on each batch."""
    optimizer = build_optimizer(model, TrainConfig(steps=1, batch_size=2, lr=rate))
    losses, gradients = [], []
    for seed, inputs in enumerate(batches()):
        rows, inputs = tokens(2, LENGTH, seed).to(device), {name: x.to(device) for name, x in inputs.items()}
        optimizer.zero_grad()
        logits, _ = model(rows, **inputs)
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        gradients.append(gradients_of(model))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return losses, gradients


@torch.no_grad()
def decode(model, device) -> tuple[Tensor, object]:
    """Logits of 20 tokens, chosen on the device, after a prompt; the state after them."""
    logits, state = model(tokens(2, 17).to(device))
    out = [logits[:, -1:]]
    for _ in range(20):
        logits, state = model(out[-1].argmax(-1), state)
        out.append(logits)
    return torch.cat(out, 1), state


def check(name: str, device: torch.device) -> int:
    """Number of operators that ran on the device."""
    expected = model_of(name)
    model = copy.deepcopy(expected).to(device)
    count = torch.ops.test_device.operators()
    torch.ops.test_device.forbid(True)
    _, gradients = train(model, device, STILL)
    losses, _ = train(model, device, 1e-2)
    logits, state = decode(model, device)
    torch.ops.test_device.forbid(False)
    count = torch.ops.test_device.operators() - count
    _, expected_gradients = train(expected, "cpu", STILL)
    expected_losses, _ = train(expected, "cpu", 1e-2)
    for tensor in (*model.parameters(), *losses, logits, *(x for _, x in leaves(state))):
        assert tensor.device.type == device.type
    for got, want in zip(gradients, expected_gradients, strict=True):
        assert_same_gradients({key: x.cpu() for key, x in got.items()}, want)
    assert_close(torch.stack(losses).cpu(), torch.stack(expected_losses), f"{name}: losses")
    expected.load_state_dict(model.cpu().state_dict())  # AdamW makes much of the rounding of small gradients
    expected_logits, expected_state = decode(expected, "cpu")
    assert_close(logits.cpu(), expected_logits, f"{name}: logits")
    assert_same_state(map_state(lambda x: x.cpu(), state), expected_state, f"{name}: state")
    return count


def check_that_it_refuses(device: torch.device) -> None:
    """That the device would notice: what the other checks count on."""
    x, beside = torch.ones(3, device=device), torch.ones(3)
    looks = [x.tolist, x.cpu, x.sum().item, lambda: bool(x.any()), x.nonzero, lambda: x[x > 0], lambda: x.equal(x)]
    torch.ops.test_device.forbid(True)
    for what in (*looks, lambda: x + beside, lambda: x[torch.tensor([1])], lambda: torch.cat([x, beside])):
        try:
            what()
        except RuntimeError:
            continue
        raise AssertionError(f"the device took what it should refuse: {what}")
    torch.ops.test_device.forbid(False)
    assert (x + 1).tolist() == [2, 2, 2] and torch.empty(3, device=device).isnan().all()


@torch.no_grad()
def check_growing_state(device: torch.device) -> None:
    """The one wait there is: a state of full attention that goes on with padded or packed rows drops what has ended."""
    expected = model_of("transformer")
    model = copy.deepcopy(expected).to(device)
    rows, inputs = tokens(2, LENGTH), batches()[-1]
    state, expected_state = model(rows.to(device))[1], expected(rows)[1]
    logits, state = model(rows.to(device), state, **{name: x.to(device) for name, x in inputs.items()})
    expected_logits, expected_state = expected(rows, expected_state, **inputs)
    assert_close(logits.cpu(), expected_logits, "logits")
    assert_same_state(map_state(lambda x: x.cpu(), state), expected_state, "state")


def check_runs(device: torch.device) -> None:
    """`fit` and `evaluate` of a task, the checkpoint's files included, as on the CPU."""
    config, scores = TrainConfig(steps=3, batch_size=4, lr=1e-3), []
    with tempfile.TemporaryDirectory() as folder:
        for place in (torch.device("cpu"), device):
            model, task = model_of("bmojo").to(place), DistractorRecall(pairs=4, keys=8, values=8, length=32)
            progress = fit(model, task, config, Path(folder) / f"{place.type}.pt", stop=lambda: False, save_every=0)
            assert fit(model, task, config, Path(folder) / f"{place.type}.pt").curve == progress.curve
            scores.append(([loss for _, loss in progress.curve], evaluate(model, task, 32, samples=2)))
    (losses, score), (losses_here, score_here) = scores
    assert np.allclose(losses, losses_here, atol=1e-4) and np.array_equal(score, score_here, equal_nan=True)


def main() -> None:
    device = register()
    assert device_of(None) == device, "the device that is there is the one that is chosen"
    check_that_it_refuses(device)
    check_growing_state(device)
    check_runs(device)
    for name in PRESETS:
        print(f"{name}: {check(name, device)} operators on the device", flush=True)


if __name__ == "__main__":
    main()
