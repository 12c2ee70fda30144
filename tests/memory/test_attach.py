"""A model with a store: B'MOJO without bounds where everything is kept, the same however the input is cut."""

from dataclasses import replace

import pytest
import torch

from solomonic import LanguageModel
from solomonic.memory import open_store
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.ops.memory_attention import memory_attention
from solomonic.ops.memory_attention.call import Stored
from solomonic.ops.memory_attention.state import kept_positions, memory_positions
from solomonic.ops.sequence import fresh
from solomonic.retrieval.attach import SHARPEST, Attached
from solomonic.retrieval.clock import CLOCKS, changes
from solomonic.retrieval.schema import store_schema

from ..laws.cases import DELTA, MAMBA, assert_close, assert_same_state, language_model, tokens

LENGTH = 61
CASES = {
    "learned": BMojoConfig(fading=MAMBA, window=7, capacity=4, block=5, n_kv_heads=2),
    "block of a window": BMojoConfig(fading=MAMBA, window=6, capacity=3),
    "norm": BMojoConfig(fading=DELTA, window=9, capacity=5, block=4, score="norm"),
    "recent": BMojoConfig(window=5, capacity=4, block=5, score="recent"),
    "grouped": BMojoConfig(fading=MAMBA, window=12, capacity=6, block=3, n_kv_heads=1),
}
CUTS = {"at once": [LENGTH], "one at a time": [1] * LENGTH, "odd": [3, 17, 1, 9, 31]}
cases = pytest.mark.parametrize("case", CASES)


def model_of(case: str, **changes) -> LanguageModel:
    return language_model([replace(CASES[case], **changes)] * 2).eval()


def read(model, store, x, cuts, **options):
    """Logits, and the state, of a document that is written to the store and found again as it is read."""
    logits, state = [], None
    with torch.no_grad(), store.document("text") as writing:
        attached = Attached(model, store, writing=writing, **options)
        for part in x.split(cuts, 1):
            y, state = attached(part, state)
            logits.append(y)
        attached.finish(state)
    return torch.cat(logits, 1), state


@cases
@pytest.mark.parametrize("cut", CUTS)
def test_with_everything_kept_and_found_it_is_an_eidetic_memory_without_bounds(case, cut):
    """Of layers whose slots do not fade: neither does a store whose rate is 0."""
    model, x = model_of(case, learned_decay=False), tokens(1, LENGTH)
    config = replace(model.config, layers=tuple(replace(layer, capacity=LENGTH) for layer in model.config.layers))
    unbounded = LanguageModel(config).eval()
    unbounded.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected, _ = unbounded(x)
        alone, _ = model(x)
    got, _ = read(model, open_store("ram:", store_schema(model, dtype="float32"), write=True), x, CUTS[cut], k=LENGTH)
    assert_close(got, expected, "logits")
    assert (got - alone).abs().max() > 1e-3


@cases
def test_few_found_of_few_kept_is_the_same_however_the_input_is_cut(case):
    model, x = model_of(case), tokens(1, LENGTH)
    keep = 1.0 if case == "recent" else 0.4  # its scores are positions
    shape = store_schema(model, dtype="float32", keep=keep, text=tokens(1, 200, seed=2)[0])
    results = []
    for cut in CUTS.values():
        store = open_store("ram:", shape, write=True)
        results.append((read(model, store, x, cut, k=2), store.stats()["tokens"]))
    (expected, expected_state), kept = results[0]
    assert kept / 2 == LENGTH if keep == 1 else 0.2 * LENGTH < kept / 2 < 0.7 * LENGTH
    for (got, state), count in results[1:]:
        assert_close(got, expected, "logits")
        assert_same_state(state, expected_state, "state")
        assert count == kept


@cases
def test_what_is_newest_alone_is_found_however_the_input_is_cut(case):
    model, x = model_of(case), tokens(1, LENGTH)
    shape = store_schema(model, dtype="float32")

    def got(cut, **options):
        return read(model, open_store("ram:", shape, write=True), x, CUTS[cut], k=2, rate=0.01, **options)[0]

    whole = got("at once")
    assert_close(got("at once", newest=LENGTH), whole, "logits")
    near = got("at once", newest=20)
    assert (near - whole).abs().max() > 1e-3
    assert_close(near[:, :20], whole[:, :20], "logits")
    for cut in CUTS:
        assert_close(got(cut, newest=20), near, "logits")


