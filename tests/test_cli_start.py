"""The command line as a process: SIGINT while it starts, streams that are closed, an output that lacks characters."""

import signal
import subprocess
import sys
import time
from itertools import islice

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.sessions import SessionFile

COMMAND = [sys.executable, "-m", "solomonic"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("start") / "m"
    model = LanguageModel(preset("bmojo", vocab_size=257, d_model=16, window=5, capacity=4, state_size=4))
    with torch.no_grad():
        model.head.weight[256] = 0
    save(path, model, Tokenizer.for_bytes())
    return path


def shell(words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(f"{' '.join(COMMAND)} {words}", shell=True, capture_output=True, timeout=600, **options)


@pytest.mark.parametrize("imports", [1, 3, 100, 400, 1200])
def test_an_interrupt_while_it_starts(imports):
    """After so many imports from where Python has found the command line: before that it is Python that is interrupted."""
    words = [sys.executable, "-X", "importtime", *COMMAND[1:], "list"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.split("|")[-1].strip() == "solomonic.cli":
            break
    for _ in islice(process.stderr, imports):
        pass
    process.send_signal(signal.SIGINT)
    said = "".join(line for line in process.stderr if not line.startswith("import time:"))
    assert (process.wait(600), said) in ((130, "solomonic: interrupted\n"), (0, ""), (-signal.SIGINT, ""))


@pytest.fixture
def interruptible():
    """A shell that runs tests in the background lets them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_in_an_import_of_the_work_comes_again_after_it(tmp_path, monkeypatch, capsys, interruptible):
    """Inside it would be raised in a callback, printed and lost, or taken for a missing module."""
    (tmp_path / "slow_module.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def run(args, words):
        import slow_module

        seen.append(slow_module.whole)
        time.sleep(30)

    monkeypatch.setattr("solomonic.cli.list.run", run)
    assert main(["list"]) == 130
    assert seen == [True] and capsys.readouterr().err == "solomonic: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    "error, code",
    [
        (MemoryError(), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 2),
        (RecursionError("maximum recursion depth"), 2),
        (ValueError("two\nlines\x1b[2J " + "x" * 10_000), 2),
        (ValueError(), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_is_the_users_is_one_line(error, code, monkeypatch, capsys):
    def run(args, words):
        raise error

    monkeypatch.setattr("solomonic.cli.list.run", run)
    assert main(["list"]) == code
    said = capsys.readouterr().err
    assert said.startswith("solomonic: ") and said.count("\n") == 1 and len(said) < 2100 and "\x1b" not in said


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("x"), RuntimeError("x"), ZeroDivisionError(), SystemError()]
)
def test_what_is_ours_shows_where(error, monkeypatch):
    def run(args, words):
        raise error

    monkeypatch.setattr("solomonic.cli.list.run", run)
    with pytest.raises(type(error)):
        main(["list"])


def test_streams_that_are_closed(folder, tmp_path):
    session = tmp_path / "s"
    done = shell(f"generate {folder} --max-tokens 2 0<&-")
    assert (
        done.returncode == 2
        and done.stderr.startswith(b"solomonic: expected a prompt")
        and done.stderr.count(b"\n") == 1
    )
    done = shell(f"generate {folder} a --max-tokens 2 --session {session} 0<&- 1>&- 2>&-")
    assert done.returncode == 0 and session.stat().st_size > 1000
    done = shell(f"chat {folder} 0<&-")
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell("list > /dev/full")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"No space" in done.stderr


def test_an_output_that_lacks_characters(folder, tmp_path, monkeypatch):
    """Random bytes: nothing that an ASCII terminal could print."""
    import os

    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = shell(f"generate {folder} a --seed 1 --max-tokens 20 --session {tmp_path / 's'}", env=environment)
    assert done.returncode == 0 and done.stderr == b"" and b"\\u" in done.stdout
    from solomonic.checkpoints.folder import load

    assert SessionFile(tmp_path / "s", load(folder)[0]).load().length == 21
    (tmp_path / "p.jsonl").write_text('{"prompt": "\\u00e9\\ud800"}\n')
    done = shell(f"generate {folder} --batch {tmp_path / 'p.jsonl'} --max-tokens 3", env=environment)
    import json

    assert done.returncode == 0 and json.loads(done.stdout)["prompt"] == "\u00e9\ud800"


def test_names_that_are_no_text(folder, tmp_path):
    name = os_name(tmp_path, b"caf\xe9")
    name.mkdir()
    for path in folder.iterdir():
        (name / path.name).write_bytes(path.read_bytes())
    text = os_name(name, b"b\xfcch.txt")
    text.write_text("words and more words. " * 40)
    session, numbers = os_name(name, b"s\xef"), os_name(tmp_path, b"e\xe9.json")
    for _ in range(2):
        assert main(["generate", str(name), "--file", str(text), "--max-tokens", "2", "--session", str(session)]) == 0
    words = ["eval", str(name), "--data", str(text), "--lengths", "32", "--samples", "2", "--json", str(numbers)]
    assert main(words) == 0 and "caf" in numbers.read_text()


def os_name(folder, name: bytes):
    import os
    from pathlib import Path

    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
