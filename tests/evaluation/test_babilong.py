"""BABILong: each prompt is read back, and the story found in it."""

import re

import numpy as np
import pytest
import torch

from solomonic.data.tokenizer import Tokenizer
from solomonic.evaluation.babilong import babi, babilong, right, sentences
from solomonic.evaluation.prompts import ask, draw, shortest
from solomonic.evaluation.ruler import Source

from .models import Copier, bpe

BOOK = (
    "CHAPTER I\n\nMr. Brand had not slept. “Who is there?” he\ncalled out to J. Castell; nobody answered! The night was\n"
    "long (or so it seemed.) Then came the 3.15 from Cork, late as ever... and it\nwas gone again.\n\n"
) * 20
QA1 = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Daniel went back to the hallway.
5 Mary went to the office.
6 Where is John? \thallway\t2
1 Sandra journeyed to the garden.
2 Where is Sandra? \tgarden\t1
"""
BYTES = Tokenizer.for_bytes()
LISTS = {"nothing", "apple", "milk", "football"}
COUNTS = {"none", "one", "two"}
ROOMS = {"bathroom", "hallway", "garden", "office"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qa1_single-supporting-fact_test.txt").write_text(QA1)
    (tmp_path / "qa1_single-supporting-fact_train.txt").write_text(QA1.replace("Sandra", "Bill"))
    (tmp_path / "qa10_indefinite-knowledge_test.txt").write_text(
        "1 Bill is in the park.\n2 Is Bill in the park?\tyes\t1\n3 Is Bill in the school?\tno\t1\n"
        "4 Is Bill at sea?\tmaybe\t1\n"
    )
    (tmp_path / "LICENSE.txt").write_text("free")
    return tmp_path


def text_tasks(folder, book=BOOK, names=None):
    return babilong(babi(folder, names), Source(book))


def test_a_question_has_the_facts_before_it_in_their_order(folder):
    tasks = babi(folder)
    assert list(tasks) == ["qa1", "qa10"], "by number"
    assert [(len(s.facts), s.question, s.answer) for s in tasks["qa1"].stories] == [
        (2, "Where is Mary?", "bathroom"),
        (4, "Where is John?", "hallway"),
        (1, "Where is Sandra?", "garden"),
    ]
    assert tasks["qa1"].stories[1].facts[2:] == ["Daniel went back to the hallway.", "Mary went to the office."]
    assert [s.question for s in tasks["qa1"].examples] == ["Where is Bill?", "Where is Mary?"], (
        "the shortest of training"
    )
    assert tasks["qa1"].answers == {"bathroom", "hallway", "garden"}
    assert [s.answer for s in tasks["qa10"].examples] == ["yes", "no"]
    assert [s.answer for s in tasks["qa10"].stories] == ["maybe"], "without a training file, examples are not asked"
    assert list(babi(folder, ["qa10"])) == ["qa10"]


@pytest.mark.parametrize("tokenizer", [BYTES, bpe()], ids=["bytes", "bpe"])
def test_the_story_stands_between_whole_sentences_of_the_book(folder, tokenizer):
    [task, _] = text_tasks(folder)
    stories = {story.question: story for story in babi(folder)["qa1"].stories}
    of_the_book, depths = set(sentences(BOOK)), []
    for one in draw(task, tokenizer, 3000, 12):
        assert len(one.tokens) + one.room <= 3000 and len(one.tokens) + one.room > 2700
        text = tokenizer.decode(one.tokens)
        told, question = re.fullmatch(
            r".*<context>\n(.*)\n</context>\nQuestion: (.*)\nAnswer:", text, re.DOTALL
        ).groups()
        assert one.draft.answers == [stories[question].answer] and one.draft.question == question
        places = [told.index(fact) for fact in stories[question].facts]
        assert places == sorted(places)
        depths += [place / len(told) for place in places]
        background = told
        for fact in stories[question].facts:
            background = background.replace(fact, "\n", 1)
        for part in background.split("\n"):
            while part := part.strip():
                sentence = max((s for s in of_the_book if part.startswith(s)), key=len)
                part = part[len(sentence) :]
    assert min(depths) < 0.25 and max(depths) > 0.75 and 0.3 < np.mean(depths) < 0.7


def test_the_same_questions_are_asked_at_every_length(folder):
    [task, _] = text_tasks(folder)
    short, long, other = (
        [one.draft.question for one in draw(task, BYTES, length, 8, seed)]
        for length, seed in ((900, 0), (4000, 0), (900, 1))
    )
    assert short == long != other
    least = shortest(task, BYTES, 900, 8)
    assert least == shortest(task, BYTES, 9000, 8)
    with pytest.raises(
        ValueError, match=f"qa1: expected a length of .* tokens or more, .*, got {least - 1}; take a larger"
    ):
        list(draw(task, BYTES, least - 1, 8))
    [exact] = draw(task, BYTES, len(BYTES.encode(next(draw(task, BYTES, 900, 1)).draft.text(0))) + 25, 1)
    assert "<context>\n" in BYTES.decode(exact.tokens), "no room for the book is enough"


def test_sentences_of_a_book():
    assert sentences(BOOK)[:6] == [
        "CHAPTER I",
        "Mr. Brand had not slept.",
        "“Who is there?” he called out to J. Castell; nobody answered!",
        "The night was long (or so it seemed.)",
        "Then came the 3.15 from Cork, late as ever... and it was gone again.",
        "CHAPTER I",
    ]
    assert sentences("one line\nwithout an end") == ["one line without an end"] and sentences(" \n ") == []


@pytest.mark.parametrize(
    "text, answer, question, answers, is_right",
    [
        (" the Hallway. Then the garden.", "hallway", "Where is Mary?", ROOMS, True),
        (" the hallway or the garden", "hallway", "Where is Mary?", ROOMS, False),
        (" the garden.", "hallway", "Where is Mary?", ROOMS, False),
        ("", "hallway", "Where is Mary?", ROOMS, False),
        (" hallway\n</example>\n\n<example>\nMary went to the garden.", "hallway", "Where is Mary?", ROOMS, True),
        (" hallway\nQuestion: Is it the garden?", "hallway", "Where is Mary?", ROOMS, True),
        (" Before the office it was in the garden", "garden", "Where was it before the office?", ROOMS, True),
        (" none", "none", "How many?", COUNTS, True),
        (" one", "none", "How many?", COUNTS, False),
        (" someone has two", "two", "How many?", COUNTS, True),
        (" milk, apple", "apple,milk", "What does she carry?", LISTS, True),
        (" milk", "apple,milk", "What does she carry?", LISTS, False),
        (" milk, apple, football", "apple,milk", "What does she carry?", LISTS, False),
        (" s,w", "s,w", "How do you go?", {"s,w", "n,n"}, True),
    ],
)
def test_an_answer_is_the_only_one_that_is_named(text, answer, question, answers, is_right):
    assert right(text, answer, question, answers) is is_right


def test_answers_of_lists_are_their_words(tmp_path):
    (tmp_path / "qa8_lists-sets_test.txt").write_text("1 A.\n2 B?\tnothing\t1\n3 C?\tapple,milk\t1\n4 D?\tMilk\t1\n")
    (tmp_path / "qa19_path-finding_test.txt").write_text("1 A.\n2 B?\ts,w\t1\n3 C?\tn,n\t1\n4 D?\ts,w\t1\n")
    assert babi(tmp_path)["qa8"].answers == {"nothing", "apple", "milk"}
    assert babi(tmp_path)["qa19"].answers == {"s,w", "n,n"}


def test_a_model_that_copies_gives_the_answer_of_an_example(folder):
    """The longest match of a question is an example's: stories with the answer of neither example are wrong."""
    copier, [task, _] = Copier(257), text_tasks(folder)
    copier.device = torch.device("cpu")
    [score] = ask(copier, BYTES, [task], [900], samples=12)
    shown = [story.answer for story in babi(folder)["qa1"].examples]
    asked = [one.draft.answers[0] for one in draw(task, BYTES, 900, 12)]
    assert (score.task, score.length, score.samples) == ("qa1", 900, 12)
    assert score.value == pytest.approx(np.mean([answer in shown for answer in asked])) and 0 < score.value < 1


