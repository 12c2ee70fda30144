"""Documents into a store and out of it again, as a person does it."""

import json
import os

import pytest
import torch

from solomonic.cli import main
from solomonic.attach import Attached
from solomonic.folder import load, save
from solomonic.memory import open_store
from solomonic.tokenizer import Tokenizer

from ..evaluate.models import small
from .cases import same
from .test_remember import everything


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
    said(capsys, *add(place, "--keep", "0.5"))
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


def remembered(place, name: str) -> tuple:
    """The layout of a store, all its tokens in the order of names, what a text finds, and the logits that it gets."""
    model, tokenizer = load(place / "model")
    x = torch.from_numpy(tokenizer.encode("Call me Ahab; the whale was white."))[None]
    with open_store(str(place / name)) as store, torch.no_grad():
        names = {document.id: document.name for document in store.documents()}
        logits, _ = Attached(model, store, k=4)(x)
        results = []
        for shape in store.layout.layers:
            query = torch.randn(5, shape.heads, shape.dim, generator=torch.Generator().manual_seed(1))
            found = store.search(shape.layer, query, 9)
            which = [names.get(age >> 32) for age in found.age.flatten().tolist()]
            results += [which, found.position, found.logit]
        return store.layout, [d.tokens for d in store.documents()], everything(store), results, logits


def into(place, name: str, *texts: str) -> None:
    where = ["--model", str(place / "model"), "--store", str(place / name)]
    for text in texts:
        assert main(["memory", "add", str(place / "texts" / text), *where]) == 0


def test_forgotten_on_the_command_line_is_never_known(place, capsys):
    (place / "texts" / "a.txt").write_text("1 + 1 = 2; 3 * 4 = 12; 5 - 6 = -1\n" * 40)
    into(place, "store", "a.txt", "b.txt")
    code, out, _ = said(capsys, "memory", "forget", "--store", place / "store", "--document", place / "texts" / "a.txt")
    assert code == 0 and out.endswith("1 documents forgotten\n")
    into(place, "never", "b.txt")
    (layout, tokens, kept, results, logits), (other, *rest) = remembered(place, "store"), remembered(place, "never")
    assert layout == other and tokens == rest[0] and 0 < tokens[0] < 0.5 * 2 * 680
    assert same(kept, rest[1]) and same(results, rest[2]) and torch.equal(logits, rest[3])


def test_the_order_of_adding_is_not_seen(place):
    (place / "texts" / "a.txt").write_text("Call me Ishmael.\nAhab went to sea.\n" * 30)  # found in both, equally well
    into(place, "one", "a.txt", "b.txt")
    into(place, "other", "b.txt", "a.txt")
    (layout, _, _, results, logits), (its, _, _, found, expected) = remembered(place, "one"), remembered(place, "other")
    assert layout == its and same(results, found) and torch.equal(logits, expected)


def test_a_name_that_is_not_utf8_is_one_too(place, capsys):
    name = os.fsdecode(b"caf\xe9 \xff.txt")
    (place / "texts" / name).write_text("Stubb had his whale.\n" * 40)
    store = ("--store", os.fsdecode(os.fsencode(place) + b"/st\xf6re"))
    code, out, err = said(capsys, "memory", "add", place / "texts", "--model", place / "model", *store)
    assert code == 0 and out.startswith("3 documents added") and "Traceback" not in err
    code, out, _ = said(capsys, "memory", "list", *store)
    assert code == 0 and "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}.txt" in out
    assert said(capsys, "memory", "verify", *store)[:2] == (0, "sound: 3 documents\n")
    code, out, _ = said(capsys, "memory", "add", place / "texts", "--model", place / "model", *store)
    assert code == 0 and out.startswith("0 documents added, 3 were there already")
    code, _, err = said(capsys, "memory", "search", "wh\udcffle", "--model", place / "model", *store)
    assert code == 0 and "Traceback" not in err
    code, out, _ = said(capsys, "memory", "forget", *store, "--document", place / "texts" / name)
    assert code == 0 and out.endswith("1 documents forgotten\n")


@pytest.mark.parametrize(
    "words, code",
    [
        (("--k", "1000000000"), 2),
        (("--k", "0"), 2),
        (("--k", "65536", "--count", "1000000000"), 0),
        (("--count", "0"), 2),
    ],
)
def test_absurd_numbers_end_in_a_line(place, capsys, words, code):
    into(place, "store", "b.txt")
    came, _, err = said(capsys, "memory", "search", "w", "--model", place / "model", "--store", place / "store", *words)
    assert came == code and "Traceback" not in err and (code == 0 or "expected" in err)


def test_a_busy_or_damaged_store_is_not_a_new_one(place, capsys):
    into(place, "store", "b.txt")
    with open_store(str(place / "store"), write=True):
        code, _, err = said(capsys, *add(place))
        assert code == 2 and "is writing to this store" in err
    file = place / "store" / "store.sqlite"
    whole = file.read_bytes()
    for damaged in (b"", bytes(len(whole)), whole[:5000]):
        file.write_bytes(damaged)
        code, _, err = said(capsys, *add(place))
        assert code == 2 and "Traceback" not in err and file.read_bytes() == damaged
