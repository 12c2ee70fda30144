"""Train architectures on tasks and write a page that compares them.

    solomonic compare --arch mamba2 bmojo --task mqar
    solomonic compare experiment.toml --out runs/mine

A TOML file describes a comparison of one's own: variants of architectures, mixers layer by layer, options of tasks, sizes
and rates. docs/evaluation.md has an example.
"""

import argparse
import shlex
import sys
from pathlib import Path

from .._utils.machine import cores
from .._utils.spelling import Unknown, paragraph
from ..compare.folder import plugins_advice
from ..compare.run import compare
from ..compare.suites import SUITES, Suite, suite
from ..presets import PRESETS
from ..tasks import names as tasks
from ._device import device
from ._numbers import whole
from ._options import add_device, add_plugin
from ._paths import guard

READS, MAKES = ("data", "experiment"), ("out",)


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "experiment",
        nargs="?",
        type=Path,
        metavar="EXPERIMENT",
        help="TOML file that describes a comparison, for --suite",
    )
    command.add_argument("--suite", metavar="S", help=f"sizes and rates: {', '.join(SUITES)} (default quick)")
    command.add_argument(
        "--arch", nargs="+", action="extend", metavar="A", help=f"{', '.join(PRESETS)} (default: the suite's)"
    )
    of_suites = dict.fromkeys(name for one in SUITES.values() for name in one.runs if name not in tasks())
    command.add_argument(
        "--task",
        nargs="+",
        action="extend",
        metavar="T",
        help=f"{', '.join(tasks())}{''.join(f', {name}' for name in of_suites)} (default: the suite's)",
    )
    command.add_argument(
        "--data", metavar="PATH", help="file or folder for the task 'text' (default: Python's own library)"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of results (default runs/SUITE, runs/STEM of a file); goes on where it stopped",
    )
    add_plugin(command)
    add_device(command)
    command.add_argument(
        "--seeds", type=whole(1000), metavar="N", help="number of seeds of every cell (default: the suite's)"
    )
    command.add_argument(
        "--jobs",
        type=whole(1024),
        metavar="J",
        help="cells trained at a time (default: one a thread; 4 on an accelerator)",
    )


def run(args: argparse.Namespace, words: list[str]) -> int:
    if args.experiment is None:
        name = args.suite or "quick"
        try:
            wanted = suite(name, args.arch, args.task, args.seeds, args.data)
        except Unknown as error:
            raise ValueError(f"{error}{plugins_advice(args.out or Path('runs') / name)}") from None
    else:
        wanted = _described(args)
    where = device(args.device)
    threads = args.threads or cores()
    jobs = (threads if where.type == "cpu" else 4) if args.jobs is None else args.jobs
    if jobs < 1:
        raise ValueError(f"--jobs: expected a whole number >= 1, got {jobs}")
    folder = args.out or Path("runs") / wanted.name
    page = compare(wanted, folder, where, jobs, shlex.join(["solomonic", *words]), max(1, threads // jobs))
    print(paragraph(f"{page} is the page to open; {folder / 'results.jsonl'} has every number"))
    return 0


def _described(args: argparse.Namespace) -> Suite:
    """The comparison of the file; the guard of outputs sees the texts that it names, too."""
    from ..compare.experiment import experiment

    if args.suite is not None:
        raise ValueError(f"--suite: expected none beside {args.experiment}, got {args.suite!r}; leave one of them out")
    wanted = experiment(args.experiment, args.arch, args.task, args.seeds, args.data)
    texts = [run.options["data"] for run in wanted.runs.values() if run.options.get("data")]
    guard(argparse.Namespace(data=texts, experiment=args.experiment, out=args.out), sys.modules[__name__])
    return wanted
