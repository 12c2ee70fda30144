"""Which memory answers? B'MOJO trained on distractor recall, then asked with one memory taken away.

    python benchmarks/ablation.py [STEPS] [LENGTHS...]

Model, task and training are those of the quick suite. Prints recall at each length, whole and without each memory.
"""

import sys

import torch
from tqdm import tqdm

from solomonic import LanguageModel, preset
from solomonic.cli._table import table
from solomonic.compare.suites import QUICK
from solomonic.evaluation.recall import recall
from solomonic.probe.watch import MEMORIES, memories, watch
from solomonic.tasks import task
from solomonic.training.config import TrainConfig
from solomonic.training.tasks import fit

SAMPLES = 32


def main(steps: int | None = None, *lengths: int) -> None:
    run = QUICK.runs["distractor_recall"]
    problem, lengths = task(run.task, **run.options), lengths or (96, 192, 768)
    torch.manual_seed(0)
    model = LanguageModel(preset("bmojo", vocab_size=problem.vocab_size, **run.dials))
    config = TrainConfig(steps or run.steps, run.batch_size, run.lrs[0], **run.train)
    with tqdm(total=config.steps, unit="step") as bar:
        fit(model, problem, config, report=lambda step, loss: (bar.update(step - bar.n), bar.set_postfix(loss=loss)))
    model.eval()
    by_layer = memories(model)
    plan = [("whole", {})]
    plan += [(f"layer {at} without {name}", {at: {name}}) for at, names in by_layer.items() for name in names]
    plan += [(f"no layer with {name}", {at: {name} for at in by_layer}) for name in MEMORIES]
    rows = []
    for name, without in plan:
        with watch(model, without), torch.no_grad():
            rows.append((name, *(scores.value for scores in recall(model, problem, lengths, SAMPLES))))
    print(table(("recall", *map(str, lengths)), rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
