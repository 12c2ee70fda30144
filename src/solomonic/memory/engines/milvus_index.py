"""Search of a layer's keys, some of which Milvus has, and others only this process."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schema import DTYPES
from ..search.exact import Candidates, ExactIndex, Scope, merged
from .milvus_service import MOST

if TYPE_CHECKING:
    from .milvus import MilvusEngine


class MilvusIndex(ExactIndex):
    """The service searches the keys that it has; those that this process has written and not sent yet are searched here."""

    def __init__(self, engine: "MilvusEngine", layer: int):
        super().__init__(engine.schema[layer], DTYPES[engine.schema.dtype])
        self._engine, self._layer = engine, layer

    def candidates(self, query: Tensor, count: int, scope: Scope) -> Candidates:
        token_id = self.token_id[: self.size]
        sent = torch.zeros(self.size, dtype=torch.bool)
        for document, position in self._engine.sent(self._layer).items():
            sent |= (token_id >> 32 == document) & (token_id <= (document << 32 | position))
        if sent.any():
            self.reserve(int((~sent).sum()), (~sent).nonzero()[:, 0])
        here = super().candidates(query, count, scope)
        return merged(self._of_service(query, count, scope), here)

    def _of_service(self, query: Tensor, count: int, scope: Scope) -> Candidates:
        (n, g, d), (rate, clock_starts, only) = query.shape, scope
        sent_starts, largest = self._engine.clock_starts(self._layer)
        if count > MOST:  # more than the service gives at a time
            exact = ExactIndex(self.schema, self.dtype)
            for keys in self._engine.scan(self._layer, sent_starts.keys() & clock_starts.keys()):
                exact.add(keys)
            return exact.candidates(query, count, scope)
        token_id, clock = torch.full((n, g, count), -1), torch.zeros(n, g, count)
        vector = torch.zeros(n, g, count, d + 2)
        bound = torch.full((n, g), -torch.inf)
        more = torch.tensor([1.0 if self.schema.admit else 0.0, rate]).expand(n, 2)
        visible = sent_starts.keys() & clock_starts.keys()
        for head in range(g if n else 0):
            vectors = torch.cat([query[:, head], more], -1)
            for row, hits in enumerate(self._engine.nearest(self._layer, head, vectors, count, only)):
                for i, hit in enumerate(hits):
                    if hit["id"] >> 32 in visible:
                        token_id[row, head, i] = hit["id"]
                    clock[row, head, i] = hit["entity"]["clock"]
                    vector[row, head, i] = torch.tensor(hit["entity"]["vector"])
                if len(hits) == count:
                    bound[row, head] = hits[-1]["distance"]
        # The service has each clock as it was sent, not less `now`: what it leaves out may be that much larger.
        shift = max((rate * (clock_starts[document] - sent_starts[document]) for document in visible), default=0.0)
        reach = max((abs(clock_starts[document]) + abs(sent_starts[document]) for document in visible), default=0.0)
        scale = (query.norm(dim=-1).max().item() + 1) * largest if n else 0.0
        return Candidates(
            token_id,
            vector[..., :d],
            vector[..., d],
            clock,
            bound + shift,
            error=(d + 4) * 2**-22 * (scale + abs(rate) * (reach + clock.max().item() if n else 0.0)),
        )
