"""Search as it is defined: every token of every document is scored, and the top k are taken in order."""

import torch
from torch import Tensor

from ..schema import LayerSchema, StoredTokens, log_admission
from .exact import logits


def search(
    query: Tensor, documents: list[StoredTokens], k: int, schema: LayerSchema, rate: float = 0.0, now: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(document, position, logit), each (N, G, k), of the k tokens with the largest logits; of equal ones the older first.

    documents: their tokens, as they are stored, the oldest document first; a document's number counts from 0, -1 for
    none. The clock of a document goes on where that of the document before it ended, at its last token.
    """
    n, g, _ = query.shape
    parts = [(torch.full((n, g, k), -1), torch.full((n, g, k), -1), torch.full((n, g, k), -torch.inf))]
    clock_start = -now
    for number, tokens in enumerate(documents):
        logit = logits(
            query[:, :, None],
            tokens.key.float().transpose(0, 1)[None],
            log_admission(tokens.score),
            clock_start + tokens.clock.double(),
            schema.admit,
            rate,
        )
        parts.append((torch.full_like(logit, number, dtype=torch.int64), tokens.position.expand_as(logit), logit))
        clock_start += float(tokens.clock[-1])
    document, position, logit = (torch.cat(x, -1) for x in zip(*parts))
    order = logit.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return document.gather(-1, order), position.gather(-1, order), logit.gather(-1, order)
