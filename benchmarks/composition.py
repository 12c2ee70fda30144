"""What is lost when documents are read apart and their states composed? Recall of pairs spread over N documents.

    python benchmarks/composition.py [ARCHITECTURE ...]

Each model learns distractor recall with 8 pairs in rows of 48 tokens. Then the pairs are dealt to N documents, each
with distractors after its pairs (its share of the row's 16, or 64 of its own), and every key is asked after

    as trained  all pairs, then all distractors, as in a row of the task
    in a row    the documents, one after the other: pairs come after distractors too, which training never showed
    sequence, picaso, cyclic, soup    the composition of their states, each read from nothing
    none        no document: a guess

and once more ("read apart") after the model has learnt on, for half as many steps, from rows whose context is read in 1
to 8 documents and composed by picaso.
One thread, seed 0; prints a table as it goes, accuracy over 256 rows of 8 questions.
"""

import sys

import numpy as np
import torch
from torch import Tensor

from solomonic import LanguageModel, preset
from solomonic.ops.composition import METHODS
from solomonic.tasks.distractor_recall import DistractorRecall
from solomonic.training.config import TrainConfig
from solomonic.training.tasks import fit

PAIRS, STEPS, ROWS = 8, 1600, 256
CHUNKS = (2, 4, 8)
HEADS = ("as trained", "in a row", "sequence", "picaso", "cyclic", "soup", "none")
TASK = DistractorRecall(pairs=PAIRS, length=6 * PAIRS)


def deal(tokens: Tensor, chunks: int) -> tuple[list[Tensor], Tensor]:
    """Rows of the task -> its pairs and distractors in documents of the same size, and the questions."""
    pairs, distractors, questions = tokens.split([2 * PAIRS, tokens.shape[1] - 4 * PAIRS, 2 * PAIRS], 1)
    parts = zip(pairs.chunk(chunks, 1), distractors.chunk(chunks, 1), strict=True)
    return [torch.cat(part, 1) for part in parts], questions


class ReadsApart(LanguageModel):
    """A language model that reads a training row's context in 1, 2, 4 or 8 documents and composes their states."""

    def forward(self, tokens: Tensor, state=None, **options):
        if tokens.shape[1] != TASK.length:
            return super().forward(tokens, state, **options)
        documents, questions = deal(tokens, chunks=int(2 ** torch.randint(0, 4, ())))
        states = [self(document)[1] for document in documents]
        logits, state = self(questions, self.compose(states, "picaso"))
        return torch.nn.functional.pad(logits, (0, 0, TASK.length - 2 * PAIRS, 0)), state


@torch.no_grad()
def accuracy(model: LanguageModel, chunks: int, distractors: int) -> dict[str, float]:
    """Share of the questions answered right after each way to read `chunks` documents of `distractors` each."""
    batch = TASK.test_batch(ROWS, 4 * PAIRS + chunks * distractors, np.random.default_rng([0, chunks, distractors]))
    documents, questions = deal(batch.tokens, chunks)
    targets = batch.targets[:, -2 * PAIRS :]
    states = [model(document)[1] for document in documents]
    after = {"as trained": model(batch.tokens[:, : -2 * PAIRS])[1], "in a row": model(torch.cat(documents, 1))[1]}
    after |= {how: model.compose(states, how) for how in METHODS} | {"none": None}
    scores = {name: TASK.score(model(questions, state)[0], targets) for name, state in after.items()}
    return {name: score.nanmean().item() for name, score in scores.items()}


def main(*archs: str) -> None:
    torch.set_num_threads(1)
    print(f"| model | documents x tokens | {' | '.join(HEADS)} |\n|---|---|{'---|' * len(HEADS)}", flush=True)
    for arch in archs or ("bmojo", "gated_deltanet", "mamba2"):
        torch.manual_seed(0)
        config = preset(arch, vocab_size=TASK.vocab_size, state_size=32)
        model, apart = LanguageModel(config), ReadsApart(config)
        fit(model, TASK, TrainConfig(STEPS, 32, 1e-2, fading_dropout=1.0))
        show(arch, model)
        apart.load_state_dict(model.state_dict())
        fit(
            apart,
            DistractorRecall(pairs=PAIRS, length=TASK.length, easy=0),
            TrainConfig(STEPS // 2, 32, 3e-3, fading_dropout=1.0),
        )
        show(f"{arch}, read apart", apart)


def show(name: str, model: LanguageModel) -> None:
    for chunks in CHUNKS:
        for distractors in (2 * PAIRS // chunks, 64):
            scores = accuracy(model, chunks, distractors)
            size = f"{chunks} x {2 * PAIRS // chunks + distractors}"
            print(f"| {name} | {size} | {' | '.join(f'{scores[way]:.2f}' for way in HEADS)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
