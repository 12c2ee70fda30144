"""Questions about paragraphs, from the files of SQuAD and HotpotQA."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._utils import jsontext


@dataclass(frozen=True)
class Question:
    """A question of SQuAD or HotpotQA: any of `answers` is right; `gold` are the paragraphs that it is about.

    `near` are others of the same article, among which RULER hides those that it is about.
    """

    text: str
    answers: list[str]
    gold: list[int]
    near: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Questions:
    paragraphs: list[str]
    questions: list[Question]


def squad(path: str | Path) -> Questions:
    """The questions that have an answer, of a JSON file of SQuAD 1.1 or 2.0. ValueError for another."""
    content: Any = jsontext.read(path, dict)
    paragraphs: dict[str, int] = {}
    found = []
    try:
        for article in content["data"]:
            texts = dict.fromkeys(str(paragraph["context"]) for paragraph in article["paragraphs"])
            own = [paragraphs.setdefault(text, len(paragraphs)) for text in texts]
            for paragraph in article["paragraphs"]:
                gold = paragraphs[str(paragraph["context"])]
                for one in paragraph["qas"]:
                    if answers := [str(answer["text"]) for answer in one["answers"] if answer["text"]]:
                        near = [i for i in own if i != gold]
                        found.append(Question(str(one["question"]), answers, [gold], near))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected SQuAD's JSON (data, paragraphs, context, qas); {_lacks(error)}") from None
    return _some(path, paragraphs, found)


def hotpot(path: str | Path) -> Questions:
    """The questions of a JSON file of HotpotQA (distractor), each with all of its paragraphs. ValueError for another."""
    content: Any = jsontext.read(path, list)
    paragraphs: dict[str, int] = {}
    found = []
    try:
        for one in content:
            own = [f"{title}\n{''.join(sentences)}" for title, sentences in one["context"]]
            gold = [paragraphs.setdefault(paragraph, len(paragraphs)) for paragraph in dict.fromkeys(own)]
            found.append(Question(str(one["question"]), [str(one["answer"])], gold))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected HotpotQA's JSON (question, answer, context); {_lacks(error)}") from None
    return _some(path, paragraphs, found)


def _lacks(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _some(path: str | Path, paragraphs: dict[str, int], found: list[Question]) -> Questions:
    if not found:
        raise ValueError(f"{path}: expected questions with an answer, got none; pass another file")
    return Questions(list(paragraphs), found)


__all__ = ["Question", "Questions", "hotpot", "squad"]
