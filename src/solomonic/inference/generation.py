"""Generation: tokens one at a time, for one text or a batch of them. B texts, V vocabulary.

Laws, tested on every preset: a prompt read in chunks is the prompt read at once; a text in a batch gets the tokens that
it gets alone.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..model import CausalModel, State, map_state
from .sampling import GREEDY, Sampling
from .sessions import Session

CHUNK = 2048
"""Tokens of a prompt read in one call, at most; the state carries what was read on to the next."""

LOGITS = 1 << 26
"""Logits of one call, at most: 256 MiB in float32."""


def read(model: CausalModel, session: Session, chunk: int = CHUNK) -> Iterator[Session]:
    """Read the pending tokens but the last, which is for `stream` to read; the session after every chunk."""
    for state, end in _prefill(model, session.state, [session.pending[:-1]], chunk):
        yield Session(state, session.pending[end:])


def stream(
    model: CausalModel,
    session: Session,
    sampling: Sampling = GREEDY,
    *,
    max_tokens: int,
    ends: Collection[int] = (),
    chunk: int = CHUNK,
) -> Iterator[tuple[int, Tensor, Session]]:
    """Each token as it is drawn, the logits (V,) by which it was, and the session that ends in it, until there are
    `max_tokens` or one is in `ends`.

    The pending tokens are read first. ValueError where there are none: there is nothing to go on from. States come out of
    inference mode: clone their tensors to differentiate through them.
    """
    if not session.pending:
        raise ValueError("expected at least one token to go on from, got an empty text; give a prompt")
    for session in read(model, session, chunk):
        pass
    for _ in range(max_tokens):
        logits, state = _decode(model, session.pending, session.state)
        token = sampling.choose(logits[0], session.length)
        session = Session(state, (token,))
        yield token, logits[0], session
        if token in ends:
            return


def generate(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = GREEDY,
    *,
    max_tokens: int,
    ends: Collection[int] = (),
    chunk: int = CHUNK,
) -> list[list[int]]:
    """The tokens that follow each of the prompts, of any lengths, as one batch; each row ends as in `stream`.

    Row i is drawn with the seed of `sampling` plus i. ValueError for an empty prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("expected at least one token to go on from, got an empty prompt")
    texts: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts))) if max_tokens > 0 else []
    last = [int(prompt[-1]) for prompt in prompts]
    state = None
    for state, _ in _prefill(model, None, [prompt[:-1] for prompt in prompts], chunk) if rows else ():
        pass
    while rows:
        logits, state = _decode(model, last, state)
        last = [
            replace(sampling, seed=sampling.seed + row).choose(logits[i], len(prompts[row]) + len(texts[row]))
            for i, row in enumerate(rows)
        ]
        for row, token in zip(rows, last):
            texts[row].append(token)
        unfinished = [i for i, row in enumerate(rows) if last[i] not in ends and len(texts[row]) < max_tokens]
        if len(unfinished) < len(rows):
            index = torch.tensor(unfinished, dtype=torch.int64, device=model.device)
            state = map_state(lambda tensor: tensor[index], state)
            rows, last = [rows[i] for i in unfinished], [last[i] for i in unfinished]
    return texts


@torch.inference_mode()
def _decode(model: CausalModel, tokens: Sequence[int], state: State | None) -> tuple[Tensor, State]:
    """Reads one more token of each row; logits (B, V) for the next, on the CPU, and the state."""
    logits, state = model(torch.tensor(tokens, device=model.device)[:, None], state)
    return logits[:, -1].cpu(), state


@torch.inference_mode()
def _prefill(
    model: CausalModel, state: State | None, rows: Sequence[Sequence[int]], chunk: int
) -> Iterator[tuple[State, int]]:
    """(state, tokens of the longest row read so far) after every chunk; shorter rows are padded on the right."""
    device, longest = model.device, max(map(len, rows), default=0)
    chunk = max(1, min(chunk, LOGITS // (len(rows) * model.config.vocab_size))) if longest else 1
    for start in range(0, longest, chunk):
        end = min(start + chunk, longest)
        parts = [torch.tensor(row[start:end], dtype=torch.int64) for row in rows]
        tokens = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        mask = torch.arange(end - start) < torch.tensor([len(part) for part in parts])[:, None]
        _, state = model(tokens.to(device), state, mask=None if mask.all() else mask.to(device))
        yield state, end


__all__ = ["CHUNK", "LOGITS", "generate", "read", "stream"]
