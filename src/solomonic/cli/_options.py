"""Options that several commands share: each has one name, one type and one help text."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._utils import jsontext
from .._utils.files import write
from ._numbers import COUNT, whole

DTYPES = ("float32", "bfloat16", "float16")
STDOUT = Path("/dev/stdout")
FOUND = 4  # tokens


def add_alias(command: argparse._ActionsContainer, name: str, **options: Any) -> None:
    """An earlier name of an option, for command lines that have it: it sets `dest`, and no help names it."""
    command.add_argument(name, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options)


def add_number(
    command: argparse._ActionsContainer,
    name: str,
    kind: Callable[[str], float],
    default: float,
    letter: str,
    about: str,
) -> None:
    """An option that takes a number; its help says what it is where it is not given."""
    command.add_argument(name, type=kind, default=default, metavar=letter, help=f"{about} (default {default:g})")


def add_plugin(command: argparse._ActionsContainer) -> None:
    """--plugin; what it names is loaded before the command runs."""
    about = "module, or .py file, that adds mixers, architectures or tasks; may be given several times"
    command.add_argument("--plugin", action="append", metavar="MODULE", help=about)


def add_model(command: argparse._ActionsContainer) -> None:
    """MODEL and --plugin."""
    about = "folder of the model: config.json, safetensors, tokenizer.json"
    command.add_argument("model", metavar="MODEL", type=Path, help=about)
    add_plugin(command)


def add_device(command: argparse._ActionsContainer) -> None:
    """--device and --threads."""
    command.add_argument(
        "--device", metavar="D", help="cpu, or cuda, cuda:1, mps, ... (default: an accelerator if there is one)"
    )
    add_threads(command)


def add_threads(command: argparse._ActionsContainer) -> None:
    """--threads."""
    command.add_argument(
        "--threads",
        type=whole(os.cpu_count() or 1, least=1),
        metavar="N",
        help="threads of the processor; on a busy machine one is often the fastest (default: one a core)",
    )


def add_dtype(
    command: argparse._ActionsContainer, default: str = "as the model's file has it", names: Sequence[str] = DTYPES
) -> None:
    """--dtype."""
    command.add_argument("--dtype", metavar="T", help=f"{', '.join(names)} (default: {default})")


def add_seed(command: argparse._ActionsContainer, default: int | None = 0) -> None:
    """--seed; None: another one at every call."""
    about = f"seed of all that is drawn at random (default {'any' if default is None else default})"
    command.add_argument("--seed", type=whole(COUNT, least=0), default=default, metavar="S", help=about)


def add_k(command: argparse._ActionsContainer) -> None:
    """--k, None where it is not given; --found is its earlier name."""
    about = f"stored tokens that each head finds for each token (default {FOUND})"
    command.add_argument("--k", type=whole(), metavar="K", help=about)
    add_alias(command, "--found", dest="k", type=whole())


def k_of(args: argparse.Namespace) -> int:
    """What --k says, or its default."""
    return FOUND if args.k is None else args.k


def add_data(command: argparse._ActionsContainer) -> None:
    """--data and --field."""
    about = "files or folders of text (default: the Python library's sources)"
    command.add_argument("--data", nargs="+", metavar="PATH", help=about)
    add_field(command)


def add_field(command: argparse._ActionsContainer) -> None:
    """--field."""
    about = "field of JSON lines, column of parquet (default text)"
    command.add_argument("--field", default="text", metavar="F", help=about)


def add_lengths(command: argparse._ActionsContainer, default: str) -> None:
    """--lengths."""
    about = f"lengths in tokens (default: {default})"
    command.add_argument("--lengths", nargs="+", type=whole(), metavar="T", help=about)


def add_json(command: argparse._ActionsContainer) -> None:
    """--json, whose path belongs to the `WRITES` of the command."""
    about = "write all results to FILE as JSON, or without FILE to the terminal instead of the text"
    command.add_argument("--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help=about)


def write_json(path: Path | None, content: Callable[[], Any]) -> bool:
    """Write `content()` where --json says; NaN and infinities become null. True where the text is to be printed, too."""
    if path is None:
        return True
    text = jsontext.write(content(), 1, missing=True)
    if path == STDOUT:
        print(text, end="", flush=True)
        return False
    write(path, text)
    return True
