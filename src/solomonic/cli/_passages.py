"""Which stored passages a model attends to, as a person reads it."""

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
TOLD = 20  # damages, a line each


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
            found = [(weight, *key[1:]) for key, weight in self.weights.items() if key[0] == layer]
            for weight, document, (start, end) in sorted(found, key=lambda entry: -entry[0])[:count]:
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
                str(one["layer"]),
                f"{one['attention']:.1%}",
                visible(f"{shown(one['document'])}:{one['line']}"),
                visible(" ".join(one["text"].split()))[:SHOWN],
            ]
            for one in self.passages(count)
        ]
        if not rows:
            return "nothing that is stored was attended to"
        return table(["layer", "attention", "source and line", "passage"], rows)


@contextmanager
def naming_damage() -> Iterator[None]:
    """What is damaged in a store is a line each on standard error, up to `TOLD`, and the number of the others."""
    told = 0
    with warnings.catch_warnings():
        plain = warnings.showwarning

        def show(message, category, *where, **more):
            nonlocal told
            if not issubclass(category, Damaged):
                return plain(message, category, *where, **more)
            told += 1
            if told <= TOLD:
                warn(visible(" ".join(str(message).split())))
            return None

        warnings.showwarning = show
        warnings.simplefilter("always", Damaged)
        try:
            yield
        finally:
            if told > TOLD:
                more = f"{told - TOLD} more {'is' if told == TOLD + 1 else 'are'}"
                warn(f"and {more} damaged; see `solomonic memory verify`")


def shown(name: str) -> str:
    """The name of a document; of a file below this folder, its path from here, by which it can be named too."""
    here = os.path.join(os.getcwd(), "")
    return name.removeprefix(here) if name.startswith(here) and len(name) > len(here) else name


def visible(text: str) -> str:
    """Without what a terminal would take for an order."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
