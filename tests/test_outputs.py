"""What a command writes never replaces what it reads, a link, a device, or files that are the user's."""

import os
import re
import stat
import subprocess
import sys
import threading

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic._utils.files import locked, replacing, sweep, write
from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.cli._commands import parser
from solomonic.data.tokenizer import Tokenizer

TEXT = "it was the best of times, it was the worst of times\n" * 60


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A working folder with a model, text, a table, bits and prompts."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save("M", LanguageModel(preset("bmojo", vocab_size=257, d_model=16, n_layers=1, window=4)), Tokenizer.for_bytes())
    (tmp_path / "d.txt").write_text(TEXT)
    (tmp_path / "x.csv").write_text("value\n" + "".join(f"{i % 7}\n" for i in range(300)))
    (tmp_path / "bits").write_text("01" * 20)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(TEXT)
    (tmp_path / "docs" / "README.md").write_text("mine")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "text").write_text(TEXT)
    (tmp_path / "docs" / "linked.txt").symlink_to("../far/text")
    (tmp_path / "far" / "M").mkdir()
    for file in (tmp_path / "M").iterdir():
        (tmp_path / "far" / "M" / file.name).symlink_to(file)
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        "eval M --data d.txt --json d.txt",
        "eval M --data d.txt --json M/config.json",
        "eval M --data d.txt --json M/model.safetensors",
        "eval M --data d.txt --json ./M/../d.txt",
        "eval M --data docs --json docs/found.json",
        "eval M --data d.txt --json M",
        "eval M --data docs --json far/text",
        "eval far/M --data d.txt --json M/config.json",
        "eval M --data d.txt --json docs/",
        "eval M --data d.txt --json d.txt/x",
        "solomonoff bits --json docs --length 2",
        "solomonoff bits --json bits/x/y --length 2",
        "anomalies x.csv --out x.csv",
        "anomalies x.csv --out y --plot y",
        "anomalies x.csv --out docs",
        "solomonoff bits --json bits --length 2",
        "generate M --batch p.jsonl --out p.jsonl",
        "generate M --file d.txt --session d.txt",
        "generate M hello --session M/config.json",
        "generate M hello --session docs",
        "identify x.csv --out docs --no-picture",
        "identify x.csv --out x.csv --no-picture",
        "probe M --data d.txt --out docs",
        "probe M --data docs --out docs/page",
        "train d.txt --out docs",
        "train docs --out docs",
        "train docs --out docs/run2",
        "train docs/a.txt --out docs",
        "train d.txt --out M",
        "train d.txt --out M --resume",
        "train d.txt --out .",
        "compare --task text --data docs --out docs",
        "compare --task text --data docs --out docs/results",
        "compare --arch mamba2 --task text --data d.txt --out docs",
        "memory add d.txt --model M --store docs",
        "memory add docs --model M --store docs/store",
        "memory add docs --model M --store bits/store",
        "memory repair --store far --out far/new",
        "transduce M --train p.jsonl --test p.jsonl --store far --json far/lock",
        "texture x.csv --out x.csv",
        "transduce M --train p.jsonl --test d.txt --json p.jsonl",
    ],
)
def test_nothing_is_replaced_that_is_not_the_commands_own(there, words, capsys):
    before = contents(there)
    assert main(words.split()) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("solomonic: "), said
    assert contents(there) == before


@pytest.mark.parametrize("command, option", [("eval M --data d.txt", "--json"), ("train d.txt", "--out")])
def test_no_path_is_no_output(there, command, option, capsys):
    before = contents(there)
    assert main([*command.split(), option, ""]) == 2
    assert option in capsys.readouterr().err and contents(there) == before


def test_every_option_that_is_a_path_says_what_it_is_for():
    """So that the guard knows of it."""
    commands = next(action for action in parser()._actions if hasattr(action, "choices") and action.choices).choices
    for name, command in commands.items():
        file = command._defaults["file_of_command"]
        known = {x for kind in ("READS", "MODELS", "WRITES", "MAKES") for x in getattr(file, kind, ())}
        subs = [a.choices.values() for a in command._actions if isinstance(getattr(a, "choices", None), dict)]
        for one in (command, *(sub for some in subs for sub in some)):
            for action in one._actions:
                if action.metavar in ("FILE", "DIR", "PATH", "PNG", "CLIP") or "Path" in str(action.type):
                    assert action.dest in known or name == "serve", f"{name} {action.dest}"


