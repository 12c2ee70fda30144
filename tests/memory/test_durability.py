"""What holds whatever happens to the process, to the disk and to the file."""

import json
import os
import random
import resource
import shutil
import sqlite3
import tempfile
import time
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from solomonic.memory import Damaged
from solomonic.memory.engines import mapped
from solomonic.memory.engines import sqlite as disk
from solomonic.memory.engines.tables import DOCUMENT, FILE, SCHEMA_FILE, seal
from solomonic.memory.search.reference import search as defined

from .cases import SCHEMA, answers, kept, opened, put, queries, same, tokens_of
from .kills import kill


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "store")


def contents(folder: str) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(Path(folder).iterdir()))


def test_a_killed_writer_loses_nothing_that_it_acknowledged(folder):
    said = []
    for after in (random.uniform(0, 0.3), random.uniform(0.3, 0.6)):
        there = kill(folder, after, said)
        assert there["complete"] + there["incomplete"] > 0


def test_one_writes_while_others_read(folder):
    with opened(folder) as store:
        put(store, "a", 0)
        with opened(folder, write=False) as reader:
            first = answers(reader)
            with pytest.raises(ValueError, match=f"process {os.getpid()} is writing"):
                opened(folder)
            with pytest.raises(ValueError, match="opened to read"):
                reader.document("b")
            with store.document("b") as document:
                document.write(1, tokens_of(1))
                document.save()
                store.flush()
                assert same(answers(store)[:2], answers(store)[:2]) and same(answers(reader)[2:5], first[2:5])
                assert [d.complete for d in reader.documents()] == [True, False]
            b = answers(store)
            assert same(answers(reader), b) and not same(b, first)
            store.forget([document.id])
            assert same(answers(reader), first)
    with opened(folder) as store:
        assert same(answers(store), first)


def test_what_was_forgotten_is_in_no_file(folder):
    with opened(folder) as store:
        put(store, "a", 0)
        put(store, "the secret's name", 1, session="the secret's session", digest="the secret's digest")
        put(store, "c", 2)
        tokens = kept(tokens_of(1))
        text = b"".join(b"the secret's name line %d\n" % (i + 1) for i in range(40))
        traces = [
            tokens.key[:2].numpy().tobytes(),
            tokens.value[:2].numpy().tobytes(),
            b"the secret's",
            zlib.compress(text, 6)[2:-4],
        ]
        assert all(trace in contents(folder) for trace in traces)
        with opened(folder, write=False) as reader:
            answers(reader)
            store.forget(session="the secret's session")
            assert not any(trace in contents(folder) for trace in traces)
    assert not any(trace in contents(folder) for trace in traces)


def test_damage_is_named_and_never_read(folder):
    with opened(folder) as store:
        for seed in range(3):
            put(store, f"{seed}", seed)
        sound = answers(store)
    file = Path(folder) / FILE
    whole = file.read_bytes()
    tokens = kept(tokens_of(1))
    entries = [(2 << 32) | i for i in range(20)]
    block = int(tokens.position[4]) // 4
    spoilt = tokens.position // 4 == block
    for field in ("key", "value"):
        at = whole.index(getattr(tokens, field)[4:5].numpy().tobytes())
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with opened(folder, write=False) as store:
            assert any("of layer 1 of document 2 is damaged" in problem for problem in store.verify())
        with opened(folder, write=False) as store, pytest.warns(Damaged, match="document 2 .*of layer 1") as warned:
            found = store.fetch(1, entries)
            assert not found.real[block].any()
            assert torch.equal(found.position[found.real], tokens.position[~spoilt])
            assert torch.equal(found.value[found.real], tokens.value[~spoilt].float())
            store.search(1, queries(1), 99)
            _, position, logit = defined(queries(1), [tokens[:0].join(_rows(tokens, ~spoilt))], 23, SCHEMA[1])
            again = store.search(1, queries(1), 23, only={2})
            store.read(1, again.token_id.flatten().tolist())
            again = store.search(1, queries(1), 23, only={2})
            assert torch.equal(again.position, position) and torch.equal(again.logit, logit)
        assert len(warned) == 1
    for broken in (b"SQLite format 3\x00" + bytes(5000), b"what?" * 1000, b"", whole[:4096] * 3):
        file.write_bytes(broken)
        with pytest.raises((ValueError, OSError), match="store"), opened(folder, write=False) as store:
            assert store.verify() == [] and same(answers(store), sound)
            raise AssertionError("damage was not noticed")


