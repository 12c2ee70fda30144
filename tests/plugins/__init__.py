"""Plug-ins for the tests; the mixer is the one that CONTRIBUTING.md shows."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
EMA = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
TASK = '''
import numpy as np
import torch

from solomonic.tasks import IGNORE, TASKS, Batch, Task
from solomonic.tasks import _check as check


class Echo(Task):
    """The token before, at every position but the first."""

    name = "echo"
    summary = "say the token before"

    def __init__(self, *, vocab_size=8, length=12, lengths=(12, 24)):
        self.vocab_size, self.length, self.lengths = vocab_size, length, check.increasing("lengths", lengths)
        self.chance = 1 / vocab_size

    def train_batch(self, size, rng, progress=1.0):
        return self.test_batch(size, self.length, rng)

    def test_batch(self, size, length, rng):
        check.batch_size(size)
        check.whole("length", length, 2, "take a longer one")
        tokens = torch.from_numpy(rng.integers(0, self.vocab_size, (size, length)))
        targets = torch.cat([torch.full((size, 1), IGNORE), tokens[:, :-1]], 1)
        return Batch(tokens, targets)


TASKS["echo"] = Echo
'''