@pytest.mark.parametrize(
    "files, names, says",
    [
        ({}, None, "expected bAbI's tasks, qa1_..._test.txt and so on, got a folder without any"),
        ({"qa1_x_train.txt": QA1}, None, "got a folder without any"),
        ({"qa1_x_test.txt": QA1}, ["qa2"], "unknown task of bAbI in .*qa2.*expected qa1"),
        (
            {"qa1_x_test.txt": QA1, "qa1_y_test.txt": QA1},
            None,
            "expected one test file of qa1, got qa1_x_test.txt and qa1_y",
        ),
        ({"qa1_x_test.txt": ""}, None, "qa1_x_test.txt: expected questions, got a file without any"),
        ({"qa1_x_test.txt": "1 Mary moved.\n"}, None, "expected questions"),
        (
            {"qa1_x_test.txt": "Mary moved.\n"},
            None,
            "qa1_x_test.txt, line 1: expected bAbI's form, .*, got 'Mary moved.'",
        ),
        ({"qa1_x_test.txt": "1 Mary moved.\n2 Where?\t\t1"}, None, "line 2: expected bAbI's form"),
        ({"qa1_x_test.txt": "1 A.\n2 B?\tc\t1\n3 D?\te\t1"}, None, "expected more questions than the 2 that are shown"),
        ({"qa1_x_test.txt": b"1 \xff\xfe."}, None, "qa1_x_test.txt: expected a file of bAbI, got one that is not text"),
    ],
)
def test_a_folder_of_something_else(tmp_path, files, names, says):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says):
        babi(tmp_path, names)
