"""Transductive inference: each way is its plain definition, the model stays as it is, no question tells on another."""

import copy
import json

import pytest
import torch

from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer
from solomonic.memory import open_store
from solomonic.retrieval.examples import Example, examples
from solomonic.retrieval.schema import store_schema
from solomonic.retrieval.transduce import WAYS, Settings, Transducer, remember_examples

from .evaluation.models import bpe, small

BYTES = Tokenizer.for_bytes()
TRAIN = [
    Example(f"{who} {verb} {what}.", label)
    for label, verb in (("sea", "sailed"), ("the dry land", "rode"))
    for who, what in (("Ahab", "away"), ("Starbuck", "home"), ("Queequeg", "by"), ("Ishmael", "on"))
]
QUESTIONS = ["Ahab rode on.", "Pip sailed.", "Stubb sailed home.", "Ahab sailed away."]


@pytest.fixture(scope="module")
def model():
    return small()


def transducer(model, tokenizer=BYTES, train=TRAIN, stored=True, **settings) -> Transducer:
    chosen = Settings(**{"neighbours": 3, "steps": 2, "lr": 0.01} | settings)
    if not stored:
        return Transducer(model, tokenizer, train, chosen)
    store = open_store("ram:", store_schema(model, dtype="float32"), write=True)
    return Transducer(model, tokenizer, train, chosen, store, remember_examples(store, model, tokenizer, train, chosen))


def scores(found):
    return {way: answer.scores for way, answer in found.items()}


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def mean_log_p(model, context, answer):
    """(1/n) ln p of the tokens `answer` after `context`, in one call."""
    tokens = torch.tensor([*context, *answer])
    with torch.no_grad():
        log_p = model(tokens[None])[0][0].log_softmax(-1)
    return log_p[len(context) - 1 : -1].gather(1, tokens[len(context) :, None]).mean().item()


@pytest.mark.parametrize("retrieval", ["hidden", "store"])
def test_a_question_does_not_depend_on_the_others(model, retrieval):
    alone = [scores(transducer(model, retrieval=retrieval).answers(text)) for text in QUESTIONS]
    one = transducer(model, retrieval=retrieval)
    backwards = [scores(one.answers(text)) for text in reversed(QUESTIONS)]
    assert backwards[::-1] == alone
    assert len({found["tuning"] for found in alone}) == len(alone)


def test_every_parameter_is_what_it_was_also_after_an_error(model, monkeypatch):
    before, flags = bits(model), [(p.requires_grad, p.grad) for p in model.parameters()]
    asked = transducer(model)
    expected = scores(asked.answers(QUESTIONS[0]))
    assert expected["tuning"] != expected["none"]
    steps, step = [], torch.optim.Adam.step

    def fails(self, *more):
        steps.append(step(self, *more))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.Adam, "step", fails)
        asked.answers(QUESTIONS[1], ["tuning"])
    assert len(steps) == 1
    assert scores(asked.answers(QUESTIONS[0])) == expected
    after = bits(model)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == flags


def test_an_empty_store_is_no_store(model):
    with open_store("ram:", store_schema(model), write=True) as store:
        found = scores(Transducer(model, BYTES, TRAIN, store=store).answers(QUESTIONS[0], ["memory", "none"]))
    assert found["memory"] == found["none"]
    held = scores(transducer(model).answers(QUESTIONS[0], ["memory", "none"]))
    assert held["none"] == found["none"] and held["memory"] != held["none"]


def test_other_documents_of_the_store_are_left_alone(model):
    settings = Settings(neighbours=3, retrieval="store")
    with open_store("ram:", store_schema(model, dtype="float32"), write=True) as store:
        remember_examples(
            store, model, BYTES, [Example("Ahab rode on. Ahab rode on.", "the dry land", "other")], settings
        )
        rows = remember_examples(store, model, BYTES, TRAIN, settings)
        assert remember_examples(store, model, BYTES, TRAIN, settings) == rows
        assert len(store.documents()) == len(TRAIN) + 1
        one = Transducer(model, BYTES, TRAIN, settings, store, rows)
        found, near = scores(one.answers(QUESTIONS[0], ["memory", "vote"])), one.nearest(QUESTIONS[0])
    alone = transducer(model, retrieval="store", steps=5, lr=3e-3)
    assert found == scores(alone.answers(QUESTIONS[0], ["memory", "vote"]))
    assert near == alone.nearest(QUESTIONS[0]) and len(set(near)) == 3


