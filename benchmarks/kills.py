"""Commands that write are killed at random moments and begun again: they end as if they had been left alone.

    python benchmarks/kills.py                     # a hundred kills of each
    python benchmarks/kills.py train --kills 10

Prints a table: how often each was killed, how often it then ended like the run that was left alone, and what differed.
The processes are forked from one that has imported everything, so that the kills fall into the work. A process is killed
at the n-th call of a function, Python's own among them, where n is drawn with --seed: on a busy machine as on any other.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

import solomonic.cli._commands
import solomonic.compare.run
import solomonic.memory
import solomonic.retrieval.remember
import solomonic.training.text  # noqa: F401
from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import load, save
from solomonic.cli import main as solomonic_main
from solomonic.compare import suites
from solomonic.compare.suites import Run, Suite
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.sessions import SessionFile

SIZES = {"d_model": 16, "n_layers": 2, "window": 8, "capacity": 4, "state_size": 4}
TINY = "--d-model 16 --n-layers 1 --window 4 --capacity 2 --state-size 4 --length 16 --batch-size 2 --cpu".split()


@dataclass
class Case:
    """`words` of the command in the folder `work`, which `begin` makes anew; `result` is what it has in the end."""

    name: str
    words: list[str]
    work: Path
    begin: Callable[[], None]
    result: Callable[[], Any]
    repeats: bool = False  # a second run goes on instead of ending the first
    codes: tuple[int, ...] = (0,)  # with which it may end after a kill


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="of: train, memory-add, memory-forget, generate, compare")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _made()
        cases = {case.name: case for case in (_train(), _add(), _forget(), _generate(), _compare())}
        for name in args.name or cases:
            if name not in cases:
                parser.error(f"unknown command {name!r}; known are {', '.join(cases)}")
        print(
            "| command | killed | ended afterwards | like the one left alone | files left over |\n|---|---|---|---|---|"
        )
        for name in args.name or cases:
            line, bad = killed(cases[name], args.kills, random.Random(args.seed))
            wrong += bad
            print(line, flush=True)
    return 1 if wrong else 0


def killed(case: Case, kills: int, rng: random.Random) -> tuple[str, int]:
    """A line of the table, and how often something was wrong."""
    case.begin()
    code, calls = _ended(case)
    assert code == 0, f"{case.name} fails when it is left alone"
    expected = [case.result()]
    if case.repeats:  # every number of calls is a state that it may be in
        for _ in range(kills):
            _ended(case)
            expected.append(case.result())
    done = same = ended = left = 0
    case.begin()
    with tqdm(total=kills, desc=case.name, leave=False, file=sys.stderr) as bar:
        while done < kills:
            code, _ = _ended(case, rng.randint(1, round(1.05 * calls)))
            if code == -signal.SIGKILL:
                done += 1
                bar.update()
                if not case.repeats:
                    continue
            elif code not in case.codes:
                print(f"{case.name}: exit code {code} after a kill", file=sys.stderr)
                same -= 1
            if code == -signal.SIGKILL or case.repeats:
                ended += 1
                same += case.result() in [None, *expected]
                continue
            ended += 1
            left += len(_left_over(case.work))
            same += case.result() == expected[0]
            case.begin()
    assert _ended(case)[0] in case.codes
    left += len(_left_over(case.work))
    ended, same = (ended, same) if case.repeats else (ended + 1, same + (case.result() == expected[0]))
    bad = ended - same + left
    return f"| {case.name} | {done} | {ended} | {same} | {left} |", bad


def _ended(case: Case, at: int | None = None) -> tuple[int, int]:
    """The exit code of the command, minus the signal where it is killed, and how many calls it made, 0 where killed.

    at: the call at which it is killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1), os.dup2(nothing.fileno(), 2)
        os.setpgid(0, 0)
        count = 0

        def called(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            if event in ("call", "c_call"):
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        threading.setprofile(called)
        sys.setprofile(called)
        code = solomonic_main(case.words)
        sys.setprofile(None)
        os.write(writer, str(count).encode())
        os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        calls = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(calls or 0)


def _left_over(work: Path) -> list[Path]:
    around = [p for p in work.parent.iterdir() if p.name.startswith(f".{work.name}")]
    inside = [p for p in work.rglob("*") if p.name.endswith((".partial", ".lock")) or p.name.startswith(".tmp")]
    return around + (inside if work.is_dir() else [])


def _made() -> None:
    """Text, and a model, in the current folder."""
    for i in range(4):
        Path(f"{i}.txt").write_text("".join(f"{i}: {n} times {n} is {n * n}\n" for n in range(60)))
    torch.manual_seed(0)
    save("M", LanguageModel(preset("bmojo", vocab_size=257, **SIZES)), Tokenizer.for_bytes())


def _gone(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _train() -> Case:
    out = Path("trained").resolve()
    words = ["train", "0.txt", "1.txt", *TINY, "--steps", "30", "--save-every", "1", "--eval-every", "10"]

    def result() -> Any:
        losses = json.loads((out / "training.json").read_text())["losses"]
        return losses, {name: x.tolist() for name, x in load_file(out / "model.safetensors").items()}

    return Case("train", [*words, "--out", str(out), "--resume"], out, lambda: _gone(out), result)


def _rows(store: Path) -> Any:
    """What a store holds, but for the numbers and the times of its documents."""
    with sqlite3.connect(f"file:{store / 'store.sqlite'}?mode=ro", uri=True) as sql:
        names = dict(sql.execute("SELECT id, name FROM documents"))
        tables = [name for (name,) in sql.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        result = {"documents": sorted(sql.execute("SELECT name, digest, text, clock, complete FROM documents"))}
        result["pieces"] = sorted(
            (names[document], *rest) for document, *rest in sql.execute("SELECT document, start, text FROM pieces")
        )
        for table in tables:
            if table.startswith("keys_"):
                columns = "id, tokens, position, score, clock, key"
            elif table.startswith("values_"):
                columns = "id, value, span"
            else:
                continue
            rows = sql.execute(f"SELECT {columns} FROM {table}")
            result[table] = sorted((names[at >> 32], at & 0xFFFFFFFF, *rest) for at, *rest in rows)
    return result


def _add() -> Case:
    store = Path("added").resolve()
    words = "memory add 0.txt 1.txt 2.txt --model M --device cpu --store".split()
    return Case("memory-add", [*words, str(store)], store, lambda: _gone(store), lambda: _rows(store))


def _forget() -> Case:
    full, store = Path("full").resolve(), Path("forgotten").resolve()

    def begin() -> None:
        if not full.exists():
            words = "memory add 0.txt 1.txt 2.txt 3.txt --model M --device cpu --store".split()
            with redirect_stdout(io.StringIO()):
                assert solomonic_main([*words, str(full)]) == 0
        _gone(store)
        shutil.copytree(full, store)

    def result() -> Any:
        raw = b"".join(p.read_bytes() for p in sorted(store.iterdir()))
        return _rows(store), b"1: 59 times" in raw, b"2: 59 times" in raw

    words = "memory forget --document 1.txt --document 2.txt --store".split()
    said = (0, 2)  # that there is nothing of that name, where all but the end was done before the kill
    return Case("memory-forget", [*words, str(store)], store, begin, result, codes=said)


def _generate() -> Case:
    session = Path("session").resolve()
    model, _ = load("M")

    def result() -> Any:
        if not session.exists():
            return None
        SessionFile(session, model).load()
        return {name: x.tolist() for name, x in load_file(session).items()}

    words = "generate M hello --max-tokens 40 --temperature 0 --device cpu --session".split()
    return Case("generate", [*words, str(session)], session, lambda: _gone(session), result, repeats=True)


def _compare() -> Case:
    out = Path("compared").resolve()
    lengths = {"lengths": (96,), "samples": 4, "least_samples": 4, "batch_size": 4, "lrs": (1e-2,)}
    run = Run("distractor_recall", steps=40, dials=SIZES, **lengths)
    suites.SUITES["quick"] = Suite("quick", ("mamba2", "bmojo"), {"distractor_recall": run}, 1, cost_lengths=(8,))

    def result() -> Any:
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        shown = [(x["arch"], x["curve"], x["scores"]) for x in lines]
        return sorted(map(json.dumps, shown)), sorted(p.name for p in (out / "cells").glob("*"))

    words = ["compare", "--jobs", "1", "--device", "cpu", "--out", str(out)]
    return Case("compare", words, out, lambda: _gone(out), result)


if __name__ == "__main__":
    sys.exit(main())
