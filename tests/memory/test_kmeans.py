"""k-means of keys: the nearest centroid, whatever other keys there are."""

import pytest
import torch

from solomonic.memory.search import kmeans
from solomonic.memory.search.kmeans import KMeans


def keys(count: int) -> torch.Tensor:
    """Around 50 centres, of two heads."""
    random = torch.Generator().manual_seed(0)
    centre = torch.randn(50, 2, 8, generator=random)
    key = centre[torch.randint(50, (count,), generator=random)]
    return (key + 0.3 * torch.randn(key.shape, generator=random)).transpose(0, 1)


def distances(key: torch.Tensor, clusters: KMeans) -> torch.Tensor:
    return (key[:, :, None].double() - clusters.centroids[:, None].double()).square().sum(-1)


def test_few_centroids_are_all_compared():
    key = keys(700)
    clusters = KMeans.of(key, 32)
    assert torch.equal(clusters.nearest(key), distances(key, clusters).argmin(-1))


def test_iterations_bring_centroids_to_their_keys(monkeypatch):
    key = keys(700)
    far = [distances(key, KMeans.of(key, 32)).amin(-1).mean()]
    monkeypatch.setattr(kmeans, "ROUNDS", 0)
    far.append(distances(key, KMeans.of(key, 32)).amin(-1).mean())
    assert far[0] < 0.8 * far[1]


@pytest.fixture
def anchored(monkeypatch):
    monkeypatch.setattr(kmeans, "NEAR", 32)
    monkeypatch.setattr(kmeans, "PER_ANCHOR", 8)


def test_many_centroids_are_found_by_anchors(anchored):
    key = keys(3000)
    clusters = KMeans.of(key, 128)
    distance = distances(key, clusters)
    found = distance.gather(-1, clusters.nearest(key)[..., None])[..., 0]
    assert (found == distance.amin(-1)).float().mean() > 0.9
    assert found.mean() < 1.05 * distance.amin(-1).mean()


def test_a_key_has_its_centroid_whatever_is_beside_it(anchored):
    key = keys(3000)
    clusters = KMeans.of(key, 128)
    expected = clusters.nearest(key)
    for begin, end in ((0, 1), (37, 300), (1000, 3000)):
        assert torch.equal(clusters.nearest(key[:, begin:end]), expected[:, begin:end])
