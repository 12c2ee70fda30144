"""Documents into a store and out of it again, as a person does it."""

import json
import os
import shutil

import pytest
import torch

from solomonic.checkpoints.folder import load, save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.remember import remember
from solomonic.retrieval.schema import store_schema

from ..evaluation.models import small
from .cases import same
from .models import looking
from .test_remember import everything


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A model, a store that is not there yet, and a folder of two texts, where one is."""
    monkeypatch.chdir(tmp_path)
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


def test_added_once_searched_and_explained(place, capsys, monkeypatch):
    code, out, _ = said(capsys, *add(place, "--keep", "0.5"))
    assert code == 0 and out.startswith("2 documents added, 0 there already")
    with open_store(str(place / "store")) as store:
        kept = store.stats()
        assert 0.2 < kept["tokens"] / (2 * kept["text"]) < 0.8
        assert store.passage(2, 17, 33) == ("Call me Ishmael.", 2)
    code, out, _ = said(capsys, *add(place))
    assert code == 0 and out.startswith("0 documents added, 2 there already; 0 tokens")

    where = ("--model", place / "model", "--store", place / "store")
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = said(capsys, "memory", "search", "white whale", *where)
    assert code == 0 and "a.txt:" in out and {line.split()[0] for line in out.splitlines()[1:]} == {"0", "1"}
    found = json.loads(said(capsys, "memory", "search", "white", "whale", *where, "--json")[1])
    assert found["text"] == "white whale" and len(found["passages"]) == 6
    first = found["passages"][0]
    assert f"{first['attention']:.1%}" in out.splitlines()[1] and first["document"].startswith(str(place))
    with open_store(str(place / "store")) as store:
        text, line = store.passage(first["id"], first["start"], first["end"])
    assert text in first["text"] and line == first["line"]
    said(capsys, "memory", "search", "white", "whale", *where, "--json", place / "found.json")
    assert json.loads((place / "found.json").read_text()) == found
    code, _, err = said(capsys, "memory", "search", "--json", "white", "whale", *where)
    assert code == 2 and "expected FILE.json" in err and not (place / "white").exists()

    write = ("generate", place / "model", "Ahab went", "--max-tokens", "12", "--temperature", "0", "--seed", "1")
    alone = said(capsys, *write)
    with_store = said(capsys, *write, "--memory", place / "store", "--explain")
    assert alone[0] == with_store[0] == 0 and alone[2] == ""
    assert "source and line" in with_store[2] and "a.txt:" in with_store[2]


def test_a_file_is_the_same_however_its_path_is_spelt(place, capsys, monkeypatch):
    (place / "texts" / "lines.jsonl").write_text('{"text": "Call me Ishmael."}\n{"text": "Thar she blows!"}\n')
    (place / "link").symlink_to(place / "texts")
    (place / "a.link").symlink_to(place / "texts" / "a.txt")
    os.link(place / "texts" / "b.txt", place / "texts" / "c.txt")
    into = ("--model", place / "model", "--store", place / "store")
    monkeypatch.chdir(place)
    assert said(capsys, "memory", "add", "texts", *into)[1].startswith("4 documents added, 1 there")
    for count, spelling in (
        (5, place / "texts"),
        (5, "texts/"),
        (5, "./model/../texts"),
        (5, "link"),
        (5, f"{place}/link/"),
        (1, "a.link"),
        (1, "link/c.txt"),
        (2, "link/../texts//lines.jsonl"),
    ):
        assert said(capsys, "memory", "add", spelling, *into)[1].startswith(f"0 documents added, {count} there"), (
            spelling
        )
    assert said(capsys, "memory", "add", "a.link", "texts/a.txt", *into, "--session", "s")[1].startswith("1 document")
    real = os.path.realpath(place / "texts")
    listed = json.loads(said(capsys, "memory", "list", "--store", place / "store", "--json")[1])["documents"]
    names = ["a.txt", "b.txt", "lines.jsonl:1", "lines.jsonl:2", "a.txt"]
    assert [one["name"] for one in listed] == [f"{real}/{name}" for name in names] and listed[-1]["session"] == "s"
    monkeypatch.setenv("COLUMNS", "200")
    out = said(capsys, "memory", "list", "--store", place / "store")[1]
    assert [line.split()[0] for line in out.splitlines()[1:]] == [f"texts/{name}" for name in names]
    monkeypatch.chdir(place / "texts")
    assert said(capsys, "memory", "add", "a.txt", *into)[1].startswith("0 documents added, 1 there")
    (place / "a.link").unlink()
    (place / "a.link").symlink_to("texts/a.txt")
    (place / "texts" / "a.txt").unlink()  # a name remains one when its file is gone
    for name in ("../a.link", "./lines.jsonl:2"):
        assert said(capsys, "memory", "forget", "--store", place / "store", "--document", name)[0] == 0
    with open_store(str(place / "store")) as store:
        assert [document.name for document in store.documents()] == [f"{real}/b.txt", f"{real}/lines.jsonl:1"]


def test_a_store_whose_names_are_as_they_were_typed_goes_on(place, capsys, monkeypatch):
    """As stores were until November 2026."""
    monkeypatch.chdir(place)
    model, tokenizer = load("model")
    with open_store("store", store_schema(model, keep=0.5), write=True) as store:
        attached, data = Attached(model, store), (place / "texts" / "a.txt").read_bytes()
        remember(attached, tokenizer, "texts/a.txt", data)
        remember(attached, tokenizer, "a\0b", data)  # whatever else a name may be
    assert said(capsys, *add(place))[1].startswith("1 document added, 1 there already")
    (place / "texts" / "a.txt").write_text("Another text.\n")
    assert said(capsys, *add(place))[1].startswith("1 document added, 1 there already")
    for document in ("texts/a.txt", "texts/b.txt"):
        assert said(capsys, "memory", "forget", "--store", "store", "--document", document)[0] == 0
    with open_store("store") as store:
        assert [document.name for document in store.documents()] == ["a\0b"]


@pytest.mark.parametrize(
    "record, why",
    [
        (None, "nothing says that it was trained with --lookup"),
        ("solomonic train a --lookup 0.0 --out b", "nothing says that it was trained with --lookup"),
        ("solomonic train a --look=0.45 --out b", "its training with --lookup 0.45 was too little"),
        (7, "nothing says that it was trained with --lookup"),
    ],
)
def test_of_what_use_a_store_is_is_said_before_the_work(place, capsys, record, why):
    """To a model that has not learnt to look things up, in one line, whatever is to be done with it; to another, nothing."""
    examples = [{"text": "white whale", "label": "sea"}, {"text": "grey horse", "label": "land"}]
    (place / "e.json").write_text(json.dumps(examples))
    memory = ("--memory", "store", "--max-tokens", "2")
    commands = [
        ("memory", "add", "texts", "--model", "model", "--store", "store"),
        ("memory", "search", "white", "--model", "model", "--store", "store"),
        ("generate", "model", "Ahab", *memory),
        ("transduce", "model", "--train", "e.json", "--test", "e.json", "--ways", "memory"),
    ][: 4 if record is None else 1]
    if record is not None:
        (place / "model" / "training.json").write_text(json.dumps({"command": record}))
    for words in commands:
        code, _, err = said(capsys, *words)
        lines = [line for line in err.splitlines() if line.startswith("solomonic: this model")]
        assert code == 0 and len(lines) == 1 and "cannot look things up" in lines[0] and why in lines[0]
        assert not any("%" in line for line in err.partition(lines[0])[0].splitlines())  # it is said first
    if record is None:
        save(place / "model", looking(), Tokenizer.for_bytes())
        shutil.rmtree(place / "store")
        for words in commands:
            code, out, err = said(capsys, *words)
            assert code == 0 and "cannot look" not in err
        found = json.loads(said(capsys, *commands[1], "--json")[1])
        assert found["lookup_gain"] > 5 and "white" in found["passages"][0]["text"]


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
    for more in (
        (),
        memory,
        (*memory, "--hedge"),
        (*memory, "--hedge", "--rate", "0.1"),
        (*memory, "--sharpness", "9"),
    ):
        assert said(capsys, *score, *more)[0] == 0
        bits.append(json.loads((place / "bits.json").read_text())["text"][0]["bits_per_byte"])
    assert len(set(bits)) == 5


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
        (("generate", "{}/model", "x", "--memory", "{}/store", "--k", "0"), "--k: expected a whole number >= 1"),
        (("generate", "{}/model", "x", "--memory", "{}/store", "--hedge", "--remember", "t"), "leave one of them out"),
        (("generate", "{}/model", "x", "--explain"), "--explain: expected --memory"),
        (("generate", "{}/model", "x", "--rate", "0", "--sharpness", "1"), "--rate, --sharpness: expected --memory"),
        (("generate", "{}/model", "x", "--k", "4"), "--k: expected --memory"),
        (("eval", "{}/model", "--k", "4"), "--k: expected --memory"),
        (("serve", "{}/model", "--hedge"), "--hedge: expected --memory"),
        (("chat", "{}/model", "--explain"), "--explain: expected --memory"),
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
    """The schema of a store, all its tokens in the order of names, what a text finds, and the logits that it gets."""
    model, tokenizer = load(place / "model")
    x = torch.from_numpy(tokenizer.encode("Call me Ahab; the whale was white."))[None]
    with open_store(str(place / name)) as store, torch.no_grad():
        names = {document.id: document.name for document in store.documents()}
        logits, _ = Attached(model, store, k=4)(x)
        results = []
        for shape in store.schema.layers:
            query = torch.randn(5, shape.heads, shape.dim, generator=torch.Generator().manual_seed(1))
            found = store.search(shape.layer, query, 9)
            which = [names.get(token_id >> 32) for token_id in found.token_id.flatten().tolist()]
            results += [which, found.position, found.logit]
        return store.schema, [d.tokens for d in store.documents()], everything(store), results, logits


def into(place, name: str, *texts: str) -> None:
    where = ["--model", str(place / "model"), "--store", str(place / name)]
    for text in texts:
        assert main(["memory", "add", str(place / "texts" / text), *where]) == 0


def test_forgotten_on_the_command_line_is_never_known(place, capsys):
    (place / "texts" / "a.txt").write_text("1 + 1 = 2; 3 * 4 = 12; 5 - 6 = -1\n" * 40)
    into(place, "store", "a.txt", "b.txt")
    code, out, _ = said(capsys, "memory", "forget", "--store", place / "store", "--document", place / "texts" / "a.txt")
    assert code == 0 and out.endswith("1 document forgotten\n")
    into(place, "never", "b.txt")
    (schema, tokens, kept, results, logits), (other, *rest) = remembered(place, "store"), remembered(place, "never")
    assert schema == other and tokens == rest[0] and 0 < tokens[0] < 0.5 * 2 * 680
    assert same(kept, rest[1]) and same(results, rest[2]) and torch.equal(logits, rest[3])


def test_the_order_of_adding_is_not_seen(place):
    (place / "texts" / "a.txt").write_text("Call me Ishmael.\nAhab went to sea.\n" * 30)  # found in both, equally well
    into(place, "one", "a.txt", "b.txt")
    into(place, "other", "b.txt", "a.txt")
    (schema, _, _, results, logits), (its, _, _, found, expected) = remembered(place, "one"), remembered(place, "other")
    assert schema == its and same(results, found) and torch.equal(logits, expected)


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
    assert code == 0 and out.startswith("0 documents added, 3 there already")
    code, _, err = said(capsys, "memory", "search", "wh\udcffle", "--model", place / "model", *store)
    assert code == 0 and "Traceback" not in err
    code, out, _ = said(capsys, "memory", "forget", *store, "--document", place / "texts" / name)
    assert code == 0 and out.endswith("1 document forgotten\n")


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