def test_a_file_of_its_own_in_the_folder_of_a_model(there):
    for _ in range(2):
        assert main(["eval", "M", "--data", "d.txt", "--lengths", "16", "--json", "M/found.json"]) == 0
    assert (there / "M" / "found.json").stat().st_size


def test_links_are_followed(there):
    (there / "real.json").write_text("old")
    (there / "link.json").symlink_to("real.json")
    (there / "dangling").symlink_to("made.json")
    (there / "loop").symlink_to("loop")
    for name in ("link.json", "dangling"):
        assert main(f"solomonoff bits --length 2 --json {name}".split()) == 0
        assert (there / name).is_symlink() and (there / name).read_text().startswith("{")
    assert (there / "real.json").read_text().startswith("{") and not (there / "real.json").is_symlink()
    assert main(["solomonoff", "bits", "--length", "2", "--json", "loop"]) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_given_the_content_and_stays_a_pipe(there):
    os.mkfifo("pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((there / "pipe").read_text()))
    reader.start()
    assert main(["anomalies", "x.csv", "--out", "pipe"]) == 0
    reader.join(600)
    assert read[0].count("\n") == 301 and stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_device_stays_a_device(there):
    (there / "null").symlink_to(os.devnull)
    assert main(["anomalies", "x.csv", "--out", "null"]) == 0
    assert main(f"generate M --batch p.jsonl --out {os.devnull} --max-tokens 2".split()) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and (there / "null").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/fd/1"), reason="no paths of open files here")
def test_the_output_itself_is_given_the_content_after_what_was_printed(there):
    """A file, whatever mode it was opened with, as well as a pipe, under any of its names."""
    program = "from solomonic._utils.files import check_place, write; print('first'); p = {!r}; check_place(p); write(p, 'next\\n')"
    for path in ("/dev/stdout", "/dev/fd/1", "out"):
        words = [sys.executable, "-c", program.format(path) + "; print('last')"]
        for mode in ("w", "a"):
            with open("out", mode) as out:
                out.truncate(0)
                subprocess.run(words, stdout=out, check=True)
            assert (there / "out").read_text() == "first\nnext\nlast\n"
    words[2] = program.format("/dev/stdout")
    assert subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout == b"first\nnext\n"


def test_writers_of_one_file_never_tear_it(there):
    """Four processes write a file again and again; whoever reads it finds one of theirs, whole."""
    program = (
        "import sys; from solomonic._utils.files import write\nfor _ in range(60): write('file', sys.argv[1] * 50_000)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, mark]) for mark in "abcd"]
    seen, running = set(), True
    while running:
        running = any(p.poll() is None for p in processes)
        if (there / "file").exists():
            text = (there / "file").read_text()
            assert len(text) == 50_000 and len(set(text)) == 1
            seen.add(text[0])
    assert all(p.wait() == 0 for p in processes) and seen
    assert not [p for p in there.iterdir() if p.name.endswith(".partial")]


def test_a_file_that_a_sweep_has_locked_before_its_writer_is_not_written_to(there, monkeypatch):
    """A sweep that comes between making and locking a file takes it away; its writer begins another."""
    from solomonic._utils import locks

    swept, lock = [], locks.try_lock

    def late(handle):
        if swept:
            return lock(handle)
        swept.extend(there.glob(".*.partial"))
        return False

    monkeypatch.setattr(locks, "try_lock", late)
    with replacing("file") as partial:
        assert partial.resolve() != swept[0].resolve()
        swept[0].unlink()
        partial.write_text("new")
    assert (there / "file").read_text() == "new"


def test_what_another_process_is_writing_is_not_swept_away(there):
    program = (
        "import sys; from solomonic._utils.files import replacing\n"
        "with replacing('file') as partial:\n"
        "    partial.write_text('new'); print('on', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], **pipes)
    assert process.stdout.readline() == "on\n"
    sweep(there), write("file", "mine")
    assert process.communicate("")[0] == "" and process.returncode == 0
    assert (there / "file").read_text() == "new"


def test_one_process_at_a_time(there):
    program = (
        "import sys; from solomonic._utils.files import locked\n"
        "with locked(sys.argv[1], 'at work', folder=sys.argv[2] == 'folder'): print('on', flush=True); sys.stdin.read()"
    )
    for name, folder in (("new/folder", True), ("file", False)):
        words = [sys.executable, "-c", program, name, "folder" if folder else "file"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "on\n"
        with pytest.raises(ValueError, match=f"process {process.pid} is at work"), locked(name, "at work", folder):
            pass
        process.kill()  # the lock ends with it
        process.communicate()
        with locked(name, "here", folder):
            pass
        assert not [p for p in (there / "new").rglob("*") if p.is_file()]
    assert not [p for p in there.iterdir() if p.name.endswith(".lock")]


@pytest.mark.parametrize(
    "words, path, folder",
    [
        ("generate M hello --session s --max-tokens 2", "s", False),
        ("chat M --session s", "s", False),
        ("generate M --batch p.jsonl --out answers", "answers", False),
        ("transduce M --train t.jsonl --test t.jsonl --ways none --json found", "found", False),
        ("train d.txt --out run --steps 1", "run", True),
        ("train d.txt --out run --steps 1 --resume", "run", True),
        ("compare --arch mamba2 --task distractor_recall --out compared", "compared", True),
        ("identify x.csv --order 1 --out found --no-picture", "found", True),
        ("probe M --data d.txt --tokens 2048 --generate 1 --out page", "page", True),
    ],
)
def test_two_processes_are_one_after_the_other(there, words, path, folder, capsys):
    """The second is told who is at it, and changes nothing."""
    (there / "t.jsonl").write_text("".join(f'{{"text": "{i}", "label": "{i % 2}"}}\n' for i in range(4)))
    program = (
        "import sys; from solomonic._utils.files import locked\n"
        "with locked(sys.argv[1], 'at it', folder=sys.argv[2] == 'True'): print('on', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", program, path, str(folder)], **pipes)
    assert first.stdout.readline() == "on\n"
    before = contents(there)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert f"process {first.pid} is " in said.splitlines()[-1] and contents(there) == before
    first.communicate("")


def test_an_error_while_another_file_is_in_the_partials_place(there):
    with pytest.raises(RuntimeError, match="lock"), replacing("file") as partial:
        partial.unlink()
        partial.write_text("another")
    assert not (there / "file").exists()


@pytest.mark.parametrize(
    "words",
    [
        "anomalies x.csv --out numbers",
        "solomonoff bits --json numbers --length 2",
        "eval M --data d.txt --json numbers --lengths 64",
        "identify x.csv --out system --order 1 --no-picture --json numbers",
    ],
)
def test_files_are_written_though_nobody_reads_what_is_printed(words, there, monkeypatch):
    """As with `| head`: whoever reads has closed the pipe before the first line."""

    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", closed)
    assert main(words.split()) == 141
    assert (there / "numbers").stat().st_size > 100
    assert not words.startswith("identify") or (there / "system" / "model.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "eval M --data d.txt --lengths 16 --samples 1 --json found",
        "solomonoff bits --length 2 --twice",
        "anomalies x.csv",
        "generate M hello --max-tokens 0 --stats",
        "memory add d.txt --model M --store st",
        "memory repair --store st0 --out new",
        "memory verify --store st0",
        "train d.txt --out run --steps 1 --batch-size 1 --length 8 --d-model 16 --n-layers 1 --window 4",
        "transduce M --train t.jsonl --test t.jsonl --ways none --limit 1",
        "bench --work decode --scope layer --lengths 8 --d-model 16 --seconds 0.01 --only bmojo --threads 1",
    ],
)
def test_what_is_said_fits_the_terminal(there, words, capsys, monkeypatch):
    """And one of a thing is not several."""
    (there / "t.jsonl").write_text("".join(f'{{"text": "{i}", "label": "{i % 2}"}}\n' for i in range(4)))
    if "st0" in words:
        assert main(["memory", "add", "docs/a.txt", "--model", "M", "--store", "st0"]) == 0
        capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "50")
    assert main(words.split()) == 0
    said, _ = capsys.readouterr()
    assert all(len(line) <= 50 or " " not in line.strip() for line in said.splitlines()), said
    assert not re.search(r"(?<!\S)1 (?!documents|does|has|is|was)[a-z]+s\b", said), said
    if words.startswith("train"):
        assert " bytes of 1 document to train on" in (there / "run" / "README.md").read_text()