@pytest.mark.parametrize("tokenizer", [BYTES, bpe()], ids=["bytes", "bpe"])
def test_each_way_is_its_definition(tokenizer):
    model = small(vocab_size=tokenizer.vocab_size)
    settings = Settings(neighbours=3, steps=2, lr=0.01)
    one = transducer(model, tokenizer, stored=False)
    found = scores(one.answers(QUESTIONS[0], ["none", "context", "tuning", "vote"]))
    near = [TRAIN[row] for row in one.nearest(QUESTIONS[0])]

    labels = ["sea", "the dry land"]
    question = tokenizer.encode("Ahab rode on.\n=> ").tolist()
    answers = {label: tokenizer.encode(f"{label}\n").tolist() for label in labels}
    shown = [(tokenizer.encode(f"{e.text}\n=> ").tolist(), answers[e.label]) for e in near]
    expected = {"none": [mean_log_p(model, question, answers[label]) for label in labels]}
    context = [token for a, b in reversed(shown) for token in a + b] + question
    expected["context"] = [mean_log_p(model, context, answers[label]) for label in labels]

    tuned = copy.deepcopy(model)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=settings.lr)
    for _ in range(settings.steps):
        loss = count = 0
        for a, b in shown:  # one at a time, without padding
            log_p = tuned(torch.tensor([a + b]))[0][0].log_softmax(-1)
            loss = loss - log_p[len(a) - 1 : -1].gather(1, torch.tensor(b)[:, None]).sum()
            count += len(b)
        optimizer.zero_grad()
        (loss / count).backward()
        optimizer.step()
    expected["tuning"] = [mean_log_p(tuned, question, answers[label]) for label in labels]
    for way, values in expected.items():
        assert found[way] == pytest.approx(values, abs=2e-3 if way == "tuning" else 1e-4), way
    assert [int(votes) for votes in found["vote"]] == [sum(e.label == label for e in near) for label in labels]
    assert expected["none"] != pytest.approx(expected["tuning"], abs=0.1)


def test_nearest_is_the_cosine_of_centred_mean_states(model):
    one = transducer(model, stored=False)
    with torch.no_grad():

        def mean(text):
            return model.hidden(model.embed(torch.from_numpy(BYTES.encode(f"{text}\n=> "))[None]))[0][0].mean(0)

        rows = torch.stack([mean(example.text) for example in TRAIN])
        cosine = torch.cosine_similarity(rows - rows.mean(0), mean(QUESTIONS[1]) - rows.mean(0))
    assert one.nearest(QUESTIONS[1]) == cosine.argsort(descending=True)[:3].tolist()
    assert one.nearest(TRAIN[5].text)[0] == 5


def test_of_equal_votes_the_nearest_decides(model):
    one = transducer(model, stored=False, neighbours=2)
    one.nearest = lambda text: [0, 7]
    assert one.answers("x", ["vote"])["vote"].label == "sea"
    one.nearest = lambda text: [7, 0]
    assert one.answers("x", ["vote"])["vote"].label == "the dry land"


def test_what_is_held_is_counted(model):
    one = transducer(model)
    found = one.answers(QUESTIONS[0])
    weights = sum(p.nbytes for p in model.parameters())
    assert found["tuning"].state == found["none"].state + 4 * weights
    assert found["memory"].state == found["none"].state == model.state_bytes(len(QUESTIONS[0]) + 4)
    assert one.bytes_of("none") == 0
    assert one.bytes_of("memory") == sum(document.bytes for document in one.store.documents())
    text = sum(len(example.text) + len(example.label) for example in TRAIN)
    assert one.bytes_of("context") == text + len(TRAIN) * model.config.d_model * 4


def test_what_does_not_fit_is_an_error(model):
    for settings, error in (
        ({"neighbours": 0}, "neighbours: expected a whole number >= 1"),
        ({"lr": 0.0}, "lr: expected a number > 0"),
        ({"retrieval": "hiden"}, "did you mean 'hidden'"),
        ({"template": "{label} {text}"}, "template: expected"),
    ):
        with pytest.raises(ValueError, match=error):
            Settings(**settings)
    with pytest.raises(ValueError, match="got only 'sea'"):
        Transducer(model, BYTES, TRAIN[:4])
    with pytest.raises(ValueError, match="expected a store"):
        Transducer(model, BYTES, TRAIN, Settings(retrieval="store"))
    one = Transducer(model, BYTES, TRAIN)
    with pytest.raises(ValueError, match="memory: expected a store"):
        one.answers("x")
    with pytest.raises(ValueError, match="did you mean 'vote'"):
        one.answers("x", ["votes"])
    with pytest.raises(ValueError, match="tuning: expected finite scores.* lower lr"):
        transducer(model, stored=False, lr=1e30).answers("x", ["tuning"])


