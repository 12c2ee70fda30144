"""What a service has that a file has not: it can be away, and it has no transactions."""

import pytest
import torch

from solomonic.memory import Damaged
from solomonic.memory.engines import milvus_service
from solomonic.memory.schema import entry_id
from solomonic.memory.search.reference import search as defined

from .cases import SCHEMA, answers, kept, opened, put, queries, same, tokens_of

pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")


@pytest.fixture
def uri(tmp_path):
    return f"milvus:{tmp_path}/store.db"


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(milvus_service, "PATIENCE", 1)
    with pytest.raises(OSError, match="milvus:http://127.0.0.1:1: the service cannot be reached"):
        opened("milvus:http://127.0.0.1:1")
    with pytest.raises(ValueError, match="expected an address or a file"):
        opened("milvus:")
    with pytest.raises(OSError, match="there is no store"):
        opened("milvus:nowhere.db", write=False)


def test_a_service_that_goes_away(uri, monkeypatch):
    with opened(uri) as store:
        put(store, "a", 0)
    gone = {"on": False}
    of = milvus_service.Service.errors

    def errors(service, kind):
        if gone["on"]:
            from pymilvus.exceptions import MilvusException

            def fail(*_, **__):
                raise MilvusException(message="connection refused")

            for name in ("search", "query", "get", "upsert", "delete"):
                monkeypatch.setattr(service.client, name, fail)
        return of(service, kind)

    monkeypatch.setattr(milvus_service.Service, "errors", errors)
    with opened(uri) as store:
        assert (store.search(1, queries(1), 3).entry >= 0).all()
        gone["on"] = True
        with pytest.raises(OSError, match="connection refused"):
            store.search(1, queries(1), 3)
    gone["on"] = False
    with opened(uri, on_error="continue") as store:
        entry = store.search(1, queries(1), 3).entry.unique()
        document = store.document("b")
        gone["on"] = True
        with pytest.warns(RuntimeWarning, match="nothing is found") as warned:
            for _ in range(3):
                assert (store.search(1, queries(1), 3).entry == -1).all()
                assert not store.fetch(1, entry).real.any()
        assert len(warned) == 1
        with pytest.warns(RuntimeWarning, match="nothing more is written"), document:
            document.write(1, tokens_of(1))
        with pytest.raises(OSError, match="connection refused"):
            store.flush()
    gone["on"] = False
    with opened(uri, write=False) as store:
        assert [d.name for d in store.documents()] == ["a"] and store.verify() == []


@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_writer_that_is_cut_off_between_two_requests(uri, monkeypatch, at):
    """After each of the first requests of a save point, of a document's first one and of a later one."""
    tokens = tokens_of(1)
    with opened(uri) as store:
        put(store, "a", 0)
        before = answers(store)
    send, sent = milvus_service.Service.send, []

    def cut(service, collection, rows):
        if len(sent) >= at:
            raise KeyboardInterrupt
        sent.append(collection)
        send(service, collection, rows)

    for first in (True, False):
        store = opened(uri)
        with store.document("b", digest="d") as document:
            if not first:
                document.write(1, tokens[:9])
                document.save(b"9")
                store.flush()
            sent.clear()
            with monkeypatch.context() as patch:
                patch.setattr(milvus_service.Service, "send", cut)
                batch = _batch(document, tokens)
                with pytest.raises(KeyboardInterrupt):
                    store.contents.engine.commit([batch])
            document.abandon()
        store.close()
        with opened(uri) as store:
            assert same(answers(store), before) and store.verify() == []
            assert len(store.documents()) == (1 if first else 2)
    with opened(uri) as store, store.document("b", digest="d") as document:
        assert document.state == b"9"
        document.write(1, tokens[9:])
    with opened(uri, write=False) as store:
        b = store.documents()[1]
        assert store.verify() == [] and b.complete and b.tokens == len(tokens)
        _, position, logit = defined(queries(1), [kept(tokens)], len(tokens), SCHEMA[1])
        found = store.search(1, queries(1), len(tokens), only={b.id})
        assert torch.equal(found.position, position) and torch.equal(found.logit, logit)


def _batch(document, tokens):
    """The save point that writing `tokens` would bring."""
    from dataclasses import replace

    from solomonic.memory.schema import SavePoint, entry_id

    parts = tokens.checked(SCHEMA[1], "float16").blocks(4)
    entries = tuple((1, entry_id(document.id, block), part) for block, part in parts)
    return SavePoint(replace(document.document, tokens=len(tokens)), entries, (), b"more")


def test_a_damaged_row_closes_nothing(uri):
    with opened(uri) as store:
        for seed, name in enumerate("abc"):
            put(store, name, seed)
        sound = [store.search(1, queries(1), 9, only={number}).logit for number in (1, 3)]
        client, name = store.contents.engine.service.client, "solomonic"
        (blob, *_) = client.query(
            f"{name}_blobs", "document == 3 and layer == 1", output_fields=["*"], consistency_level="Strong"
        )
        (row,) = client.get(f"{name}_documents", ids=[2])
        client.upsert(f"{name}_blobs", [{**blob, "data": blob["data"][:60] + "////" + blob["data"][64:]}])
        client.upsert(f"{name}_documents", [{**row, "body": row["body"][:-1]}])
    with (
        pytest.warns(Damaged, match="document 2 is damaged") as warned,
        pytest.warns(Damaged, match="layer 1 of document 3"),
        opened(uri, write=False) as store,
    ):
        assert [document.name for document in store.documents()] == ["a", "c"] and store.damaged().keys() == {2}
        assert torch.equal(store.search(1, queries(1), 9, only={1}).logit, sound[0])
        assert torch.equal(store.search(1, queries(1), 9, only={3}).logit, sound[1])  # the service's own keys are sound
        entries = store.fetch(1, [entry_id(3, block) for block in range(20)])
        assert 0 < int(entries.real.sum()) < 23
        assert any("of layer 1 of document 3 is damaged" in line for line in store.verify())
    assert all(one.category is Damaged for one in warned)
    with pytest.warns(Damaged), opened(uri) as store:
        gone = store.forget([2, 3])
        assert {document.id for document in gone.asked} == {2, 3} and not gone.unknown
    with opened(uri, write=False) as store:
        assert store.verify() == [] and [document.name for document in store.documents()] == ["a"]
