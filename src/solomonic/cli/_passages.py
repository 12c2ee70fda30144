"""Which stored passages a model attends to, as a person reads it."""

import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ..attach import Passage
from ..memory import Damaged, Store
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

    def table(self, count: int) -> str:
        """Of each layer the `count` passages with the largest share of its attention, and where they stand."""
        names = defaultdict(lambda: "?", {document.id: document.name for document in self.store.documents()})
        rows = []
        for layer in sorted(self.calls):
            found = [(weight, *key[1:]) for key, weight in self.weights.items() if key[0] == layer]
            for weight, document, (start, end) in sorted(found, key=lambda entry: -entry[0])[:count]:
                room = max(0, SHOWN - (end - start)) // 2
                text, _ = self.store.passage(document, max(0, start - room), end + room)
                _, line = self.store.passage(document, start, end)
                share = f"{weight / self.calls[layer]:.1%}"
                rows.append(
                    [str(layer), share, visible(f"{names[document]}:{line}"), visible(" ".join(text.split()))[:SHOWN]]
                )
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
                print(f"solomonic: {visible(' '.join(str(message).split()))}", file=sys.stderr)

        warnings.showwarning = show
        warnings.simplefilter("always", Damaged)
        try:
            yield
        finally:
            if told > TOLD:
                print(f"solomonic: and {told - TOLD} more are damaged; see `solomonic memory verify`", file=sys.stderr)


def visible(text: str) -> str:
    """Without what a terminal would take for an order."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
