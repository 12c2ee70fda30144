"""RULER's tasks as text: each prompt is read back and its answers worked out from its text alone."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

from solomonic.data.tokenizer import Tokenizer
from solomonic.evaluation import prompts as module
from solomonic.evaluation.prompts import ask, draw, shortest
from solomonic.evaluation.questions import hotpot, squad
from solomonic.evaluation.ruler import TASKS, Source, names, ruler, share

from .models import TEXT, Copier, bpe, small

TOKENIZERS = {"bytes": Tokenizer.for_bytes(), "bpe": bpe()}
SOURCE = Source(
    "The ferry was late. Nobody on the shore had noticed it yet!\nIt came in the dark, without a light. " * 30
)
NEEDLE = re.compile(r"The secret (number|uuid) of (\S+) is (\S+)\.")
NIAH = {  # keys, values of a key, keys asked, kinds of key and value
    "niah_single_1": (1, 1, 1, "word", "number"),
    "niah_single_2": (1, 1, 1, "word", "number"),
    "niah_single_3": (1, 1, 1, "word", "uuid"),
    "niah_multikey_1": (4, 1, 1, "word", "number"),
    "niah_multikey_2": (None, 1, 1, "word", "number"),
    "niah_multikey_3": (None, 1, 1, "uuid", "uuid"),
    "niah_multivalue": (1, 4, 1, "word", "number"),
    "niah_multiquery": (4, 1, 4, "word", "number"),
}
FORMS = {"word": r"[a-z]+-[a-z]+", "number": r"\d{7}", "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"}


def task(name, source=SOURCE):
    [found] = ruler(source, [name])
    return found


def prompts(name, length=3000, samples=6, source=SOURCE, tokenizer=TOKENIZERS["bytes"], seed=0):
    for one in draw(task(name, source), tokenizer, length, samples, seed):
        yield tokenizer.decode(one.tokens), one


@pytest.mark.parametrize("name", NIAH)
def test_needles_are_in_the_text_and_what_is_asked_is_there(name):
    keys, values, asked, key, value = NIAH[name]
    depths = []
    for text, one in prompts(name, samples=12):
        *_, question = text.split("\n")
        body = text[: -len(question)]
        said = {}
        for kind, who, what in NEEDLE.findall(body):
            assert kind == value and re.fullmatch(FORMS[key], who) and re.fullmatch(FORMS[value], what)
            said.setdefault(who, []).append(what)
        whom = re.fullmatch(rf"Which secret {value}s? of (.+) (is|are) in the text above\? (.*)", question)[1]
        whom = re.split(", | and ", whom)
        assert len(set(whom)) == asked and Counter(one.draft.answers) == Counter(
            what for who in whom for what in said[who]
        )
        assert question.endswith("is" if len(one.draft.answers) == 1 else "are")
        assert all(len(said[who]) == values for who in whom) and len(one.draft.answers) == asked * values
        if keys:
            assert len(said) == keys
            rest = NEEDLE.sub("", body)
            assert "The mill is quiet" in rest if name.endswith("_1") and keys == 1 else "The ferry was late" in rest
        else:
            assert len(said) > 8 and all(NEEDLE.fullmatch(line) for line in body.strip().split("\n")[1:])
        depths.append(body.index(one.draft.answers[0]) / len(body))
    assert min(depths) < 0.4 and max(depths) > 0.6


def test_variables_are_those_that_the_assignments_give():
    for text, one in prompts("vt"):
        example, main = text.split("\n\nVariables are")
        for part, answers in ((main, one.draft.answers), (example, example.split(":")[-1].split())):
            holds = {}
            for name, what in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\n", part):
                holds[name] = holds.get(what, what)
            asked = re.search(r"hold the value (\d+) in", part)[1]
            assert [name for name, value in holds.items() if value == asked] == answers and len(answers) == 5
        assert main.rstrip().endswith(":") and "Two dogs sleep" in main


@pytest.mark.parametrize("length, often, seldom", [(3000, 6, 1), (8192, 30, 3)])
def test_common_words_are_the_most_frequent_of_the_list(length, often, seldom):
    for text, one in prompts("cwe", length, samples=3):
        example, main = (part.split("\n")[1] for part in text.split("Some words of the numbered list below")[1:])
        found = Counter(re.findall(r"\d+\. (\S+)", main))
        assert set(one.draft.answers) == {word for word, count in found.items() if count == often}
        assert len(one.draft.answers) == 10 and set(found.values()) == {often, seldom}
        assert not set(found) & set(re.findall(r"\d+\. (\S+)", example))
        shown = text.split("Some words of")[1].split("most often are:")[1]
        top = {word for word, _ in Counter(re.findall(r"\d+\. (\S+)", example)).most_common(10)}
        assert top == set(re.findall(r"\d+\. (\S+)", shown))


def test_frequent_words_follow_the_zeta_law():
    for text, one in prompts("fwe", 8192, samples=3):
        (noise, n), *others = Counter(text.split("\n")[1].split()).most_common()
        assert noise == "..." and [word for word, _ in others[:3]] == one.draft.answers
        counts = [count for _, count in others]
        assert counts[0] > counts[1] > counts[2] > counts[3]
        assert all(abs(count - n / rank**2) <= 1.01 for rank, count in enumerate(counts[:10], 2))


def test_made_questions_have_one_answer_in_the_documents():
    for text, one in prompts("qa_1"):
        thing, person = re.search(r"What is the favourite (\w+) of ([A-Z]\w+ \w+)\?\nAnswer:$", text).groups()
        assert re.findall(rf"The favourite {thing} of {person} is ([a-z ]+)\.", text) == one.draft.answers
        assert text.count("Document ") == text.count("The favourite ") > 1
    for text, one in prompts("qa_2"):
        thing, who = re.search(r"the favourite (\w+) of the neighbour of (\w+ \w+)\?\nAnswer:$", text).groups()
        [neighbour] = re.findall(rf"(\w+ \w+) is the neighbour of {who}\.", text)
        assert re.findall(rf"The favourite {thing} of {neighbour} is ([a-z ]+)\.", text) == one.draft.answers


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TASKS)
def test_prompt_and_answer_fill_the_length(name, tokenizer):
    tokenizer = TOKENIZERS[tokenizer]
    least = shortest(task(name), tokenizer, 1000, 3)
    assert least == shortest(task(name), tokenizer, 3000, 3)
    with pytest.raises(ValueError, match=f"got {least - 1:,}; "):
        list(draw(task(name), tokenizer, least - 1, 3))
    for length in (least, 9000):
        assert shortest(task(name), tokenizer, length, 3) <= length
        for text, one in prompts(name, length, 3, tokenizer=tokenizer):
            used = len(one.tokens) + one.room
            assert used <= length and one.room >= TASKS[name][1] and one.tokens.dtype == np.int64
            assert length < 9000 or used > 0.9 * length
            assert np.array_equal(tokenizer.encode(text), one.tokens)
    with pytest.raises(ValueError, match=rf"{name}: expected a length of .* tokens or more, .*, got 90; "):
        list(draw(task(name), tokenizer, 90, 3))


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_a_function_of_their_arguments(name):
    first, again, other = ([text for text, _ in prompts(name, 2500, 3, seed=seed)] for seed in (0, 0, 1))
    assert first == again and len({*first, *other}) == 6
    longer = [one.draft.answers for _, one in prompts(name, 5000, 3)]
    assert longer == [one.draft.answers for _, one in prompts(name, 2500, 3)], "another length asks the same"


def test_a_long_prompt_is_tokenized_a_few_times():
    class Counting:
        def __init__(self):
            self.inner, self.calls = TOKENIZERS["bytes"], 0

        def encode(self, text):
            self.calls += len(text) > 1000
            return self.inner.encode(text)

    for name in TASKS:
        counting = Counting()
        list(draw(task(name), counting, 32768, 4))
        assert counting.calls <= 4 * 6, name


@pytest.mark.parametrize("name", [name for name in NIAH if NIAH[name][1:3] == (1, 1)])
def test_a_model_that_copies_finds_the_needle(name):
    copier = Copier(257)
    copier.device = torch.device("cpu")
    [score] = ask(copier, TOKENIZERS["bytes"], [task(name)], [1200], samples=3)
    assert (score.task, score.length, score.samples, score.value) == (name, 1200, 3, 1.0) and score.tokens > 900


def test_a_model_that_knows_nothing_finds_none_and_batches_change_nothing(monkeypatch):
    model, seen, reported, tasks = small(), [], [], ruler(SOURCE, ["fwe", "niah_single_2"])
    whole = module.generate

    def spy(*arguments, **options):
        seen.append(whole(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(module, "generate", spy)
    for batch in (1, 4):
        scores = list(ask(model, TOKENIZERS["bytes"], tasks, [700], 4, 0, batch, 64, reported.append))
        assert [score.task for score in scores] == ["niah_single_2", "fwe"] and not any(s.value for s in scores)
    rows = [row for batch in seen for row in batch]
    assert rows[:8] == rows[8:] and sum(reported) == 2 * 2 * 4 * 700 and not model.training


def test_string_match_is_that_of_ruler():
    assert share("vt", "AB and\tCd", ["ab", "CD", "XY", "Z"]) == 0.5
    assert share("cwe", "", ["a"]) == 0.0
    assert share("qa_1", "It is TEA.", ["coffee", "tea"]) == 1.0 and share("qa_2", "milk", ["coffee", "tea"]) == 0.0
    assert share("niah_single_1", "123\x00\n45", ["12345"]) == 0.0


def test_questions_of_files(tmp_path):
    path = tmp_path / "squad.json"
    paragraphs = [
        {
            "context": f"Paragraph {i} says that the answer is {i}{i}{i}.",
            "qas": [
                {
                    "question": f"What does paragraph {i} say?",
                    "answers": [{"text": f"{i}{i}{i}", "answer_start": 5}] * 2,
                },
                {"question": "Is there none?", "answers": [], "is_impossible": True},
            ],
        }
        for i in range(10, 60)
    ]
    path.write_text(json.dumps({"version": "2", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    given = squad(path)
    assert len(given.questions) == len(given.paragraphs) == 50
    for text, one in prompts("qa_1", source=Source("text", (given, None))):
        number = re.search(r"Question: What does paragraph (\d+) say\?\nAnswer:$", text)[1]
        documents = re.findall(r"Document (\d+):\nParagraph (\d+) says that the answer is (\d+)\.", text)
        assert [int(i) for i, _, _ in documents] == list(range(1, len(documents) + 1)) and len(documents) > 20
        assert [answer for _, paragraph, answer in documents if paragraph == number] == one.draft.answers[:1]
        assert len({paragraph for _, paragraph, _ in documents}) == len(documents)

    path = tmp_path / "hotpot.json"
    content = [
        {"question": f"Q{i}?", "answer": f"A{i}", "context": [[f"T{i}", [f"One {i}.", " More."]], [f"U{i}", ["Two."]]]}
        for i in range(99)
    ]
    path.write_text(json.dumps(content))
    for text, one in prompts("qa_2", source=Source("text", (None, hotpot(path)))):
        number = re.search(r"Question: Q(\d+)\?", text)[1]
        assert (
            one.draft.answers == [f"A{number}"]
            and f"T{number}\nOne {number}. More.\n" in text
            and f"U{number}\nTwo." in text
        )


def test_a_question_of_squad_stands_among_its_own_article_first(tmp_path):
    """RULER hides a paragraph among all others of its article, and takes those of others where there is room."""
    path = tmp_path / "squad.json"
    answer = [{"text": "yes", "answer_start": 0}]
    articles = [
        {
            "paragraphs": [
                {"context": f"{name}{i}.", "qas": [{"question": f"{name}{i}?", "answers": answer}]} for i in range(30)
            ]
        }
        for name in "ABC"
    ]
    path.write_text(json.dumps({"data": articles}))
    given = squad(path)
    assert [(q.gold, len(q.near)) for q in given.questions[:2]] == [([0], 29), ([1], 29)]
    mixed = 0
    for text, one in prompts("qa_1", 1000, 12, source=Source("text", (given, None))):
        name, number = re.search(r"Question: ([ABC])(\d+)\?", text).groups()
        shown = re.findall(r"Document \d+:\n([ABC])(\d+)\.", text)
        own = [i for i, (article, _) in enumerate(shown) if article == name]
        assert len(own) == 30 < len(shown) == len({*shown}) and (name, number) in shown
        mixed += own[-1] > 35
    assert mixed > 6, "those of others stand among them, not behind"
    for text, _ in prompts("qa_1", 500, 6, source=Source("text", (given, None))):
        assert len({article for article, _ in re.findall(r"Document \d+:\n([ABC])(\d+)\.", text)}) == 1


@pytest.mark.parametrize(
    "read, content, says",
    [
        (squad, "{}", "expected SQuAD's JSON"),
        (squad, '{"data": [{"paragraphs": [{"context": "c"}]}]}', "there is no 'qas'"),
        (squad, '{"data": []}', "expected questions with an answer, got none"),
        (squad, "[]", "expected a JSON object, got list"),
        (hotpot, "{}", "expected a JSON list, got dict"),
        (hotpot, '[{"question": "q", "answer": "a"}]', "there is no 'context'"),
        (hotpot, '[{"question": "q", "answer": "a", "context": ["x"]}]', "expected HotpotQA's JSON"),
        (hotpot, "[3]", "expected HotpotQA's JSON"),
        (hotpot, "[]", "got none"),
    ],
)
def test_a_file_of_something_else(tmp_path, read, content, says):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"x.json: .*{says}" if "expected a JSON" not in says else says):
        read(path)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"unknown task of ruler 'vtt': did you mean 'vt'\?"):
        names(["vtt"])
    with pytest.raises(ValueError, match="text: expected a text"):
        Source(" \n")
    assert names(["vt", "niah_single_1"]) == ["niah_single_1", "vt"] and len(names()) == 13
    assert TEXT in Source(TEXT).stretch(3 * len(TEXT), np.random.default_rng(0))
