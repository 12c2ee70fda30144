"""Readers mixed by how well they foretold: the definition, the bound, and the same however the text is cut."""

import math

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.evaluation.score import continuations
from solomonic.inference.generation import generate, stream
from solomonic.inference.sessions import Session
from solomonic.memory import open_store
from solomonic.model import map_state, state_tensors
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.hedge import Hedged
from solomonic.retrieval.schema import store_schema

from ..laws.cases import shake

V = 20


def small(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(preset("bmojo", vocab_size=V, d_model=16, n_layers=2, window=4, capacity=3, state_size=4))
    shake(model, 0.3)
    return model.eval()


@pytest.fixture
def three():
    return [small(seed) for seed in range(3)]


def some(length: int = 30, rows: int = 2) -> torch.Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(5))


def by_definition(readers, tokens: list[int], share: float) -> torch.Tensor:
    """p (T, V), token by token."""
    p = [reader(torch.tensor([tokens]))[0][0].softmax(-1).double() for reader in readers]
    w, found = [1 / len(p)] * len(p), []
    for t, token in enumerate(tokens):
        if t:
            total = sum(w[i] * p[i][t - 1, token] for i in range(len(p)))
            w = [(1 - share) * w[i] * p[i][t - 1, token] / total + share / len(p) for i in range(len(p))]
        found.append(sum(w[i] * p[i][t] for i in range(len(p))))
    return torch.stack(found)


@torch.no_grad()
def test_it_is_the_definition_and_sums_to_one(three):
    logits, state = Hedged(three, 0.1)(some())
    for row in range(2):
        torch.testing.assert_close(
            logits[row].exp().double(), by_definition(three, some()[row].tolist(), 0.1), atol=1e-5, rtol=1e-4
        )
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 30))
    assert state["weight"].min() > 0.1 / 3 - 1e-6
    assert not torch.allclose(state["weight"][0], state["weight"][1])


@torch.no_grad()
def test_any_cut_gives_the_same(three):
    hedged, tokens = Hedged(three), some()
    expected, end = hedged(tokens)
    found, state = [], None
    for part in tokens.split([1, 7, 2, 20], 1):
        logits, state = hedged(part, state)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), expected, atol=1e-4, rtol=1e-4)
    whole = dict(state_tensors(end))
    for name, tensor in state_tensors(state):
        torch.testing.assert_close(tensor, whole[name], atol=1e-4, rtol=1e-4)
    like = hedged.init_state(2, 30)
    assert {n: t.shape for n, t in state_tensors(like)} == {n: t.shape for n, t in state_tensors(end)}
    assert hedged.state_bytes(30, 2) == sum(t.numel() * t.element_size() for _, t in state_tensors(end))


@torch.no_grad()
def test_padding_changes_nothing(three):
    hedged, tokens = Hedged(three), some()
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[1, 17:] = False
    alone, _ = hedged(tokens[1:, :17])
    logits, state = hedged(tokens, mask=mask)
    torch.testing.assert_close(logits[1:, :17], alone, atol=1e-4, rtol=1e-4)
    more, _ = hedged(tokens[:, :3], state)
    _, short = hedged(tokens[1:, :17])
    torch.testing.assert_close(more[1:], hedged(tokens[1:, :3], short)[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_it_is_hardly_worse_than_the_best_reader_of_each_half(three):
    """Text that the first reader wrote, then the second: the bound of Herbster and Warmuth."""
    first = [1, *(token for token, *_ in stream(three[0], Session().then([1]), max_tokens=60))]
    whole = first + [token for token, *_ in stream(three[1], Session().then(first), max_tokens=60)]
    share, tokens = 0.03, torch.tensor([whole])

    def nats(reader):
        return -reader(tokens)[0][0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0].double()

    each, mixed = torch.stack([nats(reader) for reader in three]), nats(Hedged(three, share))
    best = each[0, :60].sum() + each[1, 60:].sum()
    T, n = len(whole) - 1, 3
    most = math.log(n * (1 - share) / share) - T * math.log(1 - share) + math.log(n)
    assert mixed.sum() < best + most
    assert mixed.sum() < each.sum(1).min() - 10  # and better than any of them for all of it


@torch.no_grad()
def test_it_goes_wherever_a_model_goes(three):
    hedged = Hedged(three)
    tokens = [token for token, *_ in stream(hedged, Session().then([1, 2, 3]), max_tokens=8)]
    assert generate(hedged, [[1, 2, 3], [4]], max_tokens=8)[0] == tokens
    (scores,) = continuations(hedged, [(np.array([1, 2, 3]), [np.array(tokens[:3]), np.array([0, 0])])])
    assert scores[0][1] and not scores[1][1]
    state = hedged(some())[1]
    assert map_state(lambda tensor: tensor[:1], state)["weight"].shape == (1, 3)


@torch.no_grad()
def test_one_writes_what_another_finds_the_same_however_it_is_cut():
    model, tokens = small(), some(60, 1)

    def read(sizes):
        with (
            open_store("ram:", store_schema(model, dtype="float32"), write=True) as store,
            store.document("d") as writing,
        ):
            hedged = Hedged(
                [model, Attached(model, store, own=writing.id), Attached(model, store, rate=0.5, writing=writing)]
            )
            found, state = [], None
            for part in tokens.split(sizes, 1):
                logits, state = hedged(part, state)
                found.append(logits)
            return torch.cat(found, 1), state["weight"]

    (expected, weight), (got, same) = read([60]), read([1, 9, 30, 5, 15])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same, weight, atol=1e-4, rtol=1e-4)
    assert (expected - model(tokens)[0].log_softmax(-1)).abs().max() > 1e-2


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_what_cannot_be_is_refused(three, share):
    with pytest.raises(ValueError, match="share: expected"):
        Hedged(three, share)
    with pytest.raises(ValueError, match="two readers"):
        Hedged(three[:1])
    other = LanguageModel(preset("bmojo", vocab_size=V + 1, d_model=16, n_layers=1))
    with pytest.raises(ValueError, match="one vocabulary"):
        Hedged([three[0], other])
