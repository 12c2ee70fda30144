"""BABILong (arXiv 2406.10149): questions of bAbI whose stories are scattered through a book, at any length in tokens.

The sentences of a story stand in their order between whole sentences of the book, each in a gap drawn uniformly; the
question comes at the end. An answer is right where the first sentence that is generated names the right answer and no
other one of the task's answers, those left aside that the question itself names.

Source of the definition: github.com/booydar/babilong, `babilong_utils.py` and `metrics.py`; instructions and examples are
this library's own. docs/evaluation.md says what differs.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .._utils.spelling import shortened, unknown
from .prompts import Draft, TextTask, between
from .ruler_tasks import Source

ROOM = 20  # tokens to generate, or more where the answer takes more
EXAMPLES = 2
FILE = re.compile(r"(qa[0-9]+)_.*test\.txt")
SENTENCE_ENDS = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\b[A-Z])[.!?][\"'”’)\]]*(?=\s+[\"'“‘(\[_]*[A-Z0-9])"
)
INSTRUCTION = (
    "Some sentences of the text below are facts about persons and things; the rest has nothing to do with them. Answer the "
    "question at its end by the facts alone. Of two facts that differ the later one holds."
)


@dataclass(frozen=True)
class Story:
    """A question, and the facts that were told before it, in their order."""

    facts: list[str]
    question: str
    answer: str


@dataclass(frozen=True)
class BabiTask:
    """`stories` are asked, `examples` are shown before, `answers` are all that the task has, in lower case."""

    stories: list[Story]
    examples: list[Story]
    answers: frozenset[str]


def babi(folder: str | Path, names: Sequence[str] | None = None) -> dict[str, BabiTask]:
    """The tasks of a folder of bAbI, qa1_..._test.txt and so on, by number; of these `names` only, unless None.

    Examples are the shortest stories of qa1_..._train.txt, or where that is not there of the test file, which then does not
    ask them. ValueError for a folder without tasks, an unknown name, and a file in another form.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "it is a file" if folder.exists() else "it is not there"
        raise ValueError(f"{folder}: expected a folder of bAbI's tasks, qa1_..._test.txt and so on; {problem}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := FILE.fullmatch(path.name):
            if match[1] in files:
                raise ValueError(
                    f"{folder}: expected one test file of {match[1]}, got {files[match[1]].name} and {path.name}"
                )
            files[match[1]] = path
    if not files:
        raise ValueError(
            f"{folder}: expected bAbI's tasks, qa1_..._test.txt and so on, got a folder without any; pass the one that they "
            "are in"
        )
    for name in names or ():
        if name not in files:
            raise unknown(f"task of bAbI in {folder}", name, files)
    ordered = sorted((name for name in files if names is None or name in names), key=lambda name: int(name[2:]))
    return {name: _task(files[name]) for name in ordered}


def babilong(tasks: dict[str, BabiTask], source: Source) -> list[TextTask]:
    """The tasks of `babi`, hidden in the text of `source`."""
    source = replace(source, text=source.text.rstrip() + "\n\n")  # a sentence ends where the text begins anew
    return [
        TextTask(name, partial(_draft, source=source, task=task), ROOM, partial(_score, answers=task.answers))
        for name, task in tasks.items()
    ]


def right(text: str, answer: str, question: str, answers: Iterable[str]) -> bool:
    """Whether the first sentence of `text` names `answer`, all of its words where it is a list, and no other of `answers`.

    Those that the question names do not count; nor does what follows a tag or another question. Case is no matter.
    """
    text = re.split(r"\.|<context>|<example>|question", text.lower())[0]
    answers = {one.lower() for one in answers}
    whole = any(one != other and one in other for one in answers for other in answers)  # "none" is not "one", too

    def named(words: str) -> set[str]:
        return {one for one in answers if (re.search(rf"\b{re.escape(one)}\b", words) if whole else one in words)}

    return named(text) - named(question.lower()) == set(_words(answer.lower()))


def sentences(text: str) -> list[str]:
    """The sentences of a text, whatever lines they are on; a heading, or whatever stands between blank lines, ends too."""
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return [one.strip() for block in blocks for one in SENTENCE_ENDS.sub(r"\g<0>\n", block).split("\n") if one.strip()]


def _draft(rng: np.random.Generator, length: int, source: Source, task: BabiTask) -> Draft:
    story = task.stories[int(rng.integers(len(task.stories)))]
    depths = np.sort(rng.random(len(story.facts)))
    background = sentences(source.stretch(8 * length + 1000, rng))[1:-1]  # both ends are cut
    shown = "".join(f"<example>\n{_told(one)} {one.answer}\n</example>\n\n" for one in task.examples)

    def text(n: int) -> str:
        told = " ".join(between(background[:n], story.facts, depths))
        return f"{INSTRUCTION}\n\n{shown}<context>\n{told}\n</context>\nQuestion: {story.question}\nAnswer:"

    return Draft(text, [story.answer], f" {story.answer}", len(background), 0, story.question)


def _told(story: Story) -> str:
    return f"{' '.join(story.facts)}\nQuestion: {story.question}\nAnswer:"


def _score(text: str, draft: Draft, answers: frozenset[str]) -> float:
    return float(right(text, draft.answers[0], draft.question, answers))


def _task(test: Path) -> BabiTask:
    stories, train = _stories(test), test.with_name(test.name.removesuffix("test.txt") + "train.txt")
    others = _stories(train) if train.is_file() else stories
    examples: dict[str, Story] = {}
    for story in sorted(others, key=lambda story: len(story.facts)):
        if story.answer not in examples and len(examples) < EXAMPLES:
            examples[story.answer] = story
    asked = [story for story in stories if not any(story is one for one in examples.values())]
    if not asked:
        raise ValueError(f"{test}: expected more questions than the {len(examples)} that are shown as examples")
    answers = (word for story in (*stories, *others) for word in _words(story.answer.lower()))
    return BabiTask(asked, list(examples.values()), frozenset(answers))


def _words(answer: str) -> list[str]:
    """The answers that a list, "apple,milk", is of; two letters, "n,w", are one answer, a path."""
    return answer.split(",") if len(answer) > 3 else [answer]


def _stories(path: Path) -> list[Story]:
    """The questions of a file of bAbI, one after the other, each with all facts of its story before it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a file of bAbI, got one that is not text") from None
    stories: list[Story] = []
    facts: list[str] = []
    for i, line in enumerate(lines, 1):
        number, _, rest = line.partition(" ")
        sentence, *asked = (part.strip() for part in rest.split("\t"))
        if not (number.isdecimal() and sentence) or (asked and not asked[0]):
            raise ValueError(
                f"{path}, line {i}: expected bAbI's form, a number and a sentence, and behind a question a tab and the "
                f"answer, got {shortened(line)!r}"
            )
        if number == "1":
            facts = []
        if asked:
            stories.append(Story([*facts], sentence, asked[0]))
        else:
            facts.append(sentence)
    if not stories:
        raise ValueError(f"{path}: expected questions, got a file without any")
    return stories


__all__ = ["BabiTask", "Story", "babi", "babilong", "right", "sentences"]