# The command


@pytest.fixture
def place(tmp_path, model):
    save(tmp_path / "model", model, BYTES)
    write(tmp_path / "train.jsonl", [{"text": e.text, "label": e.label} for e in TRAIN])
    labels = ("the dry land", "sea", "sea", "sea")
    write(tmp_path / "test.jsonl", [{"text": text, "label": label} for text, label in zip(QUESTIONS, labels)])
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def said(place, capsys, *more, train="train.jsonl", test="test.jsonl"):
    words = ("transduce", place / "model", "--train", place / train, "--test", place / test, "--neighbours", 3, *more)
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def untimed(path):
    read = json.loads(path.read_text())
    for found in (*read["ways"].values(), *(a[way] for a in read["answers"] for way in WAYS if way in a)):
        found.pop("seconds")
    return read


def test_all_ways_are_compared(place, capsys):
    code, out, _ = said(place, capsys, "--json", place / "a.json", "--store", place / "store")
    assert code == 0 and "by chance 0.500, of the commonest label 0.750" in out.splitlines()[0]
    assert {line.split()[0] for line in out.splitlines()[-5:]} == {*WAYS}
    read = json.loads((place / "a.json").read_text())
    assert read["complete"] and read["questions"] == 4 and read["of_them_in_train"] == 1
    for way in WAYS:
        right = sum(answer[way]["label"] == answer["label"] for answer in read["answers"])
        assert read["ways"][way]["accuracy"] == right / 4
    assert read["majority"] == 0.75
    other = "../" + place.name + "/train.jsonl"  # the same examples
    code, again, _ = said(place, capsys, "--ways", "memory", "--store", place / "store", "--limit", 2, train=other)
    assert code == 0 and "2 questions" in again
    with open_store(str(place / "store")) as store:
        assert len(store.documents()) == len(TRAIN)


def test_a_model_without_eidetic_memory_answers_in_the_other_ways(place, capsys):
    save(place / "model", small("transformer"), BYTES)
    code, out, err = said(place, capsys, "--json", place / "a.json", "--limit", 2)
    assert code == 0 and err.splitlines()[0] == (
        "solomonic: this model has no eidetic memory, and so no store: memory is left out"
    )
    read = json.loads((place / "a.json").read_text())
    assert {*read["ways"]} == {*WAYS} - {"memory"} and all(one["questions"] == 2 for one in read["ways"].values())
    for more in (("--ways", "none", "memory"), ("--retrieval", "store"), ("--store", place / "store")):
        code, _, err = said(place, capsys, *more)
        assert code == 2 and "expected a model with an eidetic memory" in err and len(err.splitlines()) == 1
    assert not (place / "store").exists()


def test_interrupted_and_resumed_is_as_if_answered_at_once(place, capsys, monkeypatch):
    said(place, capsys, "--json", place / "whole.json")
    answers, count = Transducer.answers, []

    def stop(self, text, ways):
        count.append(text)
        if len(count) == 3:
            raise KeyboardInterrupt
        return answers(self, text, ways)

    with monkeypatch.context() as patched:
        patched.setattr(Transducer, "answers", stop)
        code, out, _ = said(place, capsys, "--json", place / "a.json", "--ways", "none", "context")
    assert code == 130 and "2 questions" in out and not json.loads((place / "a.json").read_text())["complete"]
    asked = []
    monkeypatch.setattr(Transducer, "answers", lambda self, *a: asked.append(a) or answers(self, *a))
    assert said(place, capsys, "--json", place / "a.json")[0] == 0
    assert [list(ways) for _, ways in asked] == [["memory", "tuning", "vote"]] * 2 + [
        ["memory", "context", "tuning", "none", "vote"]
    ] * 2
    assert untimed(place / "a.json") == untimed(place / "whole.json")
    code, _, err = said(place, capsys, "--json", place / "a.json", "--steps", "1")
    assert code == 2 and "a run with another settings" in err


@pytest.mark.parametrize(
    "rows, error",
    [
        ([{"text": "a"}], "line 1: expected an object with a text under 'text' and a label"),
        ([{"text": "a", "label": "sea"}, {"text": "b", "label": 1.5}], "line 2: expected an object"),
        ([], "got a file that is empty"),
        ([{"text": "a", "label": "see"}], "test.jsonl:1: unknown label 'see': did you mean 'sea'"),
        (["a"], "under 'label', got str"),
    ],
)
def test_a_bad_line_is_named(place, capsys, rows, error):
    write(place / "test.jsonl", rows)
    code, _, err = said(place, capsys, "--json", place / "a.json")
    assert code == 2 and error in err and len(err.splitlines()) == 1 and not (place / "a.json").exists()


