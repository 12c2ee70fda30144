"""The command line. A user's mistake is one line on stderr and exit code 2, never a traceback."""

import argparse
import os
import shlex
import sys
from pathlib import Path

import torch

from . import __version__
from .compare.run import compare
from .compare.suites import SUITES, suite
from .presets import PRESETS
from .spelling import unknown
from .tasks import summaries
from .train import Interrupted


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, 2 for a user's mistake, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser().parse_args(arguments)
    try:
        return chosen.run(chosen, arguments)
    except (ValueError, OSError) as error:
        print(f"solomonic: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"solomonic: {error or 'interrupted'}", file=sys.stderr)
        return 130


def parser() -> Parser:
    top = Parser(prog="solomonic", description="Sequence models that remember: train and compare them.")
    top.add_argument("--version", action="version", version=f"solomonic {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("compare", help="train architectures on tasks and write a page that compares them")
    command.add_argument(
        "--suite", default="quick", metavar="S", help=f"sizes and rates: {', '.join(SUITES)} (default quick)"
    )
    command.add_argument("--arch", nargs="+", action="extend", metavar="A", help="architectures, see `solomonic list`")
    command.add_argument("--task", nargs="+", action="extend", metavar="T", help="tasks, see `solomonic list`")
    command.add_argument(
        "--data", metavar="PATH", help="file or folder for the task 'text' (default: Python's own library)"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of results (default runs/SUITE); goes on where it stopped"
    )
    command.add_argument(
        "--device", default=None, metavar="D", help="cpu, cuda, mps, ... (default: an accelerator if there is one)"
    )
    command.add_argument("--seeds", type=int, metavar="N", help="seeds of every cell (default: the suite's)")
    command.add_argument(
        "--jobs", type=int, metavar="J", help="cells trained at a time (default: one a core; 4 on an accelerator)"
    )
    command.set_defaults(run=run_compare)

    command = commands.add_parser("list", help="architectures, tasks, suites and devices, a line each")
    command.set_defaults(run=run_list)
    return top


def run_compare(chosen: argparse.Namespace, arguments: list[str]) -> int:
    wanted = suite(chosen.suite, chosen.arch, chosen.task, chosen.seeds, chosen.data)
    where = device(chosen.device)
    jobs = chosen.jobs
    if jobs is None:
        jobs = (os.cpu_count() or 1) if where.type == "cpu" else 4
    if jobs < 1:
        raise ValueError(f"--jobs: expected a whole number >= 1, got {jobs}")
    folder = chosen.out or Path("runs") / wanted.name
    page = compare(wanted, folder, where, jobs, shlex.join(["solomonic", *arguments]))
    print(f"{page} is the page to open; {folder / 'results.jsonl'} has every number")
    return 0


def run_list(chosen: argparse.Namespace, arguments: list[str]) -> int:
    devices = {name: "this machine's processor" if name == "cpu" else "accelerator" for name in device_names()}
    suites = {name: f"{len(s.archs)} architectures on {', '.join(s.runs)}" for name, s in SUITES.items()}
    about = {name: summary for name, (summary, _) in PRESETS.items()}
    for title, entries in {"architectures": about, "tasks": summaries(), "suites": suites, "devices": devices}.items():
        print(title)
        for name, summary in entries.items():
            print(f"  {name:<18} {summary}")
    return 0


def device_names() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] if accelerator is None else [accelerator.type, "cpu"]


def device(name: str | None) -> torch.device:
    """The device of that name, or the best there is. ValueError when it is not there."""
    if name is None:
        return torch.device(device_names()[0])
    kind, _, index = name.partition(":")
    if kind not in device_names():
        raise unknown("device", name, device_names())
    count = torch.accelerator.device_count() if kind != "cpu" else 1
    if index and not (index.isdigit() and int(index) < count):
        raise ValueError(f"--device: expected {kind}:0 to {kind}:{count - 1}, got {name!r}")
    return torch.device(name)
