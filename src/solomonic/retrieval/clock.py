"""The clock of a document that is written to a store: how far it runs at each token.

It runs by `change`, how far the surprise of tokens departs from what was usual, so that it stands still while the source
stays the same (`changes`); by `surprise` itself, -ln p of each token given those before it, in nats; or by `tokens`, one
each (docs/decay.md compares them).
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .._utils.spelling import unknown

CLOCKS = ("change", "surprise", "tokens")

USUAL, FEWEST = 256, 16
"""Tokens over which the clock `change` takes the mean and deviation of surprise, and without which it stands still."""

THRESHOLD, LEAST_VARIANCE = 5.0, 1e-4


class DocumentClock:
    """The times of the last tokens of a document, at least `kept` of them. kind: one of `CLOCKS`."""

    def __init__(self, kind: str, kept: int):
        if kind not in CLOCKS:
            raise unknown("clock", kind, CLOCKS)
        self.kind, self._kept = kind, kept
        self._times = torch.zeros(0, dtype=torch.float64)
        self._last: Tensor | None = None  # logits (V,) for the next token
        self._usual: Tensor | None = None  # the statistics that `changes` goes on from

    def tick(self, tokens: Tensor, logits: Tensor) -> None:
        """Run over `tokens` (T,), whose logits for what follows are (T, V)."""
        ticks = torch.ones(len(tokens), dtype=torch.float64)
        if self.kind != "tokens":
            known = logits[:-1] if self._last is None else torch.cat([self._last[None], logits[:-1]])
            first = len(tokens) - len(known)  # 1 where the document begins, whose first token nothing predicts
            nats = cross_entropy(known.float(), tokens[first:], reduction="none").double().cpu()
            self._last = logits[-1]
            if self.kind == "change":
                nats, self._usual = changes(nats, self._usual)
            ticks[:first], ticks[first:] = 0, nats
        before = self._times[-1] if len(self._times) else 0.0
        self._times = torch.cat([self._times[-self._kept :], before + ticks.cumsum(0)])

    def at(self, position: Tensor, end: int) -> Tensor:
        """(M,) float32, of the tokens at positions (M,); it has run over the tokens before position `end`."""
        return self._times[len(self._times) - end + position].float()

    def saved(self) -> dict[str, Tensor]:
        """What `restore` needs to go on."""
        tensors = {"time": self._times, "last": self._last, "usual": self._usual}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def restore(self, saved: dict[str, Tensor]) -> None:
        self._times, self._last, self._usual = saved["time"], saved.get("last"), saved.get("usual")


def changes(nats: Tensor, usual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How much time passes at each token of surprise `nats` (T,), in standard deviations of surprise; both float64.

        z = (x - m) / s - 1/2    m, s: mean and deviation of x over the 256 tokens before, or all, at least 16
        c <- max(0, c + z)       a cumulative sum (E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954)
        tick = max(0, c - 5)     c <- min(c, 5): not an alarm at 5 but all that flows over it, so that it is continuous

    usual: (4,) count, m, mean of x squared and c, as the call before returned them; None where the document begins.
    """
    count, mean, square, total = (0.0,) * 4 if usual is None else usual.tolist()
    ticks = []
    for x in nats.tolist():
        tick = 0.0
        if count >= FEWEST:
            spread = max(square - mean * mean, LEAST_VARIANCE) ** 0.5
            total = max(0.0, total + (x - mean) / spread - 0.5)
            tick, total = max(0.0, total - THRESHOLD), min(total, THRESHOLD)
        count += 1
        share = max(1 / USUAL, 1 / count)
        mean, square = mean + share * (x - mean), square + share * (x * x - square)
        ticks.append(tick)
    return torch.tensor(ticks, dtype=torch.float64), torch.tensor([count, mean, square, total], dtype=torch.float64)


__all__ = ["CLOCKS", "DocumentClock", "changes"]
