"""The stored passages that a model attends to."""

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._utils.spelling import warn
from ..memory import Damaged, Store
from ..retrieval.attach import Passage
from ._table import table

SHOWN = 70  # characters of a passage
MOST_WARNINGS = 20  # of damage, a line each


class Heard:
    """Adds up what the layers of a model give to stored passages; an `attach.Attached` calls it."""

    def __init__(self, store: Store):
        self.store = store
        self.calls: dict[int, int] = defaultdict(int)
        self.weights: dict[tuple[int, int, tuple[int, int]], float] = defaultdict(float)

    def __call__(self, passages: list[Passage]) -> None:
        for layer in {passage.layer for passage in passages}:
            self.calls[layer] += 1
        for passage in passages:
            self.weights[passage.layer, passage.document, passage.span] += passage.weight

    def passages(self, count: int) -> list[dict[str, Any]]:
        """Of each layer the `count` passages with the largest share of its attention, and where they stand."""
        names = defaultdict(lambda: "?", {document.id: document.name for document in self.store.documents()})
        passages = []
        for layer in sorted(self.calls):
            weights = [(weight, *key[1:]) for key, weight in self.weights.items() if key[0] == layer]
            for weight, document, (start, end) in sorted(weights, key=lambda entry: -entry[0])[:count]:
                room = max(0, SHOWN - (end - start)) // 2
                text, _ = self.store.passage(document, max(0, start - room), end + room)
                _, line = self.store.passage(document, start, end)
                share = weight / self.calls[layer]
                passages.append(
                    {"layer": layer, "attention": share, "document": names[document], "id": document}
                    | {"line": line, "start": start, "end": end, "text": text}
                )
        return passages

    def table(self, count: int) -> str:
        """`passages` as a person reads them."""
        rows = [
            [
                str(passage["layer"]),
                f"{passage['attention']:.1%}",
                visible(f"{shown(passage['document'])}:{passage['line']}"),
                visible(" ".join(passage["text"].split()))[:SHOWN],
            ]
            for passage in self.passages(count)
        ]
        if not rows:
            return "nothing that is stored was attended to"
        return table(["layer", "attention", "source and line", "passage"], rows)


@contextmanager
def naming_damage() -> Iterator[None]:
    """Each damage of a store is a line on standard error, up to `MOST_WARNINGS`; one more line counts the others."""
    count = 0
    with warnings.catch_warnings():
        plain = warnings.showwarning

        def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
            nonlocal count
            if not issubclass(category, Damaged):
                return plain(message, category, *where, **more)
            count += 1
            if count <= MOST_WARNINGS:
                warn(visible(" ".join(str(message).split())))
            return None

        warnings.showwarning = show
        warnings.simplefilter("always", Damaged)
        try:
            yield
        finally:
            if count > MOST_WARNINGS:
                more = f"{count - MOST_WARNINGS} more {'is' if count == MOST_WARNINGS + 1 else 'are'}"
                warn(f"and {more} damaged; see `solomonic memory verify`")


def shown(name: str) -> str:
    """The name of a document; of a file below this folder, its path from here, by which it can be named too."""
    here = os.path.join(os.getcwd(), "")
    return name.removeprefix(here) if name.startswith(here) and len(name) > len(here) else name


def visible(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
