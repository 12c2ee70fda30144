"""`solomonic memory`, on the store that it is for: the one on the disk."""

import json
import sys

import pytest

from solomonic.cli import main
from solomonic.cli._lookup import warn_unless_it_looks_up

from .cases import opened, put


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with opened(str(tmp_path / "store")) as store:
        a = put(store, "a", 0, session="one", time=1_700_000_000.0)
        put(store, "b\x1b[31m", 1, session="two", time=1_800_000_000.0, sources=[a])
        put(store, "c", 2, time=1_800_000_000.0)
    return str(tmp_path / "store")


def said(capsys, *words) -> tuple[int, str, str]:
    code = main(["memory", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_list_stats_verify_compact(folder, capsys):
    code, out, _ = said(capsys, "list", "--store", folder)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [
        "document",
        "a",
        "b\N{REPLACEMENT CHARACTER}[31m",
        "c",
    ]
    assert "2023-11-14 22:13:20" in out and "\x1b" not in out
    code, out, _ = said(capsys, "list", "--store", folder, "--json")
    listed = json.loads(out)
    assert code == 0 and listed["store"] == folder and listed["damaged"] == []
    assert [(one["name"], one["time"], one["sources"]) for one in listed["documents"]] == [
        ("a", 1_700_000_000.0, []),
        ("b\x1b[31m", 1_800_000_000.0, [1]),
        ("c", 1_800_000_000.0, []),
    ]
    code, out, _ = said(capsys, "stats", "--store", folder)
    assert code == 0 and "138" in out and "float16" in out
    assert said(capsys, "verify", "--store", folder)[:2] == (0, "sound: 3 documents\n")
    code, out, _ = said(capsys, "compact", "--store", folder)
    assert code == 0 and "bytes before" in out


def test_forget_says_what_went(folder, capsys):
    code, out, _ = said(capsys, "forget", "--store", folder, "--document", "a", "--dry-run")
    assert code == 0 and "computed from it" in out and out.endswith("2 documents would go\n")
    code, out, _ = said(capsys, "forget", "--store", folder, "--before", "2024-01-01")
    assert code == 0 and out.endswith("2 documents forgotten\n")
    assert len(said(capsys, "list", "--store", folder)[1].splitlines()) == 2
    assert said(capsys, "forget", "--store", folder, "--session", "one")[1] == "0 documents forgotten\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forget"], "expected documents, a time or a session"),
        (["forget"], "--document, --id, --before, --after and --session name them"),
        (["forget", "--document", "nobody"], "see memory list"),
        (["forget", "--before", "yesterday"], "expected a time like"),
    ],
)
def test_a_mistake_is_one_line(folder, capsys, words, message):
    code, out, err = said(capsys, *words, "--store", folder)
    assert code == 2 and not out and err.count("\n") == 1 and message in err


def test_a_place_that_is_no_store(tmp_path, capsys):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for name, message in {
        "none": "there is no store",
        "nowhere": "nowhere: there is no store; `solomonic memory add` makes one",
        "else": "holds something else",
        "file": "got a file",
        "fiel:x": "unknown kind of store",
    }.items():
        path = name if ":" in name else str(tmp_path / name)
        code, _, err = said(capsys, "list", "--store", path)
        assert code == 2 and message in err and err.count("\n") == 1
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["letter.txt"]
    assert not (tmp_path / "none").exists()


def test_a_missing_client_names_its_own_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.delitem(sys.modules, "solomonic.memory.engines.milvus", raising=False)
    code, _, err = said(capsys, "list", "--store", f"milvus:{tmp_path}/a.db#books")
    assert code == 2 and "solomonic[milvus]" in err and len(err.splitlines()) == 1


def test_nothing_gained_is_no_loss(monkeypatch, capsys):
    monkeypatch.setattr("solomonic.retrieval.remember.lookup_gain", lambda model, layers: -0.001)
    warn_unless_it_looks_up("nowhere", None)
    assert "foretold 0.00 bits a token better" in capsys.readouterr().err
