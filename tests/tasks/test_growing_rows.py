"""Training rows of the tasks that grow, `tasks/_rows.py`."""

import pytest

from solomonic import tasks

from .samples import rng

GROWING = [name for name in tasks.names() if getattr(type(tasks.task(name)), "grows", False)]


def test_which_tasks_grow():
    assert {"needles", "changing_recall", "palindrome"} <= set(GROWING)
    assert not {"selective_copying", "compression", "forgetting_mqar"} & set(GROWING)  # of MAD and Zoology: as there
    for name in {*tasks.names()} - {*GROWING}:
        assert not hasattr(tasks.task(name), "shortest"), name  # a checkpoint is of all that a task holds


@pytest.mark.parametrize("name", GROWING)
def test_rows_grow_from_the_shortest_to_the_training_length(name):
    task, random = tasks.task(name, length=80), rng()

    def drawn(progress, batches):
        return [tuple(task.train_batch(8, random, progress).tokens.shape) for _ in range(batches)]

    with pytest.raises(ValueError, match="length"):
        task.test_batch(1, task.shortest - 1, random)
    assert {length for _, length in drawn(0.0, 5)} == {task.shortest}
    half_way = round((task.shortest * 80) ** 0.5)
    assert max(length for _, length in drawn(0.3, 30)) == half_way
    late = drawn(0.6, 30) + drawn(1.0, 30)
    assert max(length for _, length in late) == 80 and len({length for _, length in late}) > 10
    for size, length in late + drawn(0.1, 30):
        assert size == min(32, 8 * 80 // length)
