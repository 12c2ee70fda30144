"""Benchmarks that take paths: one that is not there is one line and exit code 2, before anything is read or written."""

import re
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NOT_THERE = "no/such/path: expected a (file|folder|file or folder); it is not there"


@pytest.fixture
def ended(tmp_path, capsys, monkeypatch):
    """What a benchmark says on stderr as it ends with exit code 2; it makes nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()

    def run(words):
        name, *words = words.split()
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / f"{name}.py"), *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(sys.argv[0], run_name="__main__")
        out, err = capsys.readouterr()
        assert end.value.code == 2 and not out and err.count("\n") == 1
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]
        return err

    return run


@pytest.mark.parametrize(
    "words",
    [
        "anomalies no/such/path",
        "books file no/such/path",
        "decay series --data no/such/path",
        "decay text --data file --model no/such/path",
        "long_recall --data no/such/path",
        "novels file no/such/path",
        "switching file no/such/path",
        "sysid no/such/path",
        "transduction data --books no/such/path",
        "transduction model --books empty --out new --shakespeare no/such/path",
    ],
)
def test_a_path_that_is_not_there(ended, words):
    assert re.fullmatch(rf"{words.split()[0]}\.py: {NOT_THERE}\n", ended(words))


@pytest.mark.parametrize(
    "words, says",
    [
        ("anomalies file", "file: expected a folder; it is none"),
        ("anomalies empty", "empty: expected the labelled windows as nab_windows.json or labels/combined_windows.json"),
        ("anomalies empty --json file/x", "file/x: expected a path in a folder, .*file is a file"),
        ("decay series --data empty", "empty: expected a folder with nab_windows.json; it has no nab_windows.json"),
        ("decay text --data empty --model empty", "empty: expected a file; it is no file"),
        ("decay text --data file --model empty", "empty: expected a folder with config.json; it has no config.json"),
        ("long_recall --data empty", r"empty: expected a folder with files \*.txt, got none"),
        ("long_recall --json empty", "empty: expected a file to write to, got a folder"),
        ("novels empty", "empty: expected a file; it is no file"),
        ("novels file --out file", "file: expected a folder to write in, .*file is a file"),
        ("switching file --out file/x", "file/x: expected a folder to write in, .*file is a file"),
        ("sysid empty", "empty: expected a folder with ballbeam.mat, .*; it has no ballbeam.mat, .*, cstr.dat"),
        ("transduction data --books empty --babi empty --out new", "empty: expected a folder with .*.txt; it has no"),
    ],
)
def test_a_path_of_something_else(ended, words, says):
    assert re.search(rf"^{words.split()[0]}\.py: {says}", ended(words))


def test_every_path_is_checked():
    """No option of a benchmark is a bare path."""
    sources = {path.name: path.read_text() for path in BENCHMARKS.glob("*.py")}
    assert not [name for name, source in sources.items() if "type=Path" in source]
