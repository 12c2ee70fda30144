"""k-means of keys, by Lloyd's iterations (S. Lloyd, Least Squares Quantization in PCM, IEEE Trans. Inf. Theory 28, 1982).

Where there are many centroids, a key is compared with a few anchors, the centroids of the centroids, and then with the
`NEAR` centroids that are nearest to its anchor. At times another centroid is nearer; that costs a search three in a
hundred of the tokens that it would find, and saves more than half of the time to build the lists. The centroid of a key
depends on the centroids and on the key, not on the keys beside it.

Shapes: G heads, M keys, C centroids, A anchors, D dims.
"""

import torch
from torch import Tensor

NEAR = 1024
PER_ANCHOR = 64  # centroids
ROUNDS = 6
BATCH = 1 << 7  # keys at a time: few, since hardly two keys of a block have the same anchor


class KMeans:
    """Centroids of each head.

    centroids: (G, C, D) float32, C a power of two.
    """

    def __init__(self, centroids: Tensor):
        self.centroids = centroids
        self._anchors: list[Tensor] | None = None
        if centroids.shape[1] > NEAR:
            self._anchors = [_lloyd(of_head, of_head[::PER_ANCHOR].clone()) for of_head in centroids]
            pairs = zip(self._anchors, centroids, strict=True)
            distance = torch.stack([torch.cdist(anchors, of_head) for anchors, of_head in pairs])
            self._near = distance.topk(NEAR, dim=-1, largest=False).indices.sort(-1).values  # (G, A, NEAR)
            self._near_centroids = torch.stack([c[n] for c, n in zip(centroids, self._near, strict=True)])

    @classmethod
    def of(cls, sample: Tensor, count: int) -> "KMeans":
        """`count` centroids of keys (G, M, D), M >= count."""
        centroids = sample[:, :: sample.shape[1] // count][:, :count].clone()
        for _ in range(ROUNDS):
            nearest = cls(centroids).nearest(sample)
            centroids = torch.stack([_means(*of_head) for of_head in zip(sample, nearest, centroids, strict=True)])
        return cls(centroids)

    def nearest(self, key: Tensor) -> Tensor:
        """(G, M, D) -> (G, M) int64: the centroid with the smallest distance."""
        if self._anchors is None:
            return torch.stack([_nearest(*of_head) for of_head in zip(key, self.centroids, strict=True)])
        nearest = torch.empty(key.shape[:2], dtype=torch.int64)
        for head, (keys, anchors) in enumerate(zip(key, self._anchors, strict=True)):
            anchor = _nearest(keys, anchors)
            rows_of = anchor.argsort(stable=True).split(anchor.bincount(minlength=len(anchors)).tolist())
            for near, centroids, rows in zip(self._near[head], self._near_centroids[head], rows_of, strict=True):
                if len(rows):
                    nearest[head, rows] = near[_nearest(keys[rows], centroids)]
        return nearest


def _nearest(key: Tensor, centroids: Tensor) -> Tensor:
    """(M, D), (C, D) -> (M,): in batches of one shape, whose products are rounded alike."""
    group = min(32, len(centroids))
    offset = centroids.square().sum(-1) / 2
    nearest = torch.empty(len(key), dtype=torch.int64)
    batch = torch.zeros(BATCH, key.shape[1])
    for begin in range(0, len(key), BATCH):
        part = key[begin : begin + BATCH]
        batch[: len(part)] = part
        closeness = torch.addmm(offset, batch, centroids.T, beta=-1).unflatten(-1, (-1, group))
        most = closeness.amax(-1).argmax(-1, keepdim=True)  # torch's argmax of long rows is slow
        inside = closeness.gather(1, most[..., None].expand(-1, -1, group)).argmax(-1)
        nearest[begin : begin + BATCH] = (most * group + inside)[: len(part), 0]
    return nearest


def _means(key: Tensor, nearest: Tensor, centroids: Tensor) -> Tensor:
    """The mean of the keys that are nearest to each centroid; one that is nearest to no key stays."""
    total = torch.zeros_like(centroids).index_add_(0, nearest, key)
    number = nearest.bincount(minlength=len(centroids))[:, None]
    return torch.where(number > 0, total / number.clamp_min(1), centroids)


def _lloyd(key: Tensor, centroids: Tensor) -> Tensor:
    for _ in range(ROUNDS):
        centroids = _means(key, _nearest(key, centroids), centroids)
    return centroids
