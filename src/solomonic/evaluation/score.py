"""Log-probabilities of continuations: each context is read once, whatever follows it starts from its state."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..model import CausalModel, State, map_state


class ScoredModel(CausalModel, Protocol):
    """A model that can be set to evaluation mode and back."""

    training: bool

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@contextmanager
def reading(model: ScoredModel) -> Iterator[torch.device]:
    """The model's device; inside, the model is in evaluation mode and no gradients are kept."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def take(state: State, rows: Tensor) -> State:
    """The state of these rows, (n,) int64; a row may come more than once."""
    return map_state(lambda tensor: tensor[rows], state)


def read(model: ScoredModel, rows: Sequence[np.ndarray], chunk: int = 2048) -> State | None:
    """The state after each row of tokens, of any lengths, read in chunks; None where all rows are empty."""
    state, (tokens, mask) = None, _padded(rows, next(model.parameters()).device)
    for part in _parts(tokens.shape[1], chunk):
        _, state = model(tokens[:, part], state, mask=None if mask is None else mask[:, part])
    return state


def continuations(
    model: ScoredModel,
    groups: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]],
    batch: int = 8,
    chunk: int = 2048,
    report: Callable[[int], None] = lambda groups: None,
) -> list[list[tuple[float, bool]]]:
    """For each (context, its continuations): log p of each continuation, in nats, and whether greedy decoding gives it.

    A context has one token or more. `batch` rows of `chunk` tokens a call at most, which changes no result beyond
    rounding; `report` gets the number of groups that are done since its last call. An empty continuation has log p 0 and is
    greedy.
    """
    scores: list[list[tuple[float, bool]]] = [[(0.0, True)] * len(after) for _, after in groups]
    order = sorted(range(len(groups)), key=lambda i: len(groups[i][0]), reverse=True)
    with reading(model) as device:
        for first in range(0, len(order), batch):
            members = order[first : first + batch]
            state = read(model, [groups[i][0][:-1] for i in members], chunk)
            wanted = [(row, i, j) for row, i in enumerate(members) for j in range(len(groups[i][1]))]
            wanted.sort(key=lambda place: len(groups[place[1]][1][place[2]]), reverse=True)
            for begin in range(0, len(wanted), batch):
                part = wanted[begin : begin + batch]
                rows = torch.tensor([row for row, _, _ in part], device=device)
                before = [groups[i][0][-1:] for _, i, _ in part]
                after = [groups[i][1][j] for _, i, j in part]
                part_scores = _score(model, None if state is None else take(state, rows), before, after, chunk)
                for (_, i, j), score in zip(part, part_scores):
                    scores[i][j] = score
            report(len(members))
    return scores


def _score(
    model: ScoredModel,
    state: State | None,
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    chunk: int,
) -> list[tuple[float, bool]]:
    """log p and greediness of each row of `after`, whose one token `before` is read first, from `state`."""
    device = next(model.parameters()).device
    inputs, mask = _padded([np.concatenate([a, b])[:-1] for a, b in zip(before, after)], device)
    targets, _ = _padded(after, device)
    total = torch.zeros(len(after), dtype=torch.float64)
    greedy = torch.ones(len(after), dtype=torch.bool)
    for part in _parts(inputs.shape[1], chunk):
        real = None if mask is None else mask[:, part]
        logits, state = model(inputs[:, part], state, mask=real)
        log_p, right = -nats(logits, targets[:, part]).cpu(), (logits.argmax(-1) == targets[:, part]).cpu()
        if real is not None:
            log_p, right = log_p.masked_fill(~real.cpu(), 0), right | ~real.cpu()
        total, greedy = total + log_p.sum(1), greedy & right.all(1)
    return list(zip(total.tolist(), greedy.tolist()))


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, T, V), (B, T) -> (B, T) float64: -ln p of each target. ValueError where that is no number."""
    losses = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    if not losses.isfinite().all():
        raise ValueError("expected finite logits, got NaN or infinity; the model's weights are damaged, or too large")
    return losses.view_as(targets).double()


def _padded(rows: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The rows as one tensor, padded on the right, and the mask, False at padding; None where all are of one length."""
    sizes = np.array([len(row) for row in rows])
    mask = np.arange(sizes.max()) < sizes[:, None]
    tokens = np.zeros(mask.shape, dtype=np.int64)
    for line, row in zip(tokens, rows):
        line[: len(row)] = row
    return torch.from_numpy(tokens).to(device), None if mask.all() else torch.from_numpy(mask).to(device)


def _parts(length: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, length)) for start in range(0, length, chunk))


__all__ = ["ScoredModel", "continuations", "nats", "read", "reading", "take"]