def _rows(tokens, which):
    return type(tokens)(
        *(getattr(tokens, name)[which] for name in ("position", "key", "value", "score", "clock", "span"))
    )


@pytest.fixture
def full_disk():
    """A call after which no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_ends_the_writing_alone(folder, full_disk):
    with opened(folder, on_error="continue") as store:
        put(store, "before", 0)
        before = store.search(1, queries(1), 9, only={1})
        full_disk(sum(path.stat().st_size for path in Path(folder).iterdir()))
        with pytest.warns(RuntimeWarning, match="nothing more is written") as warned:
            for seed in range(1, 40):
                put(store, f"{seed}", seed)
        assert len(warned) == 1 and store.stats()["failed"]
        with pytest.raises(OSError, match="store"):
            store.flush()
        after = store.search(1, queries(1), 9, only={1})
        assert torch.equal(after.position, before.position) and torch.equal(after.logit, before.logit)
        assert (store.search(1, queries(1), 99).entry >> 32 > 1).any()
        full_disk(resource.RLIM_INFINITY)
    with opened(folder, write=False) as store:
        assert store.verify() == [] and "before" in [d.name for d in store.documents()]
    with opened(folder) as store:
        put(store, "after", 50)
        full_disk(sum(path.stat().st_size for path in Path(folder).iterdir()))
        with pytest.raises(OSError, match="store"):
            for seed in range(51, 90):
                put(store, f"{seed}", seed)


def test_writing_does_not_wait_for_the_disk(folder, monkeypatch):
    commit = disk.DiskEngine.commit
    begun, sizes = time.perf_counter(), []

    def slow(engine, batches):
        sizes.append(len(batches))
        while time.perf_counter() < begun + 0.5:
            time.sleep(0.01)
        commit(engine, batches)

    monkeypatch.setattr(disk.DiskEngine, "commit", slow)
    tokens = tokens_of(0)
    with opened(folder) as store, store.document("a") as document:
        for i in range(10):
            document.write(1, tokens[i : i + 1])
            document.save(b"%d" % i)
            store.search(1, queries(1), 1)
            assert not store.contents.engine.documents()  # nothing is on the disk yet
        store.flush()
        assert store.contents.engine.state(document.id) == b"9"
    assert len(sizes) <= 4 and sum(sizes) == 11  # what waits is written together


def test_an_error_of_the_writer_surfaces(folder, monkeypatch):
    monkeypatch.setattr(disk.records, "put_save_point", lambda *_: {}["a mistake"])
    store = opened(folder, on_error="continue")
    with pytest.raises(RuntimeError, match="a mistake"), store.document("a") as document:
        document.write(1, tokens_of(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.close()


def test_keys_beyond_memory_are_mapped(folder, monkeypatch):
    monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 0)
    with opened(folder) as store:
        for seed in range(3):
            put(store, f"{seed}", seed)
        expected = answers(store)
        put(store, "3", 3)
        assert not [path for path in Path(folder).iterdir() if "keys" in path.name]
        store.forget([4])
        assert same(answers(store), expected)
    monkeypatch.undo()
    with opened(folder, write=False) as store:
        assert same(answers(store), expected)


def cut_off(*_):
    """In place of what a process that is killed does not come to."""


def test_a_removal_that_was_cut_off_is_finished(folder, monkeypatch):
    with opened(folder) as store:
        put(store, "a", 0)
        put(store, "b", 1)
        with monkeypatch.context() as patch:
            patch.setattr(disk.DiskEngine, "compact", cut_off)
            store.forget([1])
        assert store.contents.engine.database.about("unfinished") is not None
    (Path(folder) / f"{FILE}.keys.abc").write_bytes(b"left")
    with opened(folder) as store:
        assert store.contents.engine.database.about("unfinished") is None and store.verify() == []
        assert kept(tokens_of(0)).key[:2].numpy().tobytes() not in contents(folder)
        assert not list(Path(folder).glob("*.keys.*"))


def test_what_a_removal_cannot_have_is_said(folder, monkeypatch):
    def full(_):
        raise OSError("disk is full")

    with opened(folder) as store:
        put(store, "a", 0)
        b = put(store, "b", 1)
        expected = store.search(1, queries(1), 9, only={b})
        with monkeypatch.context() as patch:
            patch.setattr(disk.DiskEngine, "compact", full)
            gone = store.forget([1])
        assert "disk is full" in gone.unfinished and "remains of it may be" in gone.unfinished
        assert torch.equal(store.search(1, queries(1), 9).logit, expected.logit)
        assert [d.name for d in store.documents()] == ["b"]
        assert kept(tokens_of(0)).key[:2].numpy().tobytes() not in contents(folder)
        store.compact()
        assert store.contents.engine.database.about("unfinished") is None


def test_a_store_that_may_only_be_read(monkeypatch):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "store"
        with opened(str(folder)) as store:
            put(store, "a", 0)
            put(store, "b", 1)
            sound = answers(store)
            copy = Path(place) / "copy"  # as a process that was killed leaves it: with a log
            shutil.copytree(folder, copy)
        assert (copy / f"{FILE}-wal").stat().st_size
        (copy / f"{FILE}-shm").unlink(missing_ok=True)
        monkeypatch.setattr(mapped, "MOST_IN_MEMORY", 0)
        for one in (folder, copy):
            with nobody(Path(place)), opened(str(one), write=False) as store:
                assert same(answers(store), sound)
                assert store.verify() == []
            with nobody(Path(place)), pytest.raises(OSError, match="ermission"):
                opened(str(one))


@contextmanager
def nobody(place: Path):
    """Without the right to write anything below `place`."""
    paths = [place, *place.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_an_older_store_opens(folder):
    """One without what newer ones say: the tokens of each document, the number of documents, the copy of the schema."""
    with opened(folder) as store:
        put(store, "a", 0)
        put(store, "b", 1)
        sound, documents = answers(store), store.documents()
    (Path(folder) / SCHEMA_FILE).unlink()
    sql = sqlite3.connect(Path(folder) / FILE, isolation_level=None)
    sql.execute("DELETE FROM about WHERE name = 'documents'")
    for row in sql.execute(f"SELECT {DOCUMENT} FROM documents").fetchall():
        row = (*row[:7], json.dumps([one[:2] for one in json.loads(row[7])]), *row[8:10])
        sql.execute("UPDATE documents SET clock = ?, seal = ? WHERE id = ?", (row[7], seal(row), row[0]))
    sql.close()
    with opened(folder) as store:
        assert store.documents() == documents and same(answers(store), sound) and store.verify() == []
        put(store, "c", 2)
        store.forget([3])
        assert same(answers(store), sound) and store.verify() == []
    assert (Path(folder) / SCHEMA_FILE).exists()


def test_an_interrupted_document_that_is_damaged_is_begun_anew(folder):
    tokens = tokens_of(0)
    with opened(folder) as store, pytest.raises(KeyboardInterrupt), store.document("a", digest="d") as document:
        document.write(1, tokens[:9])
        document.save(b"9")
        raise KeyboardInterrupt
    sql = sqlite3.connect(Path(folder) / FILE, isolation_level=None)
    sql.execute("DELETE FROM values_1 WHERE id = (SELECT max(id) FROM values_1)")
    sql.close()
    with opened(folder) as store, pytest.warns(Damaged, match="begun anew"):
        with store.document("a", digest="d") as document:
            assert not document.resumed and document.state == b""
            document.write(1, tokens)
        assert store.verify() == [] or all("begun anew" in line for line in store.verify())
        assert [d.tokens for d in store.documents()] == [len(tokens)]
