"""Print the results of comparisons, several folders as one: a table, or CSV, Markdown or LaTeX for other programs."""

import argparse
from pathlib import Path

from .._utils.spelling import warn
from ..compare.export import as_csv, as_latex, as_markdown, joined, tables
from ._table import table

READS = ("folders",)
FORMS = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of `solomonic compare`")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="a line a score, with its 95 %% interval")
    form.add_argument("--markdown", action="store_true", help="a table a task in Markdown")
    form.add_argument("--latex", action="store_true", help="a table a task in LaTeX")


def run(args: argparse.Namespace, words: list[str]) -> int:
    tasks, notes = joined(args.folders)
    for note in notes:
        warn(note)
    for name, form in FORMS.items():
        if getattr(args, name):
            print(form(tasks), end="")
            return 0
    for title, head, lines in tables(tasks):
        print(f"{title}\n\n{table(head, lines)}\n")
    return 0
