"""Small models and tokenizers, and a model that knows how to copy and nothing else."""

from types import SimpleNamespace

import numpy as np
import tokenizers
import torch
from torch import nn

from solomonic import LanguageModel, preset
from solomonic.data.tokenizer import Tokenizer

TEXT = "Über den Dächern saß ein Käuzchen, das rief: wer da? 日本の夜は静かです。 " * 40


def small(arch="bmojo", vocab_size=257, seed=0):
    torch.manual_seed(seed)
    return LanguageModel(preset(arch, vocab_size=vocab_size, d_model=32, n_layers=2, window=8, capacity=8)).eval()


def bpe() -> Tokenizer:
    """A few merges of bytes: a token holds several characters, or part of one."""
    level = tokenizers.pre_tokenizers.ByteLevel
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer, inner.decoder = level(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=level.alphabet(), show_progress=False)
    inner.train_from_iterator([TEXT], trainer)
    return Tokenizer(inner)


class Copier(nn.Module):
    """Called as a `LanguageModel` is: the next token is the one that followed the longest match of the last tokens."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(vocab_size=vocab_size)

    def forward(self, tokens, state=None, *, mask=None):
        rows, length = tokens.shape
        logits = torch.zeros(rows, length, self.config.vocab_size)
        empty = torch.zeros(rows, 0, dtype=torch.int64)
        state = state or {"seen": empty, "match": empty, "count": torch.zeros(rows, dtype=torch.int64)}
        seen, match = (np.pad(state[name].numpy(), ((0, 0), (0, length))) for name in ("seen", "match"))
        count = state["count"].numpy().copy()
        for row in range(rows):
            for t, token in enumerate(tokens[row].tolist()):
                if mask is not None and not mask[row, t]:
                    continue
                n = count[row]
                match[row, 1:n] = match[row, : max(n - 1, 0)] + 1
                match[row, : min(n, 1)] = 1
                match[row, :n] *= seen[row, :n] == token
                seen[row, n] = token
                if n and match[row, :n].max() > 0:
                    logits[row, t, seen[row, match[row, :n].argmax() + 1]] = 20.0
                count[row] += 1
        return logits, {name: torch.from_numpy(x) for name, x in (("seen", seen), ("match", match), ("count", count))}
