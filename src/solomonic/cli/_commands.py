"""The commands, and the one place where what is the user's becomes a line on stderr."""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from .. import __version__
from ..train import Diverged, Interrupted
from ._passages import visible
from ._paths import guard
from ._streams import drop, flush

LONGEST = 2000  # characters of a message: a file may have a name or a value of any length


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {_line(message)} (see {self.prog} --help)\n")

    def parse_known_args(self, args=None, namespace=None):
        """A prompt may follow the options too, which argparse itself has only since Python 3.13."""
        chosen, rest = super().parse_known_args(args, namespace)
        if rest and getattr(chosen, "prompt", None) == [] and not any(word.startswith("-") for word in rest):
            chosen.prompt, rest = rest, []
        return chosen, rest


def run(arguments: list[str], begin: Callable[[], None] = lambda: None) -> int:
    """Exit code, as `main`. `begin` is told when the command line is read and the work begins.

    ValueError and OSError are what readers and checks raise, with the path. MemoryError and RecursionError are caught
    here and nowhere else: they come from sizes and from nesting that a person chose, out of whatever line happened to
    need one byte or one frame too many, so that no reader could name them all; up here all of that is let go of, and
    there is room again to print. Any other exception is a mistake of ours, and shows its traceback.
    """
    chosen = parser().parse_args(arguments)
    begin()
    try:
        guard(chosen, chosen.file_of_command)
        code = chosen.run(chosen, arguments)
        flush()
        return code
    except ModuleNotFoundError as error:
        return _say(_extra(chosen.extra, chosen.command, error), 2)
    except BrokenPipeError:  # whoever reads the output has enough of it
        drop()
        return 141
    except (ValueError, OSError) as error:
        return _say(str(error) or type(error).__name__, 2)
    except RecursionError:
        return _say("expected input that is nested less deeply; this takes more frames than Python has", 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        return _say(f"expected sizes that fit the memory there is; choose smaller ones ({error or 'no more'})", 2)
    except Diverged as error:
        return _say(str(error), 1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _say(str(error) or "interrupted", 130)


def parser() -> Parser:
    top = Parser(prog="solomonic", description="Sequence models that remember: train, compare, use and study them.")
    top.add_argument("--version", action="version", version=f"solomonic {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda module: module.name):
        if not module.name.startswith("_"):
            file = importlib.import_module(f"{__package__}.{module.name}")
            summary = file.__doc__.splitlines()[0].rstrip(".")
            command = commands.add_parser(module.name, help=summary[0].lower() + summary[1:], description=file.__doc__)
            file.arguments(command)
            command.set_defaults(run=file.run, file_of_command=file, extra=getattr(file, "EXTRA", module.name))
    return top


def _say(message: str, code: int) -> int:
    print(f"solomonic: {_line(message)}", file=sys.stderr)
    return code


def _line(message: str) -> str:
    line = visible(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _is_memory(error: BaseException) -> bool:
    """Whether memory ran out: PyTorch says so on a CPU by a RuntimeError of its allocator."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _extra(extra: str, command: str, error: ModuleNotFoundError) -> str:
    """What to install for a command whose library is not there. An extra is named as its command, or by its `EXTRA`."""
    if (error.name or "").startswith("solomonic"):
        raise error
    return f"{command} needs {error.name}, which is not installed: pip install 'solomonic[{extra}]'"