def test_sharpness_moves_weight_to_the_best_and_leaves_that_of_the_store():
    """Twice as sharp, a weight is as its square among the found ones of a head, and they weigh as much together."""
    q, key, value = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 5, 2, 6), torch.randn(2, 3, 5, 2, 6)
    visible, weights = torch.rand(2, 3, 5) < 0.7, {}
    visible[0, 0] = False
    bias = torch.randn(2, 3, 5)
    for sharpness in (1.0, 2.0, SHARPEST):
        stored = Stored(q, key, value, bias, visible, lambda w, s=sharpness: weights.__setitem__(s, w), sharpness)
        k, v = (torch.zeros(2, 3, 2, 6) for _ in range(2))
        memory_attention(q, k, v, None, fresh(2, 3), window=3, block=3, stored=stored)
    as_trained, twice, sharpest = weights.values()
    together = as_trained.sum(-1)
    assert together[0, 0].max() == 0 and together[1].min() > 0
    assert_close(
        twice, together[..., None] * as_trained**2 / (as_trained**2).sum(-1, keepdim=True).clamp_min(1e-9), "2"
    )
    assert_close(sharpest.sum(-1), together, "all")
    assert_close(sharpest.amax(-1), together, "the best")


def test_sharpness_is_a_number_above_nothing():
    model = model_of("learned")
    with open_store("ram:", store_schema(model), write=True) as store:
        for sharpness in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="sharpness: expected a number above 0, and 1000 at most"):
                Attached(model, store, sharpness=sharpness)


@pytest.mark.parametrize("options", [{"newest": 0, "own": 1}, {"newest": 20}])
def test_what_is_newest_needs_a_document_and_a_number(options):
    model = model_of("learned")
    with (
        open_store("ram:", store_schema(model), write=True) as store,
        pytest.raises(ValueError, match="newest: expected"),
    ):
        Attached(model, store, **options)


@cases
@pytest.mark.parametrize("k", [0, 1])
def test_a_document_is_stored_whole_and_once(case, k):
    model, x = model_of(case), tokens(1, LENGTH)
    with open_store("ram:", store_schema(model, dtype="float32"), write=True) as store:
        read(model, store, x, [13, 1, 47], k=k, clock="surprise")
        states = [None]
        with torch.no_grad():
            for part in x.split(1, 1):
                states.append(model(part, states[-1])[1])
        for i in (0, 1):
            entries = store.fetch(i, store.search(i, torch.zeros(1, *store_shape(store, i)), LENGTH).entry.unique())
            position, order = entries.position[entries.real].sort()
            assert position.tolist() == list(range(LENGTH))
            if k:  # what is found changes what is computed
                continue
            expected = torch.stack([state["layers"][i]["attention"]["k"][0, -1] for state in states[1:]])
            assert_close(entries.key[entries.real][order], expected, "keys")
            with torch.no_grad():
                nats = -model(x)[0].log_softmax(-1)[0, :-1].gather(1, x[0, 1:, None])[:, 0].double()
            clock = torch.cat([torch.zeros(1), nats.cumsum(0)])
            assert_close(entries.clock[entries.real][order].double(), clock, "clock")


def switching(model):
    """One of the nine likeliest tokens each time, and from the 41st on the least likely."""
    x, state = tokens(1, 1), None
    with torch.no_grad():
        while (n := x.shape[1]) < LENGTH:
            logits, state = model(x[:, -1:], state)
            order = logits[:, -1].argsort(-1, descending=True)
            x = torch.cat([x, order[:, [n * 5 % 9 if n < 40 else -1]]], 1)
    return x


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_decay_is_the_same_however_the_input_is_cut(clock):
    model = model_of("learned")
    x = switching(model)
    shape, results = store_schema(model, dtype="float32"), []
    for cut in CUTS.values():
        store = open_store("ram:", shape, write=True)
        logits, _ = read(model, store, x, cut, k=2, rate=1.0, clock=clock)
        results.append((logits, store.clock(0)))
    (expected, ran), still = results[0], read(model, open_store("ram:", shape, write=True), x, [LENGTH], k=2)[0]
    assert ran > 0
    assert (expected - still).abs().max() > 1e-3
    for got, time in results[1:]:
        assert_close(got, expected, "logits")
        assert time == pytest.approx(ran, rel=1e-4)


