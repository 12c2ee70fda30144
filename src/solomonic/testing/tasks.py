"""The laws of `tasks/base.py`."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tasks import IGNORE, Batch, Task, summaries, task
from .compare import check, expect, expect_refused


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batches(task: Task, size: int = 3) -> Iterator[Batch]:
    """A training batch, then a test batch of every length the task asks for."""
    yield task.train_batch(size, rng(1))
    for length in task.lengths:
        yield task.test_batch(size, length, rng(1))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.tokens, b.tokens) and torch.equal(a.targets, b.targets)


def _perfect(task: Task, targets: Tensor) -> Tensor:
    logits = torch.full((*targets.shape, task.vocab_size), -torch.inf)
    return logits.scatter_(-1, targets.clamp(min=0)[..., None], 0.0)


class TaskLaws:
    """The laws, each a method. name: of the task, with these options; evenly: whether `chance` is of answers that are drawn evenly.

    No law knows the right answer: that is for a test of yours.
    """

    name: str
    options: dict[str, Any] = {}
    evenly: bool = True

    def task(self) -> Task:
        return task(self.name, **self.options)

    def test_says_what_it_is(self) -> None:
        made = self.task()
        expect(isinstance(made, Task) and made.name == self.name, f"a task {made.name!r} is known as {self.name!r}")
        line = made.summary
        expect(line == summaries()[self.name], "the summary of the class is another")
        expect("\n" not in line and 10 < len(line) < 100, f"expected a summary of one line, got {line!r}")
        lengths = made.lengths
        increasing = isinstance(lengths, tuple) and list(lengths) == sorted(set(lengths))
        expect(made.length >= 1 and increasing, f"expected a length and a tuple of increasing lengths, got {lengths!r}")
        options = inspect.signature(type(made)).parameters.values()
        odd = [o.name for o in options if o.kind is not o.KEYWORD_ONLY or o.default is o.empty]
        expect(not odd, f"options that are not keyword-only with a default: {', '.join(odd)}")
        labels = [made.label(token) for token in range(made.vocab_size)]
        expect(len(set(labels)) == made.vocab_size and all(labels), "two tokens look alike")

    def test_batch_follows_from_arguments_and_generator(self) -> None:
        made, other = self.task(), self.task()
        expected = list(batches(made))
        np.random.seed(7)  # noqa: NPY002 - a generator that no task may look at
        torch.manual_seed(7)
        other.train_batch(2, rng(5))  # nor may an earlier call matter
        for a, b in zip(expected, batches(other)):
            expect(same(a, b), "the same arguments and seed give other rows in a second call")
        stream = rng(1)
        expect(same(made.train_batch(3, stream), expected[0]), "the same seed gives other rows in a second call")
        moves = not same(made.train_batch(3, stream), made.train_batch(3, stream))
        expect(moves, "two batches of one generator are the same: it does not move")

    def test_global_generators_are_left_alone(self) -> None:
        made = self.task()
        before = np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
        list(batches(made))
        after = np.random.get_state(legacy=False)  # noqa: NPY002
        expect(str(after) == str(before[0]), "numpy's global generator has moved; draw from the one that is passed")
        still = torch.equal(torch.get_rng_state(), before[1])
        expect(still, "torch's global generator has moved; draw from the one that is passed")

    def test_shapes_and_ranges(self) -> None:
        made = self.task()
        train, *tests = batches(made)
        longest = train.tokens.shape[1]
        expect(longest <= made.length, f"a training batch of length {longest}, above {made.length}")
        lengths = [test.tokens.shape[1] for test in tests]
        expect(lengths == list(made.lengths), f"test batches of lengths {lengths}, not {made.lengths}")
        for batch in (train, *tests):
            shapes = tuple(batch.tokens.shape), tuple(batch.targets.shape)
            expect(shapes[0] == shapes[1] and len(batch.tokens) == 3, f"3 rows, tokens and targets of shapes {shapes}")
            kinds = batch.tokens.dtype, batch.targets.dtype
            expect(kinds == (torch.int64, torch.int64), f"tokens and targets of types {kinds}, not int64")
            scored = batch.targets != IGNORE
            expect(scored.any(1).all(), "a row without a position that is scored")
            for what, values in (("tokens", batch.tokens), ("targets", batch.targets[scored])):
                low, high = int(values.min()), int(values.max())
                expect(0 <= low <= high < made.vocab_size, f"{what} from {low} to {high}, of {made.vocab_size}")

    def test_marks_are_positions(self) -> None:
        made = self.task()
        for batch in batches(made):
            marks, length = made.marks(batch), batch.tokens.shape[1]
            right = marks == sorted(set(marks)) and all(0 <= t < length for t in marks)
            expect(right, f"marks {marks} of a row of {length}")

    def test_training_reaches_its_length(self) -> None:
        made = self.task()
        reached = max(made.train_batch(1, rng(seed)).tokens.shape[1] for seed in range(40))
        expect(reached == made.length, f"40 training batches reach length {reached}, not {made.length}")

    def test_perfect_logits_score_best(self) -> None:
        made = self.task()
        for batch in batches(made, size=1):
            score = made.score(_perfect(made, batch.targets), batch.targets)
            right = score.shape == batch.targets.shape and score.dtype == torch.float32
            expect(right, f"scores {tuple(score.shape)} {score.dtype}, not one a target in float32")
            expect(
                torch.equal(score.isnan(), batch.targets == IGNORE), "scores are NaN elsewhere than targets are IGNORE"
            )
            expect((score[~score.isnan()] == made.best).all(), f"perfect logits do not score {made.best}")

    def test_wrong_logits_do_not(self) -> None:
        made = self.task()
        batch = made.train_batch(2, rng())
        wrong = torch.where(batch.targets == IGNORE, IGNORE, (batch.targets + 1) % made.vocab_size)
        logits = torch.zeros(*wrong.shape, made.vocab_size).scatter_(-1, wrong.clamp(min=0)[..., None], 5.0)
        score = made.score(logits.bfloat16(), batch.targets)
        expect(score.dtype == torch.float32, f"scores of bfloat16 logits in {score.dtype}, not float32")
        expect(torch.equal(score.isnan(), batch.targets == IGNORE), "scores are NaN elsewhere than targets are IGNORE")
        expect((score[~score.isnan()] != made.best).all(), f"wrong logits score {made.best}, as perfect ones")

    def test_impossible_arguments_are_refused(self) -> None:
        made = self.task()
        lengths: tuple[Any, ...] = (0, -4, 12.5, "64")
        sizes: tuple[Any, ...] = (0, -1, 2.5)
        for length in lengths:
            expect_refused(lambda: made.test_batch(1, length, rng()), "length: expected .* got", f"length {length!r}")
        for size in sizes:
            says, what = "size: expected .* got", f"{size} rows"
            expect_refused(lambda: made.train_batch(size, rng()), says, f"a training batch of {what}")
            expect_refused(lambda: made.test_batch(size, made.lengths[0], rng()), says, f"a test batch of {what}")

    def test_impossible_lengths_are_refused(self) -> None:
        """Of a task that has the option `lengths`."""
        if "lengths" not in inspect.signature(type(self.task())).parameters:
            return
        for lengths in ((), (256, 128), (128, 128), 128, "128", (0, 64), (64.5,)):
            says = "lengths: expected .* got"
            expect_refused(lambda: task(self.name, lengths=lengths), says, f"the option lengths={lengths!r}")

    def test_unknown_options_are_refused(self) -> None:
        says = rf"unknown option of task {re.escape(self.name)} 'no_such_option'"
        expect_refused(lambda: task(self.name, no_such_option=8), says, "an option that is not there")

    def test_chance_is_that_of_a_guess_among_the_answers(self) -> None:
        made = self.task()
        if made.chance is None:
            return
        targets = made.test_batch(400, made.length, rng(1)).targets
        scored = targets[targets != IGNORE]
        answers = scored.unique()
        expect(len(answers), "nothing is scored in 400 rows")
        near = abs(made.chance - 1 / len(answers)) <= 0.02 / len(answers)
        expect(
            near,
            f"a chance of {made.chance:.4g} with {len(answers)} answers, of which a guess gets {1 / len(answers):.4g}",
        )
        expect(made.metric == "accuracy", f"a chance with the metric {made.metric}")
        share = (scored == answers[0]).float().mean().item()
        even = not self.evenly or abs(share - made.chance) <= 0.35 * made.chance
        expect(
            even, f"answers that are not drawn evenly: {int(answers[0])} is {share:.4g} of them; chance is then None"
        )


def check_task(name: str, **options: Any) -> None:
    """All laws of a task, with these options, at once (`TaskLaws`). AssertionError with a line for each that is broken."""
    laws = TaskLaws()
    laws.name, laws.options = name, options
    check(laws, f"task {name}")


__all__ = ["TaskLaws", "batches", "check_task", "rng", "same"]
