"""The laws of `solomonic.testing` on every task there is."""

import importlib
from functools import cache
from pathlib import Path

import pytest

from solomonic import tasks
from solomonic.tasks import Task
from solomonic.testing import TaskLaws

every_task = pytest.mark.parametrize("name", tasks.names())


@cache
def made(name: str) -> Task:
    return tasks.task(name)


def test_every_file_is_a_task():
    files = {path.stem for path in Path(tasks.__file__).parent.glob("*.py")}
    assert set(tasks.names()) == {name for name in files if name != "base" and not name.startswith("_")}
    assert {"mqar", "selective_copying", "noisy_recall", "fuzzy_recall", "distractor_recall", "text"} <= files
    assert tasks.names() == sorted(tasks.names()) == list(tasks.summaries())


class TestLaws(TaskLaws):
    @pytest.fixture(autouse=True, params=tasks.names())
    def case(self, request):
        self.name = request.param
        self.evenly = self.name != "memorization"

    def task(self):
        return made(self.name) if not self.options else tasks.task(self.name, **self.options)

    def test_chance_is_that_of_a_guess_among_the_answers(self):
        self.options = {"vocab_size": 256} if self.name == "mqar" else {}
        super().test_chance_is_that_of_a_guess_among_the_answers()

    def test_batch_follows_from_arguments_and_generator(self):
        self.task = lambda: tasks.task(self.name)
        super().test_batch_follows_from_arguments_and_generator()


@every_task
def test_a_sample_is_drawn_and_lengths_are_an_option(name):
    assert "One" in importlib.import_module(f"solomonic.tasks.{name}").__doc__.split("\n\n")[1], "no sample is drawn"
    with pytest.raises(ValueError, match=rf"unknown option of task {name} 'lenghts': did you mean 'lengths'\?"):
        tasks.task(name, lenghts=(8,))


def test_unknown_task():
    with pytest.raises(ValueError, match=r"unknown task 'mqra': did you mean 'mqar'\? expected one of .*mqar.*text"):
        tasks.task("mqra")
    with pytest.raises(ValueError, match="unknown task 'zzzzzz': expected one of"):
        tasks.task("zzzzzz")
    for hidden in ("base", "_draw", ""):
        with pytest.raises(ValueError, match="unknown task .*expected one of"):
            tasks.task(hidden)


def test_every_task_of_recall_but_of_several_tokens_has_a_chance():
    without = {name for name in tasks.names() if made(name).metric == "accuracy" and made(name).chance is None}
    assert without == {"fuzzy_recall", "linear_regression", "stack_manipulation"}
