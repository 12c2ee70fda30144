"""Tasks: what a model is asked to learn and to remember.

Every file of this folder, but `base` and those that start with an underscore, is a task: its name is the file's,
and its one public `Task` subclass takes keyword-only options that all have a default. A new file is a new task;
there is no list to add it to. A plug-in sets its tasks in `TASKS`, under their names.

    from solomonic import tasks
    recall = tasks.task("distractor_recall", pairs=8, keys=16)
    batch = recall.train_batch(32, np.random.default_rng(0))
"""

import importlib
import inspect
import pkgutil
from typing import Any

from .._utils.plugins import Registry
from .._utils.spelling import unknown
from .base import IGNORE, Batch, Task

__all__ = ["IGNORE", "TASKS", "Batch", "Task", "names", "options", "summaries", "task"]


def _fault(name: str, cls: type[Task] | None) -> str | None:
    return (
        None
        if inspect.isclass(cls) and issubclass(cls, Task) and cls.name == name
        else "a subclass of Task of that name"
    )


_FILES = [module.name for module in pkgutil.iter_modules(__path__)]
TASKS: Registry[type[Task] | None] = Registry(
    "task", {name: None for name in _FILES if name != "base" and not name.startswith("_")}, _fault
)
"""By name, the class of a task; None for the one that the file of that name has."""


def names() -> list[str]:
    """The tasks there are, in alphabetical order."""
    return sorted(TASKS)


def task(name: str, **options) -> Task:
    """The task of this name. `options` are its class's keyword arguments; ValueError for a name or option unknown."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    cls = _class(name)
    known = inspect.signature(cls).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of task {name}", option, known)
    return cls(**options)


def options(name: str) -> dict[str, Any]:
    """The options of a task, and their defaults. ValueError for an unknown name."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return {option: known.default for option, known in inspect.signature(_class(name)).parameters.items()}


def summaries() -> dict[str, str]:
    """Each task's name and its one line."""
    return {name: _class(name).summary for name in names()}


def _class(name: str) -> type[Task]:
    if (known := TASKS[name]) is not None:
        return known
    module = importlib.import_module(f"{__name__}.{name}")
    tasks = [
        value
        for attribute, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
        and not attribute.startswith("_")
    ]
    assert len(tasks) == 1, f"{module.__name__} defines {len(tasks)} public tasks, one is wanted"
    assert tasks[0].name == name, f"{module.__name__} holds a task named {tasks[0].name!r}"
    return tasks[0]
