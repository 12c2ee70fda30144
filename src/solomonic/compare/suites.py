"""What a comparison runs: tasks with their sizes, models with their dials, learning rates."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._utils.spelling import unknown
from ..presets import PRESETS
from ..tasks import TASKS


@dataclass(frozen=True)
class Run:
    """One task at one size, for all architectures."""

    task: str
    steps: int
    batch_size: int = 32
    samples: int = 128  # held-out rows at the training length; fewer at longer ones, by the tokens they hold
    least_samples: int = 16
    lengths: tuple[int, ...] | None = None  # None: the task's
    options: dict[str, Any] = field(default_factory=dict)  # of the task
    dials: dict[str, Any] = field(default_factory=dict)  # of the presets
    lrs: tuple[float, ...] = (3e-3,)  # the grid of every architecture ...
    best_lr: dict[str, float] = field(default_factory=dict)  # ... or the best rate of one, measured before
    train: dict[str, Any] = field(default_factory=dict)  # other settings of `training.config.TrainConfig`
    archs: dict[str, dict[str, Any]] = field(default_factory=dict)  # dials of `preset` beside `name`; none: of PRESETS

    def rates(self, arch: str) -> tuple[float, ...]:
        return (self.best_lr[arch],) if arch in self.best_lr else self.lrs


@dataclass(frozen=True)
class Suite:
    name: str
    archs: tuple[str, ...]
    runs: dict[str, Run]
    seeds: int
    cost_lengths: tuple[int, ...]


SMALL = {"d_model": 64, "n_layers": 2, "window": 16, "capacity": 32, "state_size": 16}
MIDDLE = {"d_model": 128, "n_layers": 2, "window": 16, "capacity": 64, "state_size": 32}
GRID = (1e-3, 3e-3, 1e-2)
ATTENTION_FIRST = {"fading_dropout": 1.0}  # for layers that have both branches; no other model has anything to drop

QUICK = Suite(
    name="quick",
    archs=("transformer", "sliding_window", "mamba2", "gated_deltanet", "bmojo_f", "bmojo_published", "bmojo"),
    # one rate for each task: the best of GRID for every architecture alike (docs/log.md has the grid)
    runs={
        "distractor_recall": Run(
            "distractor_recall",
            steps=800,
            lengths=(96, 192, 384, 768, 9600),
            dials=SMALL,
            lrs=(1e-2,),
            train=ATTENTION_FIRST,
        ),
        "text": Run("text", steps=800, batch_size=8, samples=32, dials=SMALL | {"window": 32}, lrs=(1e-2,)),
    },
    seeds=1,
    cost_lengths=(128, 512, 2048, 8192),
)

STANDARD = Suite(
    name="standard",
    archs=tuple(
        name for name in PRESETS.own if name not in ("gated_kalmanet", "gated_deltanet2")
    ),  # slow, or short of an MLP
    runs={
        # the grid of the Based figure (arXiv 2402.18668): two layers without MLP, at two sizes of the state
        "mqar": Run("mqar", steps=3000, batch_size=128, samples=512, dials=SMALL | {"window": 32, "d_ff": 0}, lrs=GRID),
        "mqar_wide": Run(
            "mqar", steps=3000, batch_size=128, samples=512, dials=MIDDLE | {"window": 64, "d_ff": 0}, lrs=GRID
        ),
        "distractor_recall": Run(
            "distractor_recall",
            steps=2000,
            batch_size=64,
            samples=512,
            lengths=(96, 192, 384, 768, 9600),
            dials=SMALL,
            lrs=GRID,
            train=ATTENTION_FIRST,
        ),
        "selective_copying": Run("selective_copying", steps=3000, batch_size=64, samples=512, dials=MIDDLE, lrs=GRID),
        "noisy_recall": Run("noisy_recall", steps=3000, batch_size=64, samples=512, dials=MIDDLE, lrs=GRID),
        "fuzzy_recall": Run("fuzzy_recall", steps=3000, batch_size=64, samples=512, dials=MIDDLE, lrs=GRID),
        "text": Run(
            "text",
            steps=3000,
            batch_size=16,
            samples=32,
            options={"length": 512, "lengths": (512, 1024, 2048, 4096)},
            dials={"d_model": 256, "n_layers": 4, "window": 64, "capacity": 128, "state_size": 32},
            lrs=GRID,
        ),
    },
    seeds=3,
    cost_lengths=(128, 512, 2048, 8192, 32768),
)

# MAD's tasks at its width and depth (arXiv 2403.17844); 3,000 batches of fresh rows for its 200 epochs of 100 batches
MAD_DIALS = MIDDLE | {"n_layers": 4}
MAD_TASKS = (
    "in_context_recall",
    "fuzzy_recall",
    "noisy_recall",
    "selective_copying",
    "compression",
    "memorization",
)
MAD = Suite(
    name="mad",
    archs=PRESETS.own,
    runs={task: Run(task, steps=3000, batch_size=128, samples=1280, dials=MAD_DIALS, lrs=GRID) for task in MAD_TASKS},
    seeds=3,
    cost_lengths=(128, 512, 2048, 8192),
)

# RULER's tasks in tokens, by their names there (arXiv 2404.06654): 1 to 16 times the training length. Its questions about
# paragraphs, qa_1 and qa_2, are text: `solomonic eval --suite ruler` asks them.
# Keys and values of one token: models of this size do not learn longer ones in 800 steps (docs/log.md).
ONE = {"key_size": 1, "value_size": 1}
RULER_TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "niah_single_1": ("needles", {"variant": "single_1"} | ONE),
    "niah_single_2": ("needles", {"variant": "single_2"} | ONE),
    "niah_single_3": ("needles", {"variant": "single_3"}),
    "niah_multikey_1": ("needles", {"variant": "multikey_1"} | ONE),
    "niah_multikey_2": ("needles", {"variant": "multikey_2"}),
    "niah_multikey_3": ("needles", {"variant": "multikey_3"}),
    "niah_multivalue": ("needles", {"variant": "multivalue"} | ONE),
    "niah_multiquery": ("needles", {"variant": "multiquery"} | ONE),
    "vt": ("variable_tracking", {}),
    "cwe": ("common_words", {}),
    "fwe": ("frequent_words", {}),
}
MEMORY_TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: RULER_TASKS[name] for name in ("niah_single_2", "niah_multikey_1", "vt")},
    "last_value": ("changing_recall", {"key_size": 1}),
    "versions": ("changing_recall", {"key_size": 1, "ask": "version"}),
    "deleted": ("changing_recall", {"key_size": 1, "deletion": 0.25}),
    "near_duplicates": ("changing_recall", {"pairs": 2, "near_duplicates": 2}),
    "forgetting_mqar": ("forgetting_mqar", {}),
    "compositional_mqar": ("compositional_mqar", {}),
    "phonebook": ("phonebook", {}),
    "distractor_recall": ("distractor_recall", {"lengths": (96, 192, 384, 1536)}),
}
WORKING = {"scratchpad": True}
REASONING_TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "parity": ("state_tracking", {"group": "parity"}),
    "z5": ("state_tracking", {"group": "z5"}),
    "a5": ("state_tracking", {"group": "a5"}),
    "s5": ("state_tracking", {"group": "s5"}),
    "dyck": ("dyck", {}),
    **{
        name + suffix: (name, options)
        for name in ("modular_arithmetic", "palindrome", "stack_manipulation", "register_machine")
        for suffix, options in (("", {}), ("_scratchpad", WORKING))
    },
    "regular_languages": ("regular_languages", {}),
    "linear_regression": ("linear_regression", {}),
}
RIVALS = ("transformer", "sliding_window", "mamba2", "gated_deltanet", "kda", "mamba3", "bmojo_published", "bmojo")


def _hours(name: str, tasks: dict[str, tuple[str, dict[str, Any]]]) -> Suite:
    """A suite of the size of `quick`, on three seeds and two rates: hours of two cores."""
    runs = {
        run: Run(task, steps=800, options=options, dials=SMALL, lrs=(3e-3, 1e-2), train=ATTENTION_FIRST)
        for run, (task, options) in tasks.items()
    }
    return Suite(name=name, archs=RIVALS, runs=runs, seeds=3, cost_lengths=QUICK.cost_lengths)


MEMORY = _hours("memory", MEMORY_TASKS)
REASONING = _hours("reasoning", REASONING_TASKS)
RULER = _hours("ruler", RULER_TASKS)

SUITES = {suite.name: suite for suite in (QUICK, STANDARD, MAD, MEMORY, REASONING, RULER)}
RUNS = {  # those with names of their own, which `--task` and an experiment take beside names of tasks
    name: run for one in (RULER, REASONING, MEMORY) for name, run in one.runs.items() if name != run.task
}


def suite(
    name: str = "quick",
    archs: list[str] | None = None,
    tasks: list[str] | None = None,
    seeds: int | None = None,
    data: str | None = None,
) -> Suite:
    """A suite, narrowed or widened. ValueError for an unknown name, naming the near one."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    base = SUITES[name]
    pattern = next(iter(base.runs.values()))
    named = {task for task in tasks or () if task in TASKS}
    others = {
        task: replace(pattern, task=task, options={}, lengths=None, best_lr={}) for task in sorted(named | {*TASKS})
    }
    return select(base, PRESETS, others | RUNS | base.runs, archs, tasks, seeds, data)


def select(
    base: Suite,
    known_archs: Collection[str],
    known_runs: Mapping[str, Run],
    archs: list[str] | None,
    tasks: list[str] | None,
    seeds: int | None,
    data: str | None,
) -> Suite:
    """`base` with what is asked for, of all that is known. ValueError for an unknown name, naming the near one."""
    for arch in archs or ():
        if arch not in known_archs:
            raise unknown("architecture", arch, known_archs)
    for task in tasks or ():
        if task not in known_runs:
            raise unknown("task", task, known_runs)
    if seeds is not None and seeds < 1:
        raise ValueError(f"--seeds: expected a whole number >= 1, got {seeds}")
    runs = {task: known_runs[task] for task in (tasks or base.runs)}
    if data is not None:
        if not any(run.task == "text" for run in runs.values()):
            raise ValueError("--data is for the task 'text', which is not among the tasks of this comparison")
        runs = {k: replace(r, options=r.options | {"data": data}) if r.task == "text" else r for k, r in runs.items()}
    return replace(base, archs=tuple(dict.fromkeys(archs or base.archs)), runs=runs, seeds=seeds or base.seeds)
