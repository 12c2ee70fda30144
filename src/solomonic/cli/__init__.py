"""The command line. A user's mistake is one line on stderr and exit code 2, never a traceback.

A command is a file here, known by being there: its docstring's first line is its summary, `arguments(parser)` adds its
options, `run(chosen, words)` does it and returns the exit code. What takes long to import is imported in `run`.
"""

import argparse
import importlib
import os
import pkgutil
import sys

from .. import __version__
from ..train import Diverged, Interrupted

THEORY = ("identify", "solomonoff", "texture")  # commands whose libraries are in the extra `theory`


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args=None, namespace=None):
        """A prompt may follow the options too, which argparse itself has only since Python 3.13."""
        chosen, rest = super().parse_known_args(args, namespace)
        if rest and getattr(chosen, "prompt", None) == [] and not any(word.startswith("-") for word in rest):
            chosen.prompt, rest = rest, []
        return chosen, rest


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 when training diverged, 2 for a user's mistake, 130 when interrupted, 141 without a reader."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = parser().parse_args(arguments)
    try:
        return chosen.run(chosen, arguments)
    except ModuleNotFoundError as error:
        print(f"solomonic: {_extra(chosen.command, error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        print(f"solomonic: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"solomonic: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"solomonic: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130


def parser() -> Parser:
    top = Parser(prog="solomonic", description="Sequence models that remember: train, compare, use and study them.")
    top.add_argument("--version", action="version", version=f"solomonic {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            file = importlib.import_module(f"{__name__}.{module.name}")
            summary = file.__doc__.splitlines()[0].rstrip(".")
            command = commands.add_parser(module.name, help=summary[0].lower() + summary[1:], description=file.__doc__)
            file.arguments(command)
            command.set_defaults(run=file.run)
    return top


def _extra(command: str, error: ModuleNotFoundError) -> str:
    """What to install for a command whose library is not there. An extra is named as its command, but for `theory`."""
    if (error.name or "").startswith("solomonic"):
        raise error
    extra = "theory" if command in THEORY else command
    return f"{command} needs {error.name}, which is not installed: pip install 'solomonic[{extra}]'"
