"""The clocks that benchmarks/decay.py compares."""

import torch
from torch import Tensor

CLOCKS = (
    "tokens",
    "surprise",
    "excess",
    "shift",
    "cusum",
    "log_decay",
    "switch",
    "drift",
    "cusum 5",
    "overflow",
    "overflow 5",
)
"""What a token adds, x its surprise, of mean m and deviation s over the last 256 tokens: 1; x; max(0, x - m); max(0, f - m),
f the mean of the last 16; a jump of 1 when the cumulative sum of (x - m) / s - 1/2 passes 8; what the fading memory of
the layer forgets, in nats; 1 where the source is another one; max(0, f - m - 0.35 s); a jump at 5; what flows over 8, and
over 5, of the same sum, which is held there instead of reset."""

SLOW, FAST = 256, 16  # tokens that running means are over
LEAST = torch.tensor([[8.0], [5.0]])  # that a CUSUM of standardised nats less 0.5 must reach


class Clocks:
    """All clocks of B readers. `ticks` (clocks, B, T) of tokens whose nats are (B, T)."""

    def __init__(self, rows: int):
        self.count, self.sum, self.held = 0, *torch.zeros(2, 2, rows)
        self.mean, self.square, self.fast = torch.zeros(3, rows)

    def ticks(self, nats: Tensor, log_decay: Tensor, switched: Tensor) -> Tensor:
        """log_decay (B,) of the call; switched (T,) whether the source is another than before."""
        rows, length = nats.shape
        ticks = torch.zeros(len(CLOCKS), rows, length)
        ticks[0], ticks[1], ticks[6] = 1, nats, switched.float()
        ticks[5] = (-log_decay / length)[:, None]
        for t in range(not self.count, length):  # nothing predicts the first token
            x = nats[:, t]
            if self.count >= FAST:
                spread = (self.square - self.mean**2).clamp_min(1e-4).sqrt()
                ticks[2, :, t] = (x - self.mean).clamp_min(0)
                ticks[3, :, t] = (self.fast - self.mean).clamp_min(0)
                ticks[7, :, t] = (self.fast - self.mean - 0.35 * spread).clamp_min(0)
                self.sum = (self.sum + (x - self.mean) / spread - 0.5).clamp_min(0)
                jump = self.sum > LEAST
                ticks[4, :, t], ticks[8, :, t] = jump.float()
                self.sum = self.sum.masked_fill(jump, 0)
                self.held = (self.held + (x - self.mean) / spread - 0.5).clamp_min(0)
                ticks[9, :, t], ticks[10, :, t] = (self.held - LEAST).clamp_min(0)
                self.held = torch.minimum(self.held, LEAST)
            self.count += 1
            slow, fast = max(1 / SLOW, 1 / self.count), max(1 / FAST, 1 / self.count)
            self.mean = self.mean + slow * (x - self.mean)
            self.square = self.square + slow * (x**2 - self.square)
            self.fast = self.fast + fast * (x - self.fast)
        return ticks
