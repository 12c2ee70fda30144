"""The command line as a person meets it: a mistake is one line on stderr and exit code 2."""

import subprocess
import sys

import pytest

from solomonic.cli import main


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["compare", "--arch", "bmoj"], "unknown architecture 'bmoj': did you mean 'bmojo'?"),
        (["compare", "--task", "mqra"], "unknown task 'mqra': did you mean 'mqar'?"),
        (["compare", "--suite", "quik"], "did you mean 'quick'?"),
        (["compare", "--device", "cudo"], "unknown device 'cudo'"),
        (["compare", "--device", "cpu:1"], "expected cpu:0"),
        (["compare", "--seeds", "0"], "--seeds: expected a whole number >= 1, got 0"),
        (["compare", "--jobs", "0"], "--jobs: expected a whole number >= 1, got 0"),
        (["compare", "--task", "mqar", "--data", "x"], "--data is for the task 'text'"),
        (["compare", "--data", "no/such/path"], "no/such/path"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["compare", "--seeds", "many"], ["comapre"], ["compare", "--nonsense"], []])
def test_a_mistake_in_the_words_themselves(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.err.count("\n") == 1 and "--help" in captured.err


def test_data_without_text(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    for name in ("empty", "binary"):
        assert main(["compare", "--data", name, "--out", "out"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["compare", "--arch", "bmojo", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_list_names_everything(capsys):
    from solomonic import PRESETS
    from solomonic.compare.suites import SUITES
    from solomonic.tasks import names

    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {*PRESETS, *names(), *SUITES, "cpu"} <= set(words)


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "solomonic", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "bmojo" in done.stdout
