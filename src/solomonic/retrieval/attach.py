"""A model with a long-term store: what leaves its windows is kept on disk, and comes back when a query matches it.

    S(p)   the tokens j < p + block - window of a document that passed the admission threshold: score_j >= least
    R(i)   of each head, the k tokens of the store with the largest logits for query i

At every multiple p of `block` the layer writes what leaves its window before the next one: S(p) is a function of the past
alone, the same however the input was cut into calls. In one softmax with all else, query i attends to R(i), but for
tokens of its own document that it sees in its window (i - window < j) or in the eidetic memory (j in M(i)). With every
token kept and found, that is B'MOJO with an eidetic memory without bounds; `tests/memory` holds it to that.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.folder import fingerprint
from ..memory import DocumentWriter, Store
from ..mixers import State
from ..model import LanguageModel
from .clock import DocumentClock
from .layer import LONGEST, MOST, LayerStore, Passage
from .schema import storing_layers

SHARPEST = 1000


class Attached:
    """`model` with `store`: it is called as the model is, and serves wherever a model serves that is not trained.

    k: tokens that each head finds for each query, 0 for a store that is written and never read.
    rate: how much a stored token's logit falls in a unit of the store's clock (`memory.Store`); docs/decay.md measures it.
    offset: added to the logit of every stored token; below 0 where a model attends too much to the store.
    sharpness: how many times as far apart the logits are of what a query found. What it gives to the store as a whole stays
        as it is; above 1 more of it goes to the best, as a store wants that has more to confuse than a row of training.
    only: ids of documents to find tokens of, None for all.
    own: the document in the store that the state is of, if any: tokens that a query sees already are not found again.
    newest: only the last so many tokens of `own` before the block are found, without the store's index; None for all.
    writing: the document to write what leaves the windows to; it is `own` then. B is 1 with it.
    spans: the byte spans (M, 2) of the document's tokens at positions (M,), for what is written; None: a byte a token.
    clock: what the clock of the document that is written runs by, one of `clock.CLOCKS`.
    watch: called with the `Passage`s of every layer of every call.
    used: documents of which tokens were found, so far.
    ValueError for a store of another model.
    """

    def __init__(
        self,
        model: LanguageModel,
        store: Store,
        *,
        k: int = 4,
        rate: float = 0.0,
        offset: float = 0.0,
        sharpness: float = 1.0,
        only: Collection[int] | None = None,
        own: int | None = None,
        newest: int | None = None,
        writing: DocumentWriter | None = None,
        spans: Callable[[Tensor], Tensor] | None = None,
        clock: str = "change",
        watch: Callable[[list[Passage]], None] | None = None,
    ):
        if type(k) is not int or not 0 <= k <= MOST:
            raise ValueError(f"k: expected a whole number from 0 to {MOST}, got {k!r}")
        if not 0 < sharpness <= SHARPEST:
            raise ValueError(f"sharpness: expected a number above 0, and {SHARPEST} at most, got {sharpness!r}")
        if newest is not None and (type(newest) is not int or newest < 1):
            raise ValueError(f"newest: expected a whole number >= 1, or None, got {newest!r}")
        if newest is not None and own is None and writing is None:
            raise ValueError(
                "newest: expected a document of the store's to find the last tokens of; pass own or writing"
            )
        if store.schema.model != fingerprint(model):
            raise ValueError("store: expected one of this model, got one of another; make one, or use its own model")
        self.model, self.store, self.k, self.rate, self.only = model, store, k, rate, only
        self.offset, self.sharpness, self.newest, self.watch = offset, sharpness, newest, watch
        self._begin(own, writing, spans, clock)

    def write(self, writing: DocumentWriter, spans: Callable[[Tensor], Tensor] | None = None, k: int = 0) -> "Attached":
        """The same model and store, to read the document `writing` into it, from its first token on."""
        other = copy.copy(self)
        other.k = k
        other._begin(None, writing, spans, self.clock.kind)
        return other

    def _begin(
        self,
        own: int | None,
        writing: DocumentWriter | None,
        spans: Callable[[Tensor], Tensor] | None,
        clock: str,
    ) -> None:
        self.own = own if writing is None else writing.id
        self.writing, self.spans = writing, spans
        self.used: set[int] = set()
        self._after_tick: list[Callable[[], None]] = []
        configs = storing_layers(self.model)
        self._layers = [LayerStore(self, schema, configs[schema.layer]) for schema in self.store.schema.layers]
        self.clock = DocumentClock(clock, max(layer.config.window + layer.config.block_size for layer in self._layers))

    def __getattr__(self, name: str) -> Any:
        if name == "model" or name.startswith("__"):  # before there is one, while a copy is made
            raise AttributeError(name)
        return getattr(self.model, name)

    def __call__(
        self, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `LanguageModel.forward`. With `own`, all rows are of that document, at the same position."""
        if self.own is not None:
            self._check_own(tokens, state, mask, segments)
        logits = []
        for first, last in self.parts(tokens.shape[1], state):
            real, documents = (None if x is None else x[:, first:last] for x in (mask, segments))
            stores: list[LayerStore | None] = [None] * len(self.model.blocks)
            for layer in self._layers:
                stores[layer.schema.layer] = layer
                layer.begin(state)
            x = self.model.embed(tokens[:, first:last], real)
            x, state = self.model.hidden(x, state, mask=real, segments=documents, stores=stores)
            logits.append(self.model.head(x))
            if self.writing is not None:
                self.clock.tick(tokens[0, first:last], logits[-1][0].detach())
                for write in self._after_tick:
                    write()
                self._after_tick.clear()
        assert state is not None
        return torch.cat(logits, 1) if len(logits) > 1 else logits[0], state

    def after_tick(self, write: Callable[[], None]) -> None:
        """`write` is called when the clock has run over the tokens of this part of the call."""
        self._after_tick.append(write)

    def saved(self) -> dict[str, Tensor]:
        """What `restore` needs, besides the model's state, to go on writing after an interruption."""
        return self.clock.saved()

    def restore(self, saved: dict[str, Tensor]) -> None:
        self.clock.restore(saved)

    def finish(self, state: State) -> None:
        """Write what is still in the windows where the document ends."""
        for layer in self._layers:
            layer.finish(state)

    def _check_own(self, tokens: Tensor, state: State | None, mask: Tensor | None, segments: Tensor | None) -> None:
        position = torch.zeros(1) if state is None else state["position"]
        if segments is not None or (mask is not None and not mask.all()) or (position != position[0]).any():
            raise ValueError("expected rows of one document that have read equally far, without padding, got others")
        if self.writing is not None and tokens.shape[0] != 1:
            raise ValueError(f"expected one row to write to the store, got {tokens.shape[0]}")

    def parts(self, length: int, state: State | None) -> Iterator[tuple[int, int]]:
        """(first, last) of the parts that a call of `length` tokens is cut into.

        Where a document of the store is read, a part ends at each boundary of a block: there the store changes.
        """
        longest = max(1, min(LONGEST, MOST // max(self.k, 1)))
        cuts = set(range(longest, length, longest)) if self.k else set()
        if self.k and self.own is not None:
            at = 0 if state is None else int(state["position"][0])
            for block in {layer.config.block_size for layer in self._layers}:
                cuts |= {cut - at for cut in range(at // block * block + block, at + length, block)}
        ends = sorted(cuts | {length})
        return zip([0, *ends], ends)


__all__ = ["LONGEST", "MOST", "Attached", "Passage"]
