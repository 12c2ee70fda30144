"""What a command says, as JSON instead: to standard output, or to a file."""

import argparse
from pathlib import Path
from typing import Any

from .._utils import jsontext
from .._utils.files import write

STDOUT = Path("/dev/stdout")


def add_json(command: argparse.ArgumentParser) -> None:
    """--json, whose path belongs to the `WRITES` of the command."""
    command.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="JSON instead of the text, to the terminal or to this file",
    )


def say(path: Path, content: Any) -> None:
    """A number that is none is null."""
    said = jsontext.write(content, 1, missing=True)
    if path == STDOUT:
        print(said, end="")
    else:
        write(path, said)
