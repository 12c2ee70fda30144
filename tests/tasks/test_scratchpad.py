"""What holds of every task whose rows may hold the working."""

import pytest
import torch

from solomonic import tasks
from solomonic.tasks import IGNORE
from solomonic.tasks._scratchpad import ScratchpadTask

from .samples import rng

NAMES = [name for name in tasks.names() if isinstance(tasks.task(name), ScratchpadTask)]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_working_is_not_made_good(name):
    """One argmax is wrong: with the working nothing after it counts, without it nothing else is lost."""
    assert len(NAMES) >= 4
    for scratchpad in (True, False):
        task = tasks.task(name, scratchpad=scratchpad)
        targets = task.test_batch(1, 100, rng()).targets
        logits = torch.nn.functional.one_hot(targets.clamp(min=0), task.vocab_size).float()
        scored = (targets[0] != IGNORE).nonzero().flatten()
        wrong = len(scored) // 3
        logits[0, scored[wrong]] = logits[0, scored[wrong]].roll(1)
        expected = [1.0] * len(scored)
        expected[wrong:] = [0.0] * (len(scored) - wrong) if scratchpad else [0.0, *expected[wrong + 1 :]]
        score = task.score(logits, targets)[0]
        assert score[scored].tolist() == expected and score.isnan().sum() == len(score) - len(scored)
        chunks = [task.score(logits[:, part], targets[:, part]) for part in (slice(0, 37), slice(37, None))]
        assert torch.equal(task.joined(torch.cat(chunks, 1)).nan_to_num(-1), score[None].nan_to_num(-1))
