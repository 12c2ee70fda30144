"""Search of a layer's keys: what Milvus keeps there, what this process has written and Milvus does not have yet, here."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..schema import DTYPES
from ..search.exact import Candidates, ExactIndex, merged
from .milvus_service import MOST

if TYPE_CHECKING:
    from .milvus import MilvusEngine


class MilvusIndex(ExactIndex):
    """What the service keeps is searched there; what this process has written and it does not have yet, here."""

    def __init__(self, engine: "MilvusEngine", layer: int):
        super().__init__(engine.schema[layer], DTYPES[engine.schema.dtype])
        self._engine, self._layer = engine, layer

    def candidates(
        self, query: Tensor, count: int, rate: float, began: dict[int, float], only: set[int] | None
    ) -> Candidates:
        token_id = self.token_id[: self.size]
        kept = torch.zeros(self.size, dtype=torch.bool)
        for document, position in self._engine.sent(self._layer).items():
            kept |= (token_id >> 32 == document) & (token_id <= (document << 32 | position))
        if kept.any():
            self.reserve(int((~kept).sum()), (~kept).nonzero()[:, 0])
        here = super().candidates(query, count, rate, began, only)
        return merged(self._there(query, count, rate, began, only), here)

    def _there(
        self, query: Tensor, count: int, rate: float, began: dict[int, float], only: set[int] | None
    ) -> Candidates:
        n, g, d = query.shape
        placed, largest = self._engine.placed(self._layer)
        if count > MOST:  # more than the service gives at a time
            whole = ExactIndex(self.schema, self.dtype)
            for keys in self._engine.scan(self._layer, placed.keys() & began.keys()):
                whole.add(keys)
            return whole.candidates(query, count, rate, began, only)
        token_id, clock = torch.full((n, g, count), -1), torch.zeros(n, g, count)
        vector = torch.zeros(n, g, count, d + 2)
        bound = torch.full((n, g), -torch.inf)
        more = torch.tensor([1.0 if self.schema.admit else 0.0, rate]).expand(n, 2)
        seen = placed.keys() & began.keys()
        for head in range(g if n else 0):
            asked = torch.cat([query[:, head], more], -1)
            for row, found in enumerate(self._engine.nearest(self._layer, head, asked, count, only)):
                for i, one in enumerate(found):
                    if one["id"] >> 32 in seen:
                        token_id[row, head, i] = one["id"]
                    clock[row, head, i] = one["entity"]["clock"]
                    vector[row, head, i] = torch.tensor(one["entity"]["vector"])
                if len(found) == count:
                    bound[row, head] = found[-1]["distance"]
        # The service has each clock as it was sent, not `began` less `now`: what is left out may be that much more.
        shift = max((rate * (began[document] - placed[document]) for document in seen), default=0.0)
        reach = max((abs(began[document]) + abs(placed[document]) for document in seen), default=0.0)
        scale = (query.norm(dim=-1).max().item() + 1) * largest if n else 0.0
        return Candidates(
            token_id,
            vector[..., :d],
            vector[..., d],
            clock,
            bound + shift,
            error=(d + 4) * 2**-22 * (scale + abs(rate) * (reach + clock.max().item() if n else 0.0)),
        )
