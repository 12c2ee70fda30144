"""Means of keys, by Lloyd's iterations (S. Lloyd, Least Squares Quantization in PCM, IEEE Trans. Inf. Theory 28, 1982).

Where there are many, a key is compared with a few anchors, the means of the means, and then with the `NEAR` means that
are nearest to its anchor. At times another one is nearer; that costs a search three in a hundred of what it finds, and
saves more than half of the time to lay out the lists. What a key's mean is depends on the means and on the key, not on
the keys beside it.

Letters: G heads, M keys, C means, A anchors, D dims.
"""

import torch
from torch import Tensor

NEAR = 1024
EACH = 64  # means to an anchor
ROUNDS = 6
BATCH = 1 << 7  # keys at a time: few, since a block of new ones has hardly two of an anchor


class Means:
    def __init__(self, mean: Tensor):
        """mean: (G, C, D) float32, C a power of two."""
        self.mean = mean
        self._anchors = None
        if mean.shape[1] > NEAR:
            self._anchors = [_lloyd(one, one[::EACH].clone()) for one in mean]
            distance = torch.stack([torch.cdist(a, m) for a, m in zip(self._anchors, mean, strict=True)])
            self._near = distance.topk(NEAR, dim=-1, largest=False).indices.sort(-1).values  # (G, A, NEAR)
            self._means_near = torch.stack([m[n] for m, n in zip(mean, self._near, strict=True)])  # (G, A, NEAR, D)

    @classmethod
    def of(cls, sample: Tensor, count: int) -> "Means":
        """Of keys (G, M, D), M >= count."""
        mean = sample[:, :: sample.shape[1] // count][:, :count].clone()
        for _ in range(ROUNDS):
            which = cls(mean).nearest(sample)
            mean = torch.stack([_moved(*one) for one in zip(sample, which, mean, strict=True)])
        return cls(mean)

    def nearest(self, key: Tensor) -> Tensor:
        """(G, M, D) -> (G, M), by distance."""
        if self._anchors is None:
            return torch.stack([_nearest(*one) for one in zip(key, self.mean, strict=True)])
        nearest = torch.empty(key.shape[:2], dtype=torch.int64)
        for head, (mine, anchors) in enumerate(zip(key, self._anchors, strict=True)):
            anchor = _nearest(mine, anchors)
            rows = anchor.argsort(stable=True).split(anchor.bincount(minlength=len(anchors)).tolist())
            for near, mean, some in zip(self._near[head], self._means_near[head], rows, strict=True):
                if len(some):
                    nearest[head, some] = near[_nearest(mine[some], mean)]
        return nearest


def _nearest(key: Tensor, mean: Tensor) -> Tensor:
    """(M, D), (C, D) -> (M,): in batches of one shape, whose products are rounded alike."""
    group = min(32, len(mean))
    offset = mean.square().sum(-1) / 2
    nearest = torch.empty(len(key), dtype=torch.int64)
    batch = torch.zeros(BATCH, key.shape[1])
    for begin in range(0, len(key), BATCH):
        part = key[begin : begin + BATCH]
        batch[: len(part)] = part
        agreement = torch.addmm(offset, batch, mean.T, beta=-1).unflatten(-1, (-1, group))
        most = agreement.amax(-1).argmax(-1, keepdim=True)  # torch's argmax of long rows is slow
        inside = agreement.gather(1, most[..., None].expand(-1, -1, group)).argmax(-1)
        nearest[begin : begin + BATCH] = (most * group + inside)[: len(part), 0]
    return nearest


def _moved(key: Tensor, which: Tensor, mean: Tensor) -> Tensor:
    """To the mean of the keys that are nearest; one that is nearest to none stays."""
    total = torch.zeros_like(mean).index_add_(0, which, key)
    number = which.bincount(minlength=len(mean))[:, None]
    return torch.where(number > 0, total / number.clamp_min(1), mean)


def _lloyd(key: Tensor, mean: Tensor) -> Tensor:
    for _ in range(ROUNDS):
        mean = _moved(key, _nearest(key, mean), mean)
    return mean
