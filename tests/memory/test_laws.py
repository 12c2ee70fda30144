"""The laws of `Store`, on every engine."""

import pytest
import torch

from solomonic.memory.cache import LRUCache
from solomonic.memory.search.reference import search as defined

from .cases import SCHEMA, answers, beside, kept, opened, put, queries, same, tokens_of


@pytest.mark.parametrize("rough", [False, True])
def test_search_is_its_definition(uri, rough):
    with opened(uri) as store:
        ids = torch.tensor([put(store, f"{seed}", seed, rough=rough) for seed in range(4)])
        for layer in (1, 3):
            documents = [kept(tokens_of(seed, layer, rough=rough)) for seed in range(4)]
            query, block = queries(layer, rough=rough), SCHEMA[layer].block
            for rate, k in ((0.0, 1), (0.0, 8), (0.5, 8), (0.5, 100)):
                found = store.search(layer, query, k, rate, now=2.5)
                document, position, logit = defined(query, documents, k, SCHEMA[layer], rate, now=2.5)
                assert torch.equal(found.logit, logit)
                assert torch.equal(found.position, position)
                entry = torch.where(document < 0, -1, (ids[document] << 32) | position // block)
                assert torch.equal(found.entry, entry)
            assert (found.entry[..., -1] == -1).all()


def test_search_of_some_documents_alone(uri):
    with opened(uri) as store:
        ids = [put(store, f"{seed}", seed) for seed in range(3)]
        found = store.search(1, queries(1), 46, only={ids[0], ids[2]})
        assert set((found.entry >> 32).unique().tolist()) == {ids[0], ids[2]}
        _, position, logit = defined(queries(1), [kept(tokens_of(seed)) for seed in (0, 2)], 46, SCHEMA[1])
        assert torch.equal(found.position, position) and torch.equal(found.logit, logit)
        assert (store.search(1, queries(1), 2, only=set()).entry == -1).all()


def test_what_is_written_is_found_at_once(uri):
    tokens = kept(tokens_of(0))
    with opened(uri) as store:
        put(store, "before", 1)
        store.search(1, queries(1), 1)
        with store.document("now") as document:
            for i in range(23):
                document.write(1, tokens[i : i + 1])
                query = 100 * tokens.key[i : i + 1].float()
                found = store.search(1, query, 1, only={document.id})
                assert found.position[0, 0, 0] <= tokens.position[i]
                _, position, logit = defined(query, [tokens[: i + 1]], 1, SCHEMA[1])
                assert torch.equal(found.position, position) and torch.equal(found.logit, logit)
                entries = store.fetch(1, found.entry[0, :, 0])
                assert (entries.real.any() and tokens.position[i] < 4) or entries.position.max() >= 0


def test_fetch_gives_the_tokens_of_an_entry(uri):
    tokens = kept(tokens_of(0))
    with opened(uri) as store:
        put(store, "first", 1)
        document = put(store, "second", 0)
        blocks = (tokens.position // 4).unique()
        entries = store.fetch(1, torch.cat([(document << 32) | blocks, torch.tensor([-1])]))
        assert entries.key.shape == (len(blocks) + 1, int(entries.real.sum(1).max()), 2, 6)
        assert not entries.real[-1].any() and entries.document[-1] == -1
        real = entries.real
        began = float(tokens_of(1).clock[-1])
        assert torch.equal(entries.position[real], tokens.position)
        assert torch.equal(entries.key[real], tokens.key.float()) and torch.equal(
            entries.value[real], tokens.value.float()
        )
        assert torch.equal(entries.score[real], tokens.score) and torch.equal(entries.span[real], tokens.span)
        assert torch.equal(entries.clock[real], (began + tokens.clock.double()).float())
        assert (entries.document[:-1] == document).all()
        assert store.clock(1) == began + float(tokens.clock[-1])
        assert not store.fetch(1, [(99 << 32) | 1]).real.any()

        missing = [(document << 32) | 10**6, (99 << 32) | 1, -1]
        read = store.read(1, [*((document << 32) | tokens.position).tolist(), *missing])
        assert read.real.tolist() == len(tokens) * [True] + 3 * [False]
        for name in ("key", "value", "score", "clock"):
            assert torch.equal(getattr(read, name)[:-3], getattr(entries, name)[real])


def test_what_reading_makes_of_entries_is_not_kept_with_them(tmp_path):
    with opened(f"ram:{tmp_path}") as store:
        put(store, "a", 0)
        with store.document("b") as document:
            document.write(1, tokens_of(1))
            answers(store)
        answers(store)
        in_engine = []
        for layer in (1, 3):
            ids = store.search(layer, queries(layer), 200).entry.unique()
            in_engine += store.contents.engine.fetch(layer, ids.tolist()).values()
        assert len(in_engine) > 10 and not any("packed" in vars(tokens) for tokens in in_engine)


def test_the_entries_that_were_read_last_are_kept():
    tokens = kept(tokens_of(0))
    cache = LRUCache(capacity=3 * tokens.nbytes())
    for entry in range(3):
        cache.put(1, entry, tokens)
    assert cache.get(1, 0) is tokens and cache.get(3, 0) is None
    cache.put(1, 3, tokens)  # instead of what was asked for longest ago
    assert [cache.get(1, entry) is tokens for entry in range(4)] == [True, False, True, True]
    cache.drop(1, 2)
    cache.put(1, 4, tokens)
    assert [cache.get(1, entry) is tokens for entry in range(5)] == [True, False, False, True, True]
    cache.clear()
    assert cache.get(1, 0) is None


def test_all_is_there_after_reopening(uri):
    with opened(uri) as store:
        for seed in range(3):
            put(store, f"{seed}", seed, session="s" if seed else None, time=float(seed), digest=f"d{seed}", sources=())
        before, documents = answers(store), store.documents()
    with opened(uri, schema=None, write=False) as store:
        assert store.schema == SCHEMA
        assert store.documents() == documents
        assert same(answers(store), before)
        assert store.verify() == []


@pytest.mark.parametrize("reopened", [False, True])
def test_forgetting_equals_never_having_held(uri, reopened):
    with opened(beside(uri)) as never:
        for seed in (0, 2, 4):
            put(never, f"{seed}", seed, rough=True)
        expected = answers(never, rough=True)
    with opened(uri) as store:
        ids = [put(store, f"{seed}", seed, rough=True) for seed in range(3)]
        answers(store)
        assert [d.name for d in store.forget(documents=[ids[1]]).asked] == ["1"]
        put(store, "3", 3, rough=True, session="s")
        put(store, "4", 4, rough=True)
        assert not same(answers(store, rough=True), expected)
        store.forget(session="s")
        if not reopened:
            assert same(answers(store, rough=True), expected)
    with opened(uri, write=False) as store:
        assert same(answers(store, rough=True), expected)
        assert store.verify() == []


def test_what_was_computed_from_the_forgotten_goes_with_it(uri):
    with opened(uri) as store:
        a = put(store, "a", 0)
        b = put(store, "b", 1, sources=[a])
        with store.document("c") as document:
            document.write(1, tokens_of(2))
            document.add_sources([b])
        put(store, "d", 3)
        would = store.forget(documents=[a], dry_run=True)
        assert len(store.documents()) == 4
        gone = store.forget(documents=[a])
        assert gone == would
        assert [d.name for d in gone.asked] == ["a"] and [d.name for d in gone.followed] == ["b", "c"]
        assert [d.name for d in store.documents()] == ["d"]


def test_forget_by_time_and_session(uri):
    with opened(uri) as store:
        for seed in range(4):
            put(store, f"{seed}", seed, session="even" if seed % 2 == 0 else "odd", time=100.0 + seed)

        def names(**what):
            return [d.name for d in store.forget(dry_run=True, **what).asked]

        assert names(before=102) == ["0", "1"] and names(after=102) == ["2", "3"]
        assert names(session="even") == ["0", "2"] and names(session="even", after=101) == ["2"]
        with pytest.raises(ValueError, match="expected documents, a time or a session"):
            store.forget()
        with pytest.raises(ValueError, match="does not hold"):
            store.forget(documents=[77])


def test_a_passage_is_shown_with_its_line(uri):
    with opened(uri) as store:
        big = b"".join(b"%06d\n" % i for i in range(30_000))
        with store.document("big") as document:
            for begin in range(0, len(big), 1000):
                document.append(big[begin : begin + 1000])
                if begin % 70_000 == 0:
                    document.save()
            document.write(1, tokens_of(0))
            assert store.passage(document.id, 7 * 29_999, 7 * 30_000) == ("029999\n", 30_000)
        for line in (0, 1, 9_362, 9_363, 29_999):
            assert store.passage(document.id, 7 * line + 2, 7 * line + 9)[1] == line + 1
            assert store.passage(document.id, 7 * line, 7 * line + 7) == (f"{line:06d}\n", line + 1)
        assert store.passage(document.id, 0, len(big))[0].encode() == big
        hostile = b"\xff\xfe\x00__import__('os').system('id')'; DROP TABLE documents;--\n"
        with store.document("'; DROP TABLE documents;--", session="\x00'\"") as document:
            document.append(hostile)
        assert store.passage(document.id, 0, len(hostile))[0] == hostile.decode("utf-8", "replace")
        assert store.find("'; DROP TABLE documents;--", session="\x00'\"").id == document.id


def test_a_document_is_resumed_at_its_last_save_point(uri):
    tokens, text = tokens_of(0), b"a line\n" * 5000
    with opened(beside(uri)) as whole:
        put(whole, "before", 1)
        with whole.document("file", digest="d") as document:
            document.write(1, tokens)
            document.append(text)
        put(whole, "after", 2)
        expected = answers(whole)
    with opened(uri) as store:
        put(store, "before", 1)
        with pytest.raises(KeyboardInterrupt), store.document("file", digest="d") as document:
            assert not document.resumed
            document.write(1, tokens[:9])
            document.append(text[:9000])
            document.save(b"state at 9")
            document.write(1, tokens[9:14])
            document.append(text[9000:12000])
            raise KeyboardInterrupt
        store.flush()
        assert [d.complete for d in store.documents()] == [True, False]
        assert (store.search(1, queries(1), 99).entry.max() >> 32) < document.id
    with opened(uri) as store:
        assert not store.find("file", "d").complete
        with store.document("file", digest="d") as document:
            assert document.resumed and document.state == b"state at 9"
            assert (
                document.document.text == 9000 and store.search(1, queries(1), 99, only={document.id}).entry.max() > 0
            )
            document.write(1, tokens[9:])
            document.append(text[9000:])
        put(store, "after", 2)
        assert same(answers(store), expected)
        assert store.passage(document.id, 0, len(text))[0].encode() == text
        with pytest.raises(ValueError, match="in the store already"):
            store.document("file", digest="d")


def test_an_error_before_the_first_save_point_leaves_nothing(uri):
    with opened(uri) as store:
        put(store, "a", 0)
        before = answers(store)
        with pytest.raises(ZeroDivisionError), store.document("b") as document:
            document.write(1, tokens_of(1))
            1 / 0
        assert same(answers(store), before) and len(store.documents()) == 1
        with pytest.raises(ValueError, match="has been left"):
            document.write(1, tokens_of(1))
        put(store, "c", 2)


def test_eviction_takes_the_least_weight_first(uri):
    rate = 0.4
    with opened(uri) as store:
        for seed in range(3):
            put(store, f"{seed}", seed)
        clock = {layer: store.clock(layer) for layer in (1, 3)}
        weights = {}
        for layer in (1, 3):
            ids = store.search(layer, queries(layer), 100).entry
            entries = store.fetch(layer, ids[ids >= 0].unique())
            weight = rate * (entries.clock.double() - clock[layer])
            if SCHEMA[layer].admit:
                weight = weight + torch.nn.functional.logsigmoid(entries.score.double())
            weight = weight.masked_fill(~entries.real, -torch.inf).amax(1)
            for i, e in enumerate(ids[ids >= 0].unique().tolist()):
                size = int(entries.real[i].sum()) * (32 + 4 * SCHEMA[layer].heads * SCHEMA[layer].dim)
                weights[layer, e] = float(weight[i]), size
        total = sum(size for _, size in weights.values())
        result = store.evict(total // 2, rate)
        stay = {}
        for layer in (1, 3):
            for e in store.search(layer, queries(layer), 100).entry.unique().tolist():
                if e >= 0:
                    stay[layer, e] = weights[layer, e]
        gone = weights.keys() - stay.keys()
        assert len(gone) == result.entries and sum(weights[e][1] for e in gone) == result.bytes
        assert total // 2 >= sum(size for _, size in stay.values()) > total // 2 - 300
        assert max(weights[e][0] for e in gone) <= min(w for w, _ in stay.values()) + 1e-5
        assert {layer: store.clock(layer) for layer in (1, 3)} == clock
        before = answers(store)
    with opened(uri, write=False) as store:
        assert same(answers(store), before) and store.verify() == []


def test_bad_input_is_refused(uri):
    with opened(uri) as store:
        tokens = tokens_of(0)
        with store.document("a") as document:
            with pytest.raises(ValueError, match="unknown stored layer"):
                document.write(2, tokens)
            with pytest.raises(ValueError, match="key of tokens: expected the shape"):
                document.write(3, tokens)
            document.write(1, tokens)
            with pytest.raises(ValueError, match="expected more than"):
                document.write(1, tokens)
            with pytest.raises(ValueError, match="being written already"):
                store.document("a")
            with pytest.raises(ValueError, match="fit float16"):
                broken = tokens_of(1, begin=1000)
                broken.key[3] = 1e6
                document.write(1, broken)
        with pytest.raises(ValueError, match="expected the shape"):
            store.search(1, torch.zeros(2, 6), 3)
    from dataclasses import replace

    for changed in (
        replace(SCHEMA, model="1" * 32),
        replace(SCHEMA, dtype="float32"),
        replace(SCHEMA, layers=SCHEMA.layers[:1]),
    ):
        with pytest.raises(ValueError, match="another model or configuration"):
            opened(uri, changed)
    with pytest.raises(ValueError, match="unknown kind of store"):
        opened("rma:x")
