"""A process that writes documents for ever is killed at random moments, and what it left is looked at.

`python -m tests.memory.kills 100` does so a hundred times; `test_durability.py` twice.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import IO

import torch
from tqdm import tqdm

from solomonic.memory import open_store

from .cases import SCHEMA, kept, tokens_of

SIZE, STEP = 210, 7
TEXT = 10  # bytes a token
EACH = 10  # kills of a store


def text_of(number: int) -> bytes:
    return b"".join(b"%04d %04d\n" % (number % 10_000, i) for i in range(SIZE))


def write_for_ever(folder: str) -> None:
    """Says what was acknowledged: `saved NUMBER TOKENS`, `complete NUMBER`, `forgetting NUMBER`, `forgot NUMBER`."""
    random.seed()
    with open_store(folder, SCHEMA, write=True) as store:
        known = [int(d.name) for d in store.documents()]
        for number in count(max(known, default=0)):
            name = str(number)
            here = store.find(name, "digest")
            if here is not None and here.complete:
                continue
            with store.document(name, digest="digest") as document:
                print("begun", number, flush=True)
                at = int(document.state or b"0")
                parts = {layer: tokens_of(number, layer, SIZE) for layer in (1, 3)}
                while at < SIZE:
                    for layer, tokens in parts.items():
                        document.write(layer, tokens[at : at + STEP])
                    document.append(text_of(number)[TEXT * at : TEXT * (at + STEP)])
                    at += STEP
                    document.save(str(at).encode())
                    if random.random() < 0.3:
                        store.flush()
                        print("saved", number, at, flush=True)
            print("complete", number, flush=True)
            if number % 4 == 3:
                print("forgetting", number - 2, flush=True)
                store.forget([d.id for d in store.documents() if d.name == str(number - 2)])
                print("forgot", number - 2, flush=True)


def check(folder: str, said: list[list[str]]) -> dict[str, int]:
    """Everything that was acknowledged is there, and all that is there is whole. Returns what there is."""
    saved, complete, forgetting, forgot = {}, set(), set(), set()
    for what, number, *at in said:
        if what == "saved":
            saved[number] = int(at[0])
        else:
            {"complete": complete, "forgetting": forgetting, "forgot": forgot, "begun": set()}[what].add(number)
    with open_store(folder, SCHEMA) as store:
        assert store.verify() == []
        documents = {d.name: d for d in store.documents()}
        assert not forgot & documents.keys()
        assert complete - forgetting <= documents.keys() and saved.keys() - forgetting <= documents.keys()
        assert all(documents[name].complete for name in complete & documents.keys())
        for name, document in documents.items():
            state = store.contents.engine.state(document.id)
            size = SIZE if document.complete else int(state)
            assert size >= saved.get(name, 0)
            assert document.text == TEXT * size
            assert store.passage(document.id, 0, 10**6)[0].encode() == text_of(int(name))[: TEXT * size]
            for layer in (1, 3):
                expected = kept(tokens_of(int(name), layer, SIZE))[:size]
                blocks = (expected.position // SCHEMA[layer].block).unique()
                ids = ((document.id << 32) | blocks).tolist()
                found = store.contents.engine.fetch(layer, ids)
                assert sorted(found) == ids and sum(len(t) for t in found.values()) == size
                key = torch.cat([found[i].key for i in ids])
                assert torch.equal(key, expected.key)
                assert torch.equal(torch.cat([found[i].value for i in ids]), expected.value)
        seen = set((store.search(1, torch.ones(1, 2, 6), 10**4).entry.unique() >> 32).tolist()) - {-1}
        assert seen == {d.id for d in documents.values() if d.complete}
        return {"complete": sum(d.complete for d in documents.values()), "incomplete": len(documents) - len(seen)}


def start(folder: str) -> tuple[int, IO[str]]:
    """The writer as a new process, and what it says."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.memory.kills", "write", folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    return process.pid, process.stdout


def fork(folder: str) -> tuple[int, IO[str]]:
    """As `start`, at once; only from a process of one thread."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writes, 1)
        sys.stdout = os.fdopen(1, "w")
        try:
            write_for_ever(folder)
        finally:
            os._exit(1)
    os.close(writes)
    return pid, os.fdopen(reads)


def kill(folder: str, after: float, said: list[list[str]], start=start) -> dict[str, int]:
    """Start the writer, kill it `after` seconds past its first document, check. Adds to what was said before."""
    pid, out = start(folder)
    first = out.readline()
    assert first, "the writer could not begin"
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with out:
        lines = (first + out.read()).splitlines(keepends=True)
    said += [line.split() for line in lines if line.endswith("\n")]
    return check(folder, said)


def main(times: int) -> None:
    torch.set_num_threads(1)
    kinds, there = Counter(), Counter()
    with tqdm(total=times) as bar:
        for begin in range(0, times, EACH):
            said: list[list[str]] = []
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(min(EACH, times - begin)):
                    left = kill(folder, random.uniform(0, 1.5), said, fork)
                    bar.update()
            kinds.update(line[0] for line in said)
            there.update(left)
    print(
        f"{times} kills: {kinds['complete']} documents and {kinds['saved']} save points acknowledged, "
        f"{kinds['forgot']} documents forgotten; none lost, none half; left: {dict(there)}"
    )


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_for_ever(sys.argv[2])
    else:
        main(int(sys.argv[1]))
