"""Variable tracking (RULER, arXiv 2404.06654): chains of assignments in a long text, and all variables of one value.

One sample (chains=2, hops=1, variables=6, values=3, filler=3, length=16): variables are the tokens 0-5, values 6-8,
filler 9-11, 12 asks, 13 is blank, `.` is not scored.

                 2 = 7     5 = 6     0 = 2       4 = 5   7: 2, 0
    tokens    9  2 7   11  5 6   10  0 2   9 10  4 5     12 7 2
    targets   .  . .   .   . .   .   . .   . .   . .     .  2 0

An assignment is a variable and what it is given: a chain gives a value to its first variable, then `hops` times a new
variable the one before it. The assignments lie at random places of a row of filler, tokens drawn uniformly; those of a
chain stand in its order, chains are mixed. At the end stand the token that asks and the value of one of the chains:
the answers are all variables that hold it, hops + 1, in the order of their assignments, each scored at the position
before it. All variables of a row are distinct, and so are the values.

    answers="shown"   each answer stands in the input once it was asked for, as in generation: one hop at a time
    answers="hidden"  blanks stand there: the j-th variable is to be found by following the chain through j hops

Training rows grow from the shortest to `length`, and half of the batches are shorter than the longest of that time.

Source of the definition: RULER (arXiv 2404.06654), whose task has one
chain of 4 hops (`chains=1`), a repeated sentence for a filler, an example before the question, and scores the variables
in any order, as text.
"""

from collections.abc import Iterable

import numpy as np

from . import _check, _draw
from ._rows import RowTask
from .base import IGNORE, Batch


class VariableTracking(RowTask):
    """Options:

    chains     chains of a row; one of them is asked
    hops       assignments of a chain after its first
    answers    "shown" or "hidden"
    variables  tokens of variables, [0, variables): at least chains (hops + 1)
    values     tokens of values, the next ones: at least `chains`
    filler     tokens of the filler, the next ones; then the token that asks, and the blank
    length     training length: the assignments and the question have to fit
    lengths    test lengths; None: 1, 2, 4 and 16 times `length`
    """

    name = "variable_tracking"
    summary = "chains of variable assignments in a long text: which variables hold a value (RULER)"
    grows = True

    def __init__(
        self,
        *,
        chains: int = 2,
        hops: int = 4,
        answers: str = "shown",
        variables: int = 64,
        values: int = 32,
        filler: int = 32,
        length: int = 128,
        lengths: Iterable[int] | None = None,
    ):
        self.chains = _check.whole("chains", chains, 1, "ask for one chain or more")
        self.hops = _check.whole("hops", hops, 0, "pass 0 for a value and its one variable")
        self.answers = _check.one_of("answers", answers, ("shown", "hidden"))
        self.links = self.hops + 1  # assignments of a chain
        advice = "the variables of a row are distinct: take more, or fewer or shorter chains"
        self.variables = _check.whole("variables", variables, max(2, self.chains * self.links), advice)
        advice = "chains have different values: take more, or fewer chains"
        self.values = _check.whole("values", values, self.chains, advice)
        self.filler = _check.whole("filler", filler, 1, "assignments stand among one token or more")
        self.ask = self.variables + self.values + self.filler
        self.blank = self.ask + 1
        self.vocab_size = self.ask + 2
        self.chance = 1 / self.variables
        self._take_lengths(length, lengths, (1, 2, 4, 16))

    def marks(self, batch: Batch) -> list[int]:
        answers = set(batch.targets[0, -self.links :].tolist())
        head = batch.tokens[0, : -self.links - 1].tolist()
        first: dict[int, int] = {}
        for t, token in enumerate(head):
            if token in answers:
                first.setdefault(token, t)
        return sorted(first.values())

    def label(self, token: int) -> str:
        if token >= self.ask:
            return "?" if token == self.ask else "_"
        if token < self.variables:
            return f"x{token}"
        token -= self.variables
        return f"v{token}" if token < self.values else f".{token - self.values}"

    def _possible(self, name: str, length: int) -> int:
        least = 2 * self.chains * self.links + 1 + self.links
        return _check.whole(
            name, length, least, f"{self.chains} chains of {self.links} variables and the question take it"
        )

    def _rows(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        rows, assignments = _check.batch_size(size), self.chains * self.links
        end = length - 1 - self.links
        variables = _draw.distinct(rng, rows, assignments, self.variables).reshape(rows, self.chains, self.links)
        values = self.variables + _draw.distinct(rng, rows, self.chains, self.values)
        given = np.concatenate([values[:, :, None], variables[:, :, :-1]], axis=2)  # what each variable is given

        chain = rng.random((rows, assignments)).argsort(axis=1) % self.chains  # of each assignment, in their order
        link = _draw.rank_of_its_kind(chain, self.chains)
        row = np.arange(rows)[:, None]
        content = np.stack([variables[row, chain, link], given[row, chain, link]], axis=2)
        starts = _draw.scattered(rng, rows, assignments, 2, end)

        tokens = self.variables + self.values + rng.integers(self.filler, size=(rows, length))
        np.put_along_axis(tokens, (starts[:, :, None] + np.arange(2)).reshape(rows, -1), content.reshape(rows, -1), 1)
        asked = rng.integers(self.chains, size=rows)
        answers = variables[np.arange(rows), asked]
        tokens[:, end], tokens[:, end + 1] = self.ask, values[np.arange(rows), asked]
        tokens[:, end + 2 :] = answers[:, :-1] if self.answers == "shown" else self.blank
        targets = np.full_like(tokens, IGNORE)
        targets[:, end + 1 :] = answers
        return _draw.batch(tokens, targets)
