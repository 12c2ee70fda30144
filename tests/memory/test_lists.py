"""Approximate search: nearly as good as exact, and a function of what is stored alone."""

import sys

import pytest
import torch

from solomonic.memory import LayerSchema, StoredTokens, StoreSchema, open_store
from solomonic.memory.search import inverted_lists as lists
from solomonic.memory.search import kmeans

from .cases import same

LAYER = LayerSchema(0, heads=2, dim=8, block=4, admit=True)
SCHEMA = StoreSchema("model", (LAYER,), "float32")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(lists, "EXACT_BELOW", 256)
    monkeypatch.setattr(lists, "TAIL", 50)
    monkeypatch.setattr(lists, "PROBES", 8)
    monkeypatch.setattr(lists, "SCANNED", 0)
    monkeypatch.setattr(kmeans, "NEAR", 16)
    monkeypatch.setattr(kmeans, "PER_ANCHOR", 8)


def tokens(seed: int, count: int = 400) -> StoredTokens:
    """Keys around 30 centres, as the tokens of a text are."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.randn(30, 2, 8, generator=torch.Generator().manual_seed(0))
    key = centre[torch.randint(30, (count,), generator=random)] + 0.4 * torch.randn(count, 2, 8, generator=random)
    position, clock = torch.arange(count), torch.rand(count, generator=random).cumsum(0)
    score = torch.randn(count, generator=random)
    return StoredTokens(position, key, key, score, clock, position[:, None] + torch.tensor([0, 1]))


def put(store, seed: int, parts: int = 1) -> int:
    with store.document(f"{seed}") as document:
        for part in torch.arange(400).chunk(parts):
            document.write(0, tokens(seed)[part[0] : part[-1] + 1])
            if parts > 1:
                answers(store)  # the index grows while it is asked
    return document.id


def answers(store, **options) -> list:
    query = tokens(99, 40).key
    found = store.search(0, query, 5, now=store.clock(0), **options)
    names = {document.id: document.name for document in store.documents()}
    return [found.position, found.logit, [names.get(e >> 32) for e in found.entry.flatten().tolist()]]


@pytest.mark.parametrize("options", [{}, {"rate": 0.02}, {"only": [2, 3]}])
def test_it_finds_most_of_what_exact_search_finds(options):
    with open_store("ram:", SCHEMA, write=True) as exact, open_store("ram:", SCHEMA, True, approximate=True) as store:
        for seed in range(4):
            put(exact, seed), put(store, seed)
        expected, got = answers(exact, **options)[1], answers(store, **options)[1]
        share = (got[..., None] == expected[..., None, :]).any(-1).float().mean()
        assert 0.85 < share < 1  # with eight of 64 lists


def test_where_all_lists_are_looked_at_only_rounding_misses_any(monkeypatch):
    monkeypatch.setattr(lists, "SCANNED", 1600)
    with open_store("ram:", SCHEMA, write=True) as exact, open_store("ram:", SCHEMA, True, approximate=True) as store:
        for seed in range(4):
            put(exact, seed), put(store, seed)
        expected, got = answers(exact)[1], answers(store)[1]
        assert (got == expected).float().mean() > 0.99
        monkeypatch.setattr(lists, "compiled", lambda: None)
        assert torch.equal(answers(store)[1], got)


def test_few_tokens_are_searched_exactly(monkeypatch):
    monkeypatch.setattr(lists, "EXACT_BELOW", 401)
    with open_store("ram:", SCHEMA, write=True) as exact, open_store("ram:", SCHEMA, True, approximate=True) as store:
        put(exact, 0), put(store, 0)
        assert same(answers(store), answers(exact))


def test_it_is_a_function_of_what_is_stored_alone(tmp_path):
    """However it was written, whatever was forgotten, and read anew."""
    with open_store(str(tmp_path / "a"), SCHEMA, True, approximate=True) as store:
        for seed in (0, 1, 2):
            put(store, seed)
        expected = answers(store)
    with open_store(str(tmp_path / "a"), approximate=True) as store:
        assert same(answers(store), expected)
    with open_store(str(tmp_path / "b"), SCHEMA, True, approximate=True) as store:
        put(store, 0, parts=7)
        gone = put(store, 5, parts=3)
        put(store, 1, parts=2), put(store, 2, parts=9)
        assert not same(answers(store), expected)
        store.forget([gone])
        assert same(answers(store), expected)


@pytest.mark.parametrize("options", [{}, {"rate": 0.02}])
def test_whole_numbers_are_multiplied_alike_without_a_kernel_for_them(options, monkeypatch):
    with open_store("ram:", SCHEMA, True, approximate=True) as store:
        for seed in range(2):
            put(store, seed, parts=3)
        expected = answers(store, **options)
        monkeypatch.setattr(lists, "whole_product", lists.float_product)
        assert same(answers(store, **options), expected)


@pytest.mark.parametrize("options", [{}, {"rate": 0.02}, {"only": [2, 3]}, {"only": [1], "rate": -0.01}, {"only": []}])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_compiled_search_gives_the_same_answers(dtype, options, monkeypatch):
    pytest.importorskip("numba")
    with open_store("ram:", StoreSchema("model", (LAYER,), dtype), True, approximate=True) as store:
        for seed in range(3):
            put(store, seed)
        for parts in (1, 11):  # with no tail, and with one
            put(store, 3 + parts, parts)
            got = answers(store, **options)
            with monkeypatch.context() as without:
                without.setattr(lists, "compiled", lambda: None)
                assert same(got, answers(store, **options))
        assert store.contents.index(0).size > store.contents.index(0).listed


@pytest.mark.parametrize("looked", [0, 1600])
def test_a_query_that_is_no_number_finds_nothing(looked, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(lists, "SCANNED", looked)
    with open_store("ram:", SCHEMA, True, approximate=True) as store:
        put(store, 0), put(store, 1, parts=11)
        for number in (torch.nan, torch.inf):
            assert (store.search(0, torch.full((2, 2, 8), number), 3).entry == -1).all()


def test_without_numba_torch_searches(monkeypatch):
    lists.compiled.cache_clear()
    monkeypatch.delitem(sys.modules, "solomonic.memory.search.compiled", raising=False)
    monkeypatch.delitem(sys.modules, "solomonic.ops.jit", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        assert lists.compiled() is None
        with open_store("ram:", SCHEMA, True, approximate=True) as store:
            put(store, 0)
            assert (answers(store)[0] >= 0).all()
    finally:
        lists.compiled.cache_clear()
