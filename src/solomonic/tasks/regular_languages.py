"""Regular languages in context: strings of a random automaton, new in every row (RegBench, arXiv 2401.12973).

One sample (symbols=4, length=8; the automaton: state 0 goes to 1 with a 0 and to 2 with a 2, state 1 goes to 0 with a
3, state 2 to 1 with a 0): 0-3 are symbols, 4 begins a string, `.` is not scored.

    tokens    4 0 3 2 4 2 0 3
    targets   0 3 2 . 2 0 3 .

Every row has an automaton of its own: an alphabet drawn from the symbols, states, and in each state one or more
edges, each with a symbol of the alphabet and another state that it goes to; no other edge of the state has either. A
string begins in state 0; every edge is as likely as the others of its state. The number of states, the size of the alphabet,
the number of edges of each state and the length of each string are uniform, and so is what is drawn among them.
Scored is every symbol of a string, at the position before it, by its code length in bits; where a string ends is not.

The bound of a test batch is the code length that the automaton itself gives: log2 of the number of edges of its
state. A predictor that is not told the automaton loses more on average, the more the earlier in the row; how much at
least is not known here. A model comes near the bound where it has learnt the automaton from the strings before.

RegBench asks instead how often the largest logit is a symbol that the automaton admits. This is not known from logits
and one target, and the code length tells more: it also asks for the edges that are not the likeliest. Other
differences: RegBench minimises automata, as this task does not (two states may admit the same strings); there every
automaton is one of a fixed list, part of them for tests; rows end after 10 to 20 strings, here after T tokens.

Source of the definition: the paper, and `src/dataloaders/dfa.py` of github.com/berlino/seq_icl. States from 4 to 12,
alphabets of 4 to 18 symbols, 1 to 3 edges (`max_outgoing_edges: 4`, a bound that is not reached) and strings of up to 50
symbols (49 there, by the same) are its configuration's.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from . import _bits, _check, _draw
from .base import IGNORE, Batch, Task

LEAST = 4  # states of an automaton, and symbols of its alphabet


class RegularLanguages(Task):
    """Options:

    symbols        tokens that alphabets are drawn from, at least 4; the token after them begins a string
    states         the most states of an automaton, at least 4
    edges          the most edges of a state, 2 or 3
    string_length  the most symbols of a string
    length         training length
    lengths        test lengths; None: 1, 2 and 4 times `length`
    """

    name = "regular_languages"
    summary = "predict strings of a random automaton from those before (RegBench)"
    metric = "bits_per_token"
    best = 0.0
    by_position = True

    def __init__(
        self,
        *,
        symbols: int = 18,
        states: int = 12,
        edges: int = 3,
        string_length: int = 50,
        length: int = 512,
        lengths: Iterable[int] | None = None,
    ):
        self.symbols = _check.whole("symbols", symbols, LEAST, "an alphabet has four symbols or more")
        self.states = _check.whole("states", states, LEAST, "an automaton has four states or more")
        self.edges = _check.whole("edges", edges, 2, "with one edge every string would be the same")
        if self.edges >= LEAST:
            raise ValueError(
                f"edges: expected at most {LEAST - 1}, to the other states of the smallest automaton, got {edges}; take fewer"
            )
        self.string_length = _check.whole("string_length", string_length, 1, "a string has one symbol or more")
        self.vocab_size = self.symbols + 1
        self.length = _check.whole("length", length, 1, "a row begins a string and predicts its first symbol")
        lengths = [m * self.length for m in (1, 2, 4)] if lengths is None else lengths
        self.lengths = _check.increasing("lengths", lengths)

    def train_batch(self, size: int, rng: np.random.Generator, progress: float = 1.0) -> Batch:
        return self._batch(self.draw(size, self.length, rng)[0])

    def test_batch(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        tokens, admitted = self.draw(size, length, rng)
        bound = np.log2(np.where(admitted > 0, admitted, np.nan))[:, 1:]
        return replace(self._batch(tokens), bound=torch.from_numpy(bound.astype(np.float32)))

    def draw(self, size: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(size, length + 1) int64 tokens of new automata, and how many symbols the automaton admitted at each, each as
        likely as the others; 0 at a token that begins a string."""
        rows = _check.batch_size(size)
        length = _check.whole("length", length, 1, "a row begins a string and predicts its first symbol")
        counts, symbols, goes_to = self.automata(rows, rng)

        sizes = rng.integers(1, self.string_length + 1, size=(rows, length // 2 + 1))
        begins = np.zeros((rows, length + 2), dtype=bool)  # the last column takes what lies beyond the row
        begins[:, 0] = True
        np.put_along_axis(begins, np.minimum((sizes + 1).cumsum(1), length + 1), True, 1)

        tokens, admitted = np.full((rows, length + 1), self.symbols), np.zeros((rows, length + 1), dtype=np.int64)
        luck, row, state = rng.random((rows, length + 1)), np.arange(rows), np.zeros(rows, dtype=np.int64)
        for t in range(length + 1):
            count = counts[row, state]
            edge = (luck[:, t] * count).astype(np.int64)
            tokens[:, t] = np.where(begins[:, t], self.symbols, symbols[row, state, edge])
            admitted[:, t] = np.where(begins[:, t], 0, count)
            state = np.where(begins[:, t], 0, goes_to[row, state, edge])
        return tokens, admitted

    def automata(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Random automata of as many rows: the number of edges of each state (rows, states), and the symbol of each
        edge and the state that it goes to, both (rows, states, edges), void beyond the number of edges."""
        states = rng.integers(LEAST, self.states + 1, size=rows)[:, None, None]
        letters = rng.integers(LEAST, self.symbols + 1, size=rows)[:, None, None]
        alphabet = rng.random((rows, self.symbols)).argsort(axis=1)[:, None]
        rank = np.where(np.arange(self.symbols) < letters, rng.random((rows, self.states, self.symbols)), 2.0)
        edges = rank.argsort(axis=2)[..., : self.edges]
        symbols = np.take_along_axis(np.broadcast_to(alphabet, rank.shape), edges, 2)
        counts = rng.integers(1, self.edges + 1, size=(rows, self.states))
        there = (np.arange(self.states) < states) & ~np.eye(self.states, dtype=bool)
        goes_to = np.where(there, rng.random((rows, self.states, self.states)), 2.0).argsort(axis=2)[..., : self.edges]
        return counts, symbols, goes_to

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, T, V), (B, T) -> (B, T) float32: -log2 p(target), bits; NaN where IGNORE."""
        return _bits.code_length(logits, targets)

    def label(self, token: int) -> str:
        return "^" if token == self.symbols else str(token)

    def _batch(self, tokens: np.ndarray) -> Batch:
        after = tokens[:, 1:]
        return _draw.batch(tokens[:, :-1], np.where(after == self.symbols, IGNORE, after))
