"""What holds whatever happens to the process, to the disk and to the file."""

import os
import random
import resource
import time
import warnings
import zlib
from pathlib import Path

import pytest
import torch

from solomonic.memory.engines import disk

from .cases import answers, kept, opened, put, queries, same, tokens_of
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
    file = Path(folder) / disk.FILE
    whole = file.read_bytes()
    tokens = kept(tokens_of(1))
    for field, reads in {
        "key": lambda store: store.search(1, queries(1), 5),
        "value": lambda store: store.fetch(1, [(2 << 32) | i for i in range(20)]),
    }.items():
        at = whole.index(getattr(tokens, field)[4:5].numpy().tobytes())
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with opened(folder, write=False) as store:
            assert any("of layer 1 of document 2 is damaged" in problem for problem in store.verify())
            with pytest.raises(ValueError, match="document 2 is damaged"):
                reads(store)
    random.seed(0)
    noticed, used = 0, [i for i, byte in enumerate(whole) if byte]
    for _ in range(40):
        at = random.choice(used)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << random.randrange(8))]) + whole[at + 1 :])
        try:
            with opened(folder, write=False) as store:
                if store.verify():
                    noticed += 1
                    continue
                assert same(answers(store), sound)
        except (ValueError, OSError) as error:
            assert folder in str(error)
            noticed += 1
    assert noticed > 20  # the others fell into room that no row takes
    for broken in (whole[: len(whole) // 2], b"SQLite format 3\x00" + bytes(5000), b"what?" * 1000, whole[:4096] * 3):
        file.write_bytes(broken)
        with pytest.raises((ValueError, OSError), match="store"), opened(folder, write=False) as store:
            assert store.verify() == [] and same(answers(store), sound)
            raise AssertionError("damage was not noticed")


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
            assert not store._engine.documents()  # nothing is on the disk yet
        store.flush()
        assert store._engine.state(document.id) == b"9"
    assert len(sizes) <= 4 and sum(sizes) == 11  # what waits is written together


def test_an_error_of_the_writer_surfaces(folder, monkeypatch):
    monkeypatch.setattr(disk.DiskEngine, "_put", lambda *_: {}["a mistake"])
    store = opened(folder, on_error="continue")
    with pytest.raises(RuntimeError, match="a mistake"), store.document("a") as document:
        document.write(1, tokens_of(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.close()


def test_keys_beyond_memory_are_mapped(folder, monkeypatch):
    monkeypatch.setattr(disk, "MAPPED", 0)
    with opened(folder) as store:
        for seed in range(3):
            put(store, f"{seed}", seed)
        mapped = answers(store)
        put(store, "3", 3)
        assert not [path for path in Path(folder).iterdir() if "keys" in path.name]
        store.forget([4])
        assert same(answers(store), mapped)
    monkeypatch.undo()
    with opened(folder, write=False) as store:
        assert same(answers(store), mapped)
