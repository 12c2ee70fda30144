"""The model card: what a model is, what it was trained on, and what it scores, in Hugging Face's layout."""

from collections import Counter

import torch

from .. import __version__
from .._utils.spelling import counted
from ..data.tokenizer import Tokenizer
from ..model import LanguageModel
from .config import RunConfig
from .history import TextHistory
from .rows import Data


def card(
    name: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    data: Data,
    sources: list[str],
    config: RunConfig,
    history: TextHistory,
    command: str,
) -> str:
    """README.md of a model folder; `sources` are the paths of the data, `name` is the title."""
    parameters = sum(p.numel() for p in model.parameters())
    mixers = ", ".join(f"{n} x {mixer}" for mixer, n in Counter(x.name for x in model.config.layers).items())
    tokens = config.steps * config.batch_size * config.length
    far = model.state_bytes(32 * config.length)
    flat = "at every length" if far == model.state_bytes(2**20) else f"after {32 * config.length:,} tokens, and growing"
    unit = "bytes" if tokenizer.is_bytes else f"a vocabulary of {tokenizer.vocab_size:,}"
    carried = ", the state carried from step to step" if config.carry else ""
    scores = "\n".join(
        f"| {int(length):,} ({int(length) // config.length}x) | {bits:.3f} |" for length, bits in history.scores.items()
    )
    measured = (
        f"Bits per byte of held-out text, each row of it read from nothing, all rows the same text (a sample of at\n"
        f"most {config.eval_tokens:,} tokens):\n\n| read at a time | bits per byte |\n|---|---|\n{scores}"
        if scores
        else "Nothing was held out that is as long as the training length, so nothing was scored."
    )
    listed = "\n".join(f"- {source}" for source in sources[:20])
    more = f"\n- and {len(sources) - 20:,} more" if len(sources) > 20 else ""
    return f"""---
library_name: solomonic
pipeline_tag: text-generation
tags: [solomonic, {", ".join(sorted({x.name for x in model.config.layers}))}]
---

# {name}

A language model of {parameters:,} parameters on {unit}: {counted(len(model.config.layers), "layer")} ({mixers}) of width
{model.config.d_model}. Its state takes {far:,} bytes {flat} ({model.embedding.weight.dtype}).

## Data

{data.train.size:,} bytes of {counted(len(data.train.starts), "document")} to train on, {data.held_out.size:,} bytes of
{len(data.held_out.starts):,} held out, from

{listed}{more}

## Training

{counted(config.steps, "step")} of {config.batch_size} x {config.length} tokens ({tokens:,} in all){carried}; AdamW, highest
learning rate {config.lr:g}, seed {config.seed}. {history.seconds / 60:.1f} minutes. Last loss
{history.losses[-1]:.4f} nats a token. solomonic {__version__}, torch {torch.__version__}.

    {command}

## Scores

{measured}

## Use

    solomonic generate FOLDER "Once upon a time"

or, with transformers: `import solomonic.hf`, then `AutoModelForCausalLM.from_pretrained("FOLDER")`.
It has learnt from the data above alone, and repeats what it found there, mistakes included.
"""


__all__ = ["card"]
