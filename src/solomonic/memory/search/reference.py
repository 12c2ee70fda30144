"""Search as it is defined: every token of every document is scored, and the best are taken in order."""

import torch
from torch import Tensor

from ..schema import LayerLayout, Tokens, admission
from .exact import logits


def search(
    query: Tensor, documents: list[Tokens], k: int, layout: LayerLayout, rate: float = 0.0, now: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(document, position, logit), each (N, G, k), of the k best tokens: the larger logit, of equal ones the older.

    documents: their tokens, as they are stored, the oldest document first; its number counts from 0, -1 for none.
    The clock of a document goes on where that of the one before it ended, at its last token.
    """
    n, g, _ = query.shape
    found = [(torch.full((n, g, k), -1), torch.full((n, g, k), -1), torch.full((n, g, k), -torch.inf))]
    began = -now
    for number, tokens in enumerate(documents):
        logit = logits(
            query[:, :, None],
            tokens.key.float().transpose(0, 1)[None],
            admission(tokens.score),
            began + tokens.clock.double(),
            layout.admit,
            rate,
        )
        found.append((torch.full_like(logit, number, dtype=torch.int64), tokens.position.expand_as(logit), logit))
        began += float(tokens.clock[-1])
    document, position, logit = (torch.cat(part, -1) for part in zip(*found))
    order = logit.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return document.gather(-1, order), position.gather(-1, order), logit.gather(-1, order)