def test_the_clock_of_change_stands_still_until_the_source_changes():
    draw = torch.Generator().manual_seed(0)
    before, after = (torch.empty(n, dtype=torch.float64).exponential_(generator=draw) for n in (2000, 40))
    usual, at_switch = changes(before)
    switched, later = changes(after + 2, at_switch)
    assert usual[:16].sum() == 0
    assert usual.mean() < 0.05
    assert switched[10:].mean() > 0.5
    assert (changes(before * 3 + 5)[0] - usual).abs().max() < 1e-6  # the unit is the deviation, and the mean is free
    whole, end = changes(torch.cat([before, after + 2]))
    assert torch.equal(whole, torch.cat([usual, switched]))
    assert torch.equal(end, later)


@pytest.mark.parametrize("clock", CLOCKS)
def test_writing_goes_on_where_it_was_saved(clock):
    model, clocks = model_of("learned"), []
    x = switching(model)
    for cut in (LENGTH, 23):
        store, state = open_store("ram:", store_schema(model, dtype="float32"), write=True), None
        with torch.no_grad(), store.document("text") as writing:
            saved = {}
            for part in x.split([cut] * (LENGTH // cut) + [LENGTH % cut] * (LENGTH % cut > 0), 1):
                attached = Attached(model, store, writing=writing, k=0, clock=clock)
                if saved:
                    attached.restore(saved)
                _, state = attached(part, state)
                saved = attached.saved()
            attached.finish(state)
        clocks.append(store.clock(0))
    assert clocks[0] > 0
    assert clocks[0] == pytest.approx(clocks[1], rel=1e-4)


def store_shape(store, i):
    return store.schema[i].heads, store.schema[i].dim


@cases
def test_where_the_memory_is_said_to_be_is_what_it_holds(case):
    """At a boundary the slots of the state are those before it; one token later they are what `memory_positions` foretold."""
    model, x = model_of(case), tokens(2, 31)
    with torch.no_grad():
        state = None
        for part in x.split(1, 1):
            foretold = (
                None
                if state is None
                else [
                    memory_positions(s["attention"], state["position"], layer.block_size, layer.exact)
                    for layer, s in zip(model.config.layers, state["layers"])
                ]
            )
            _, state = model(part, state)
            for i, expected in enumerate(foretold or []):
                held = kept_positions(state["layers"][i]["attention"], state["position"])
                assert torch.equal(expected.sort().values, held.sort().values)


def test_a_library_is_found_by_every_row_of_a_batch_as_by_each_alone():
    model, store = model_of("learned"), None
    store = open_store("ram:", store_schema(model, dtype="float32"), write=True)
    read(model, store, tokens(1, LENGTH, seed=8), [LENGTH], k=0)
    attached, x = Attached(model, store, k=3), tokens(3, 20, seed=9)
    mask = torch.arange(20) >= torch.tensor([[0], [5], [19]])
    with torch.no_grad():
        expected, _ = model(x, mask=mask)
        got, _ = attached(x, mask=mask)
        assert not torch.allclose(got[mask], expected[mask], atol=1e-3)
        for row in range(3):
            alone, _ = attached(x[row : row + 1, mask[row]])
            assert_close(got[row, mask[row]], alone[0], f"row {row}")
    assert attached.used == {document.id for document in store.documents()}


def test_what_cannot_be_attached_is_one_error():
    model = model_of("learned")
    store = open_store("ram:", store_schema(model), write=True)
    with pytest.raises(ValueError, match="expected one of this model"):
        Attached(model_of("norm"), store)
    with pytest.raises(ValueError, match="k: expected a whole number"):
        Attached(model, store, k=-1)
    with pytest.raises(ValueError, match="layers with an eidetic memory to store, got \\[5\\]"):
        store_schema(model, layers=[5])
    with pytest.raises(ValueError, match="keep: expected a share"):
        store_schema(model, keep=0.0)
    with store.document("a") as writing:
        attached = Attached(model, store, writing=writing)
        with pytest.raises(ValueError, match="expected one row"):
            attached(tokens(2, 5))
        with pytest.raises(ValueError, match="expected rows of one document"):
            attached(tokens(1, 5), segments=torch.zeros(1, 5, dtype=torch.int64))
