"""RULER (arXiv 2404.06654): its thirteen tasks as text, for any model, at any length in tokens.

    niah_...    sentences "The secret number of quiet-mill is 4810932." in a text; one, several or all keys are asked
    vt          chains of assignments "VAR AXQPZ = 48109", "VAR LWOEI = VAR AXQPZ"; the variables of a value are asked
    cwe, fwe    the words that come most often in a list: ten of them, and three by a zeta law
    qa_1, qa_2  a question about one paragraph, or about two, among others

Tasks, their sizes and their scores are those of RULER, read in the port of
lm-evaluation-harness; the sentences, words and texts are this library's own, so that numbers of the two are not to be
compared (docs/evaluation.md says what differs). `prompts.py` fits the prompts to a length and asks them.
"""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from .._utils.spelling import unknown
from .prompts import Draft, TextTask
from .ruler_tasks import TASKS, Source


def ruler(source: Source, tasks: Sequence[str] | None = None) -> list[TextTask]:
    """The tasks of these names (None: all) in RULER's order, filled with `source`. ValueError for one that is not there."""
    return [
        TextTask(name, partial(draft, source=source), room, partial(_score, name=name))
        for name, (draft, room) in ((name, TASKS[name]) for name in names(tasks))
    ]


def names(tasks: Sequence[str] | None = None) -> list[str]:
    """`tasks` in RULER's order, all where None. ValueError for one that is not there."""
    for name in tasks or ():
        if name not in TASKS:
            raise unknown("task of ruler", name, TASKS)
    return [name for name in TASKS if tasks is None or name in tasks]


def share(name: str, text: str, answers: Sequence[str]) -> float:
    """RULER's string match: the share of the answers that `text` holds, or for qa whether it holds any, in any case."""
    text = re.sub(r"[\x00-\x1f]", "\n", text).lower()
    held = [answer.lower() in text for answer in answers]
    return float(any(held) if name.startswith("qa") else np.mean(held))


def _score(text: str, draft: Draft, name: str) -> float:
    return share(name, text, draft.answers)


__all__ = ["TASKS", "Source", "names", "ruler", "share"]
