"""What benchmarks of models that look things up share: their tokenizer, their layers, and the time of a decoded token."""

import time
from collections.abc import Iterable
from dataclasses import replace
from statistics import median

import tokenizers

from solomonic import ModelConfig
from solomonic.inference.generation import stream
from solomonic.inference.sessions import Session


def bpe(texts: Iterable[str], size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE of `size` tokens, one of them the end that `solomonic.data.tokenizer` adds."""
    level = tokenizers.pre_tokenizers.ByteLevel
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer, inner.decoder = level(add_prefix_space=False), tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=level.alphabet(), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner


def looking(config: ModelConfig, layer: int) -> ModelConfig:
    """Only `layer` keeps its eidetic memory, so that it alone looks things up."""
    layers = (x if i == layer else replace(x, capacity=0) for i, x in enumerate(config.layers))
    return replace(config, layers=tuple(layers))


def decoded(readers: dict, session: Session, count: int) -> dict[str, float]:
    """The median milliseconds of a token that each reader writes after `session`, in turns."""
    took = {which: [] for which in readers}
    for _ in range(3):
        for which, reader in readers.items():
            last = time.perf_counter()
            for i, _ in enumerate(stream(reader, session, max_tokens=count)):
                now = time.perf_counter()
                if i:  # the first one reads the prompt
                    took[which].append(1e3 * (now - last))
                last = now
    return {which: median(times) for which, times in took.items()}
