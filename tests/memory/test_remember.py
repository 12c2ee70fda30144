"""Reading documents into a store: whole and once, resumed to the same tokens, each by itself."""

import itertools

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.data.tokenizer import Tokenizer
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.remember import Spans, lookup_gain, remember
from solomonic.retrieval.schema import store_schema

from ..evaluation.models import TEXT, bpe
from .cases import same
from .models import looking

TEXTS = ["Ahab went down to the sea in a ship.\n" * 40, "The whale was white; whiter than snow is.\n" * 60]
BYTES = Tokenizer.for_bytes()


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(preset("bmojo", vocab_size=257, d_model=32, n_layers=2, window=8, capacity=6)).eval()


def everything(store) -> list:
    """All tokens of all layers, as they were written."""
    found = []
    for shape in store.schema.layers:
        query = torch.zeros(1, shape.heads, shape.dim)
        ids = store.search(shape.layer, query, 100_000).entry.unique()
        entries = store.fetch(shape.layer, ids[ids >= 0])
        found += [
            getattr(entries, name)[entries.real] for name in ("key", "value", "score", "clock", "position", "span")
        ]
    return found


def test_the_same_file_twice_changes_nothing(model):
    with open_store("ram:", store_schema(model), write=True) as store:
        first = remember(Attached(model, store), BYTES, "a.txt", TEXTS[0].encode())
        before, stats = everything(store), store.stats()
        assert remember(Attached(model, store), BYTES, "a.txt", TEXTS[0].encode()) is None
        assert same(everything(store), before) and store.stats() == stats
        changed = remember(Attached(model, store), BYTES, "a.txt", TEXTS[1].encode())
        assert changed.id != first.id and len(store.documents()) == 2


def test_a_store_is_of_use_to_a_model_that_looks_things_up(model):
    """Measured, not believed: bits a token by which stored passages are foretold better."""
    assert abs(lookup_gain(model)) < 0.1
    assert lookup_gain(looking()) > 5
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="expected layers with an eidetic memory"):
        lookup_gain(LanguageModel(preset("mamba2", vocab_size=20, d_model=16, n_layers=1)))


@pytest.mark.parametrize("places", [(1,), (1, 2)])
def test_interrupted_and_resumed_is_as_if_read_at_once(model, places, monkeypatch):
    monkeypatch.setattr("solomonic.retrieval.remember.CHUNK", 400)
    monkeypatch.setattr("solomonic.retrieval.remember.EVERY", 1)
    data = TEXTS[0].encode()
    with (
        open_store("ram:", store_schema(model), write=True) as whole,
        open_store("ram:", store_schema(model), write=True) as store,
    ):
        remember(Attached(model, whole), BYTES, "a.txt", data)
        for place in places:
            calls = []

            def stop(tokens):
                calls.append(tokens)
                if len(calls) > place:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                remember(Attached(model, store), BYTES, "a.txt", data, report=stop)
            assert [d.complete for d in store.documents()] == [False]
        reported = []
        document = remember(Attached(model, store), BYTES, "a.txt", data, report=reported.append)
        assert reported[0] > 0 and sum(reported) == len(data)
        assert same(everything(store), everything(whole))
        assert store.passage(document.id, 0, len(data)) == (TEXTS[0], 1)


def test_a_document_does_not_depend_on_those_before_it(model):
    with (
        open_store("ram:", store_schema(model), write=True) as both,
        open_store("ram:", store_schema(model), write=True) as one,
    ):
        remember(Attached(model, both), BYTES, "a.txt", TEXTS[0].encode())
        second = remember(Attached(model, both), BYTES, "b.txt", TEXTS[1].encode())
        remember(Attached(model, one), BYTES, "b.txt", TEXTS[1].encode())
        x = torch.from_numpy(BYTES.encode("The whale was"))[None]
        with torch.no_grad():
            every, _ = Attached(model, both)(x)
            only, _ = Attached(model, both, only=[second.id])(x)
            expected, _ = Attached(model, one)(x)
            assert torch.equal(only, expected) and not torch.equal(every, expected)
            both.forget([d.id for d in both.documents() if d.name == "a.txt"])
            again, _ = Attached(model, both)(x)
        assert torch.equal(again, expected)


@pytest.mark.parametrize("tokenizer", [BYTES, bpe()], ids=["bytes", "bpe"])
def test_spans_are_the_bytes_of_the_tokens(tokenizer):
    text = "Zwölf Boxkämpfer, the quick brown fox\n"
    tokens = torch.from_numpy(tokenizer.encode(text))
    spans = Spans(tokenizer, tokens)(torch.arange(len(tokens)))
    assert spans[0, 0] == 0 and spans[-1, 1] == len(text.encode())
    assert torch.equal(spans[1:, 0], spans[:-1, 1])
    for (start, end), token in zip(spans.tolist(), tokens.tolist()):
        piece = text.encode()[start:end]
        if len(piece) == end - start and piece.isascii() and piece:
            assert piece.decode() == tokenizer.decode([token])


def test_an_empty_document_is_one_too(model):
    with open_store("ram:", store_schema(model), write=True) as store:
        assert remember(Attached(model, store), BYTES, "empty", b"").tokens == 0
        assert np.array_equal([d.complete for d in store.documents()], [True])


def test_a_cut_is_where_a_token_ends():
    """What is asked later ends there: the answer's first token is the one that the question is followed by."""
    tokenizer, data = bpe(), TEXT.encode()[:60]
    edges = Spans(tokenizer, torch.from_numpy(tokenizer.encode(data))).edges.tolist()
    cut = next(a + 1 for a, b in itertools.pairwise(edges) if a and b - a > 1)  # inside a token
    torch.manual_seed(0)
    model = LanguageModel(
        preset("bmojo", vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, window=4, capacity=3)
    )
    positions = {}
    for cuts in ((), (cut,)):
        with open_store("ram:", store_schema(model, dtype="float32"), write=True) as store:
            document = remember(Attached(model, store), tokenizer, "a", data, cuts=cuts)
            entries = [document.id << 32 | n for n in range(document.tokens)]
            found = store.fetch(0, entries)
            edges = {(int(a), int(b)) for a, b in found.span[found.real].tolist()}
            positions[cuts] = {a for a, _ in edges}
            assert store.passage(document.id, 0, len(data))[0] == data.decode()
    assert cut not in positions[()] and cut in positions[cut,]
