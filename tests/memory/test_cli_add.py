"""Documents into a store and out of it again, as a person does it."""

import json

import pytest
import torch

from solomonic.cli import main
from solomonic.folder import save
from solomonic.memory import open_store
from solomonic.tokenizer import Tokenizer

from ..evaluate.models import small


@pytest.fixture
def place(tmp_path):
    """A model, a store that is not there yet, and a folder of two texts."""
    save(tmp_path / "model", small(), Tokenizer.for_bytes())
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("The whale was white.\nAhab went to sea.\n" * 30)
    (tmp_path / "texts" / "b.txt").write_text("Call me Ishmael.\n" * 40)
    return tmp_path


def said(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def add(place, *more):
    return "memory", "add", place / "texts", "--model", place / "model", "--store", place / "store", *more


def test_added_once_searched_and_explained(place, capsys):
    code, out, _ = said(capsys, *add(place, "--keep", "0.5"))
    assert code == 0 and out.startswith("2 documents added, 0 were there already")
    with open_store(str(place / "store")) as store:
        kept = store.stats()
        assert 0.2 < kept["tokens"] / (2 * kept["text"]) < 0.8
        assert store.passage(2, 17, 33) == ("Call me Ishmael.", 2)
    code, out, _ = said(capsys, *add(place))
    assert code == 0 and out.startswith("0 documents added, 2 were there already; 0 tokens")

    where = ("--model", place / "model", "--store", place / "store")
    code, out, _ = said(capsys, "memory", "search", "white whale", *where)
    assert code == 0 and "a.txt:" in out and {line.split()[0] for line in out.splitlines()[1:]} == {"0", "1"}

    write = ("generate", place / "model", "Ahab went", "--max-tokens", "12", "--temperature", "0", "--seed", "1")
    alone = said(capsys, *write)
    with_store = said(capsys, *write, "--memory", place / "store", "--explain")
    assert alone[0] == with_store[0] == 0 and alone[2] == ""
    assert "source and line" in with_store[2] and "a.txt:" in with_store[2]


def test_a_text_is_remembered_as_it_is_written(place, capsys):
    said(capsys, *add(place))
    write = (
        "generate",
        place / "model",
        "Ahab went",
        "--max-tokens",
        "40",
        "--temperature",
        "0",
        "--memory",
        place / "store",
    )
    code, out, _ = said(capsys, *write, "--remember", "talk")
    assert code == 0
    with open_store(str(place / "store")) as store:
        talk = store.find("talk")
        assert talk.complete and set(talk.sources) == {1, 2} and talk.tokens > 0
        assert store.passage(talk.id, 0, 9) == ("Ahab went", 1) and talk.text == 9 + 40 - 1  # the last is not read yet
    code, out, _ = said(capsys, "memory", "forget", "--store", place / "store", "--document", place / "texts" / "a.txt")
    assert code == 0 and "computed from it" in out
    with open_store(str(place / "store")) as store:
        assert [document.id for document in store.documents()] == [2]
    said(capsys, "generate", place / "model", "Ahab", "--max-tokens", "4", "--session", place / "session")
    code, _, err = said(capsys, *write, "--remember", "talk", "--session", place / "session")
    assert code == 2 and "expected a new --session" in err


def test_evaluated_with_and_without(place, capsys):
    said(capsys, *add(place))
    score = ("eval", place / "model", "--data", place / "texts", "--lengths", "64", "--json", place / "bits.json")
    bits = []
    memory = ("--memory", place / "store")
    for more in ((), memory, (*memory, "--hedge"), (*memory, "--hedge", "--rate", "0.1")):
        assert said(capsys, *score, *more)[0] == 0
        bits.append(json.loads((place / "bits.json").read_text())["text"][0]["bits_per_byte"])
    assert len(set(bits)) == 4


def test_a_batch_and_a_chat_attend_to_it(place, capsys, monkeypatch):
    model = small()
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.out.weight *= 5  # what is attended to decides between tokens, as in a trained model
    save(place / "model", model, Tokenizer.for_bytes())
    said(capsys, *add(place))
    (place / "prompts.txt").write_text("Ahab\nCall me\n")
    batch = ("generate", place / "model", "--batch", place / "prompts.txt", "--temperature", "0", "--max-tokens", "8")
    code, out, _ = said(capsys, *batch, "--memory", place / "store")
    assert code == 0 and len(out.splitlines()) == 2 and out != said(capsys, *batch)[1]
    assert said(capsys, *batch, "--memory", place / "store", "--hedge")[0] == 0
    monkeypatch.setattr("solomonic.cli.chat._lines", lambda: iter(["hello", "/state", "/quit"]))
    code, out, err = said(
        capsys, "chat", place / "model", "--max-tokens", "5", "--memory", place / "store", "--explain"
    )
    assert code == 0 and "bytes after" in out and "attention" in err


@pytest.mark.parametrize(
    "words, error",
    [
        (("memory", "add", "{}/texts", "--model", "{}/model", "--store", "{}/other"), "one of this model"),
        (("memory", "add", "{}/texts", "--model", "{}/model", "--store", "{}/store", "--keep", "2"), "a share in"),
        (
            ("memory", "add", "{}/texts", "--model", "{}/model", "--store", "{}/store", "--keep", "0.5"),
            "for a new store",
        ),
        (("memory", "add", "{}/texts", "--model", "{}/model", "--store", "{}/new", "--layers", "7"), "got [7]"),
        (("memory", "add", "{}/none", "--model", "{}/model", "--store", "{}/new"), "it is not there"),
        (("memory", "search", "x", "--model", "{}/model", "--store", "{}/other"), "one of this model"),
        (("generate", "{}/model", "x", "--memory", "{}/none"), "none"),
        (("generate", "{}/model", "x", "--memory", "{}/store", "--found", "0"), "--found >= 1"),
        (("generate", "{}/model", "x", "--memory", "{}/store", "--hedge", "--remember", "t"), "leave one of them out"),
        (("generate", "{}/model", "x", "--explain"), "--explain, --remember and --hedge are for --memory"),
    ],
)
def test_a_mistake_is_one_line(place, capsys, words, error):
    said(capsys, *add(place))
    save(place / "another", small(seed=1), Tokenizer.for_bytes())
    said(capsys, "memory", "add", place / "texts", "--model", place / "another", "--store", place / "other")
    code, _, err = said(capsys, *(word.format(place) for word in words))
    assert code == 2 and error in err.splitlines()[-1] and "Traceback" not in err
    assert not (place / "new").exists()
