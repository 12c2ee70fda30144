"""Print the results of comparisons, several folders as one: a table, or CSV, Markdown or LaTeX for other programs.

    solomonic results runs/quick --figures figures

writes the figures of the page, too: NAME.svg and NAME.csv each, and figures.csv, which says what each shows.
"""

import argparse
from pathlib import Path

from .._utils.spelling import aside, counted, warn
from ..compare.export import as_csv, as_latex, as_markdown, joined, tables
from ._table import table

READS, MAKES = ("folders",), ("figures",)
FORMS = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of `solomonic compare`")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="a line a score, with its 95 %% interval")
    form.add_argument("--markdown", action="store_true", help="a table a task in Markdown")
    form.add_argument("--latex", action="store_true", help="a table a task in LaTeX")
    command.add_argument(
        "--figures", type=Path, metavar="DIR", help="folder for every figure as SVG and its numbers as CSV"
    )


def run(args: argparse.Namespace, words: list[str]) -> int:
    tasks, notes = joined(args.folders)
    if args.figures is not None:
        from ..compare.pictures import write_figures

        aside(f"{counted(len(write_figures(tasks, args.figures)), 'figure')} in {args.figures}")
    for note in notes:
        warn(note)
    for name, form in FORMS.items():
        if getattr(args, name):
            print(form(tasks), end="")
            return 0
    for title, head, lines in tables(tasks):
        hard = "\N{NO-BREAK SPACE}"  # a score and its interval stay on one line
        whole = [[x.replace(" ", hard) if isinstance(x, str) else x for x in line] for line in lines]
        print(f"{title}\n\n{table(head, whole).replace(hard, ' ')}\n")
    return 0
