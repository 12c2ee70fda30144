"""What one process has written, another reads: every engine that is not this process's own memory."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from solomonic._utils import files
from solomonic.cli import main
from solomonic.memory import Absent, open_store

from .cases import ENGINES, answers, opened, put, same, uri_of

ROOT = Path(__file__).parents[2]

READ = """
import sys, torch
from tests.memory.cases import answers, opened
from solomonic.memory import open_store
out, *uris = sys.argv[1:]
read = []
for uri in uris:
    with open_store(uri) as store:
        documents = [(d.name, d.id, d.complete, d.tokens) for d in store.documents()]
        read.append([documents, store.verify(), store.passage(2, 0, 12), answers(store)])
    with opened(uri) as store:
        store.forget([1])
torch.save(read, out)
"""


DIES = """
import os, sys
from tests.memory.cases import opened, put
store = opened(sys.argv[1])
for seed in range(5):
    put(store, f"d{seed}", seed, time=float(seed))
os._exit(9)
"""

WRITES = """
import sys
from tests.memory.cases import opened
try:
    opened(sys.argv[1])
except Exception as error:
    print(error)
"""

on_disk = pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "ram"])


def elsewhere(script: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=300, cwd=ROOT)


@on_disk
def test_a_second_process_reads_and_changes_what_the_first_wrote(engine, tmp_path):
    uri, names = uri_of(engine, tmp_path / "store"), ["a", "b", "c", "d", "e"]
    with opened(uri) as store:
        for seed, name in enumerate(names):
            put(store, name, seed, time=float(seed))
        documents = [(d.name, d.id, d.complete, d.tokens) for d in store.documents()]
        written = [documents, [], ("b line 1\nb l", 1), answers(store)]
    process = elsewhere(READ, str(tmp_path / "read"), uri)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # a client that logs what is no error would be on every command's
    (read,) = torch.load(tmp_path / "read", weights_only=False)
    assert read[:-1] == written[:-1] and same(read[-1], written[-1])
    with open_store(uri) as store:
        assert [document.name for document in store.documents()] == names[1:]


@on_disk
def test_what_was_finished_outlives_a_process_that_dies(engine, tmp_path):
    uri = uri_of(engine, tmp_path / "store")
    process = elsewhere(DIES, uri)
    assert process.returncode == 9, process.stderr
    with open_store(uri) as store:
        assert [(d.name, d.complete) for d in store.documents()] == [(f"d{seed}", True) for seed in range(5)]
        assert store.verify() == []
        found = answers(store)
    with opened(uri_of("ram", tmp_path / "alone")) as alone:
        for seed in range(5):
            put(alone, f"d{seed}", seed, time=float(seed))
        assert same(answers(alone), found)


@on_disk
def test_a_second_writer_is_refused(engine, tmp_path):
    uri = uri_of(engine, tmp_path / "store")
    with opened(uri) as store:
        put(store, "a", 0)
        process = elsewhere(WRITES, uri)
        assert process.returncode == 0 and len(process.stdout.splitlines()) == 1, process.stderr
        assert "is writing to this store" in process.stdout or "another process has it open" in process.stdout
        put(store, "b", 1)
    with open_store(uri) as store:
        assert [document.name for document in store.documents()] == ["a", "b"]


def test_milvus_lite_is_of_one_process_at_a_time_and_says_so(tmp_path, capsys):
    pytest.importorskip("milvus_lite")
    fcntl = pytest.importorskip("fcntl")
    uri = uri_of("milvus", tmp_path / "store")
    with opened(uri) as one, opened(f"milvus:{tmp_path}/../{tmp_path.name}/store.db", write=False) as other:
        put(one, "a", 0)
        assert same(answers(other), answers(one))
    with (tmp_path / "store.db" / "LOCK").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # closing gave it back
        assert main(["memory", "list", "--store", uri]) == 2
    err = capsys.readouterr().err
    assert "another process has it open" in err and len(err.splitlines()) == 1
    with opened(uri, write=False) as store:
        assert [document.name for document in store.documents()] == ["a"]


@pytest.mark.parametrize("content, says", [(None, "ends in .db"), ("file", "got a file"), ("else", "something else")])
def test_a_place_that_is_not_of_milvus_lite_stays_as_it_is(tmp_path, content, says):
    pytest.importorskip("milvus_lite")
    place = tmp_path / ("store" if content is None else "store.db")
    if content == "file":
        place.write_text("dear")
    elif content == "else":
        place.mkdir()
        (place / "letter.txt").write_text("dear")
    before = sorted(tmp_path.rglob("*"))
    for write in (False, True):
        with pytest.raises(ValueError, match=says):
            opened(f"milvus:{place}", write=write)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_in_memory_is_not_written_for_nobody(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("Call me Ishmael.")
    words = ["memory", "add", tmp_path / "a.txt", "--model", tmp_path / "model", "--store", "ram:books"]
    assert main([str(word) for word in words]) == 2
    assert "ram:books: expected a folder or a Milvus store" in capsys.readouterr().err
    with pytest.raises(Absent, match="a store in memory ends with its process"):
        open_store("ram:books")


def test_a_store_is_not_written_where_files_cannot_be_locked(tmp_path, monkeypatch):
    """Two writers would not be kept apart; files that are replaced as a whole need no lock."""
    fcntl = pytest.importorskip("fcntl")

    def unknown(handle, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    files.write(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"
    with pytest.raises(OSError, match="no locks"), opened(uri_of("disk", tmp_path / "store")):
        pass