@pytest.mark.parametrize(
    "more, error",
    [
        (("--ways", "contxt"), "did you mean 'context'"),
        (("--limit", "0"), "--limit"),
        (("--ways", "none", "--store", "x"), "--store is for"),
        (("--fields", "text", "class"), "under 'class'"),
        (("--retrieval", "near"), "unknown retrieval"),
        (("--template", "{text}"), "template: expected"),
    ],
)
def test_a_mistake_is_one_line(place, capsys, more, error):
    code, _, err = said(place, capsys, *more)
    assert code == 2 and error in err and len(err.splitlines()) == 1


def test_files_that_are_not_examples(place, capsys):
    (place / "broken.jsonl").write_text("{\n")
    (place / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    (place / "other.json").write_text("[]")
    for train, error in (("none.jsonl", "it is not there"), ("broken.jsonl", "no JSON"), ("latin.jsonl", "utf-8")):
        code, _, err = said(place, capsys, train=train)
        assert code == 2 and error in err
    code, _, err = said(place, capsys, "--json", place / "other.json")
    assert code == 2 and "expected a file of answers" in err and (place / "other.json").read_text() == "[]"


STORIES = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary travelled to the hallway.

5 Where is Mary? \thallway\t4
1 Sandra got the milk there.
2 What is Sandra carrying?\tmilk
"""


def test_questions_of_babi_as_it_is_published(tmp_path):
    path = tmp_path / "qa1_train.txt"
    path.write_text(STORIES.replace("\n", "\r\n"))
    first = "Mary moved to the bathroom.\nJohn went to the hallway.\n"
    assert examples(path) == [
        Example(first + "Where is Mary?", "bathroom", f"{path}:3"),
        Example(first + "Mary travelled to the hallway.\nWhere is Mary?", "hallway", f"{path}:6"),
        Example("Sandra got the milk there.\nWhat is Sandra carrying?", "milk", f"{path}:8"),
    ]
    with pytest.raises(ValueError, match="got bAbI; leave --fields out"):
        examples(path, ("q", "a"))
    path.write_text(STORIES + "Mary left.\n")
    with pytest.raises(ValueError, match="qa1_train.txt, line 9: expected a number and a statement, or a question"):
        examples(path)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.json", '[{"text": "a", "label": true}, {"text": "b", "label": false}]', [("a", "true"), ("b", "false")]),
        ("a.csv", 'label,text\nyes,"a, ""b"""\nno,c\n', [('a, "b"', "yes"), ("c", "no")]),
        ("a.tsv", "text\tlabel\na\t1\nb\t2\n", [("a", "1"), ("b", "2")]),
        ("lines.data", '{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n', [("a", "1"), ("b", "2")]),
        ("list", '\n[{"text": "a", "label": "x"}, {"text": "b", "label": 2.0}]', [("a", "x"), ("b", "2")]),
    ],
)
def test_examples_in_other_forms(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    assert [(one.text, one.label) for one in examples(tmp_path / name)] == expected


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.txt", "Where is Mary?\tbathroom\n", "JSON lines .*, a JSON list .*, CSV .*, parquet, or bAbI, got"),
        ("a.txt", "\ufeff \n", "a file that is empty"),
        ("a.json", '[{"text": "a", "label": null}]', "a.json, entry 1: expected an object with a text"),
        ("a.json", '[{"text": "a", "label": [1]}]', "a.json, entry 1: expected an object with a text"),
        ("a.csv", "text,label\na,\n", "a.csv, line 2: expected an object with a text"),
        ("a.csv", "text,class\na,x\n", "names the column 'label' once, got text, class"),
        ("a.jsonl", '["a", "b"]\n', "a.jsonl, line 1: expected .* got list"),
        (".", "", "a folder"),
    ],
)
def test_what_holds_no_examples_is_named(tmp_path, name, content, says):
    if content:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        examples(tmp_path / name)


def test_fields_and_whole_numbers(tmp_path):
    write(tmp_path / "a.jsonl", [{"review": "good", "stars": 5}, {"review": "", "stars": "1"}])
    path = tmp_path / "a.jsonl"
    assert examples(path, ("review", "stars")) == [Example("good", "5", f"{path}:1"), Example("", "1", f"{path}:2")]
