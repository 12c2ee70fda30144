"""Several readers of one text, mixed token by token by how well each has predicted it lately.

A store that helps after a source comes back misleads after a new one, where a model alone does better. Which source comes
is not known beforehand; so all readers read, and

    p(x) = sum_i w_i p_i(x)            before the token x
    w_i <- (1 - share) w_i p_i(x) / p(x) + share / n          after it

the fixed share of M. Herbster and M. K. Warmuth (Tracking the Best Expert, Machine Learning 32, 1998). Over T tokens the
mixture has at most m ln(n (1 - share) / share) - T ln(1 - share) + ln n nats more than the best of n readers, selected
again at m tokens of the text with hindsight. docs/decay.md measures it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..mixers import State
from ..model import LanguageModel, state_tensors
from .attach import Attached


class Hedged:
    """`readers` as one: it is called as a model is, and serves wherever a model serves that is not trained.

    readers: of one vocabulary, such as a model alone, with a store, and with a store that fades. One of them may write to
    the store in which others find tokens (`Attached(own=...)`).
    share: the share of its weight that a reader gives to all of them at every token, in (0, 1).
    Logits are log probabilities. The state has the states of all readers.
    """

    def __init__(self, readers: Sequence[LanguageModel | Attached], share: float = 0.03):
        if len(readers) < 2:
            raise ValueError(f"expected two readers or more to mix, got {len(readers)}")
        if not 0 < share < 1:
            raise ValueError(f"share: expected a number in (0, 1), got {share!r}")
        if len(sizes := {reader.config.vocab_size for reader in readers}) > 1:
            raise ValueError(f"expected readers of one vocabulary, got sizes {sorted(sizes)}")
        if sum(map(_writes, readers)) > 1:
            raise ValueError("expected one reader that writes, got several; the others may find what it writes")
        self.readers, self.share = list(readers), share
        self._order = sorted(range(len(readers)), key=lambda i: not _writes(readers[i]))  # the one that writes is first

    def __getattr__(self, name: str) -> Any:
        if name == "readers" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.readers[0], name)

    def init_state(
        self,
        batch: int,
        length: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> State:
        """As `LanguageModel.init_state`."""
        states, n = [reader.init_state(batch, length, device, dtype) for reader in self.readers], len(self.readers)
        weight = torch.full((batch, n), 1 / n, device=device)
        last = torch.zeros(batch, n, self.config.vocab_size, device=device)
        return {name: states[0][name] for name in ("position", "segment")} | {
            "weight": weight,
            "last": last,
            "readers": states,
        }

    def state_bytes(self, length: int, batch: int = 1) -> int:
        """As `LanguageModel.state_bytes`."""
        state = self.init_state(batch, length, "meta", self.embedding.weight.dtype)
        return sum(t.numel() * t.element_size() for _, t in state_tensors(state))

    def __call__(
        self, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `LanguageModel.forward`, of rows without packed documents."""
        parts = []
        for first, last in self._parts(tokens.shape[1], state):
            real = None if mask is None else mask[:, first:last]
            logits, state = self._call(tokens[:, first:last], state, real)
            parts.append(logits)
        assert state is not None
        return torch.cat(parts, 1), state

    def _parts(self, length: int, state: State | None) -> list[tuple[int, int]]:
        """(first, last) of the parts of a call: what one reader writes in a part, others find in the next."""
        ends = {length}
        for i, reader in enumerate(self.readers):
            if isinstance(reader, Attached) and reader.own is not None:
                parts = reader.parts(length, None if state is None else state["readers"][i])
                ends |= {last for _, last in parts}
        return list(zip([0, *sorted(ends)], sorted(ends)))

    def _call(self, tokens: Tensor, state: State | None, mask: Tensor | None) -> tuple[Tensor, State]:
        (B, T), n = tokens.shape, len(self.readers)
        states: list[State | None] = [None] * n if state is None else list(state["readers"])
        of_readers: dict[int, Tensor] = {}
        for i in self._order:
            logits, states[i] = self.readers[i](tokens, states[i], mask=mask)
            of_readers[i] = logits.float().log_softmax(-1)
        log_p = torch.stack([of_readers[i] for i in range(n)], 2)  # (B, T, n, V)
        if state is None:
            weight, last = log_p.new_full((B, n), 1 / n), torch.zeros_like(log_p[:, 0])
            started = torch.zeros(B, dtype=torch.bool, device=tokens.device)
        else:
            weight, last, started = state["weight"], state["last"], state["position"] > 0
        mixed = []
        for t in range(T):
            real = torch.ones_like(started) if mask is None else mask[:, t]
            predicted = last.gather(2, tokens[:, t, None, None].expand(-1, n, 1))[..., 0]
            after = (1 - self.share) * (weight.log() + predicted).softmax(-1) + self.share / n
            weight = torch.where((real & started)[:, None], after, weight)
            last = torch.where(real[:, None, None], log_p[:, t], last)
            started = started | real
            mixed.append((weight.log()[..., None] + log_p[:, t]).logsumexp(1))
        first = states[0]
        assert first is not None
        common = {name: first[name] for name in ("position", "segment")}
        return torch.stack(mixed, 1), common | {"weight": weight, "last": last, "readers": states}


def _writes(reader: LanguageModel | Attached) -> bool:
    return isinstance(reader, Attached) and reader.writing is not None


__all__ = ["Hedged"]
