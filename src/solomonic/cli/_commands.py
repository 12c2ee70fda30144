"""The commands, and the one place where what is the user's becomes a line on stderr."""

import argparse
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import torch

from .. import __version__
from .._utils.machine import busy
from .._utils.progress import compiling_said, notice
from .._utils.spelling import hint, message_of, paragraph, unknown, warn
from ..training.history import Diverged, Interrupted
from ._device import threads
from ._passages import visible
from ._paths import guard
from ._streams import drop, flush

LONGEST = 2000  # characters of a message: a file may have a name or a value of any length
HERE = str(Path(__file__).parents[1])


class Help(argparse.HelpFormatter):
    """Paragraphs of a description are filled to the width of the terminal; what is indented in it stays by itself."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = inspect.cleandoc(text).split("\n\n")
        return "\n\n".join(
            "\n".join(_continued(line, width) for line in one.splitlines())
            if one.startswith(" ")
            else textwrap.fill(" ".join(one.split()), width, initial_indent=indent, subsequent_indent=indent)
            for one in paragraphs
        )


class Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(**{"formatter_class": Help} | options)

    def error(self, message: str):
        said = f"{self.prog}: {_line(message)} (see {self.prog} --help)"
        self.exit(2, paragraph(said, file=sys.stderr) + "\n")

    def parse_known_args(self, args=None, namespace=None):
        """Without a word where there are commands, the help. An option that nobody knows is said before what is missing.

        Words of which any number may come, a prompt or files, may stand between and after the options too.
        """
        args = sys.argv[1:] if args is None else list(args)
        if self._subparsers is not None and not args:
            self.print_help()
            self.exit()
        ours = takewhile(lambda word: word != "--" and (self._subparsers is None or word.startswith("-")), args)
        for word in ours:
            name = word.partition("=")[0]
            known = any(one.startswith(name) for one in self._option_string_actions)
            if name.startswith("--") and " " not in name and not known:
                self._unknown(word)
        chosen, rest = super().parse_known_args(args, namespace)
        free = rest.index("--") if "--" in rest else len(rest)
        for word in rest[:free]:
            if re.match("-[^0-9.]", word):
                self._unknown(word)
        rest = rest[:free] + rest[free + 1 :]
        many = [action.dest for action in self._get_positional_actions() if action.nargs in ("*", "+")]
        if rest and not many:
            self.error(f"expected nothing more, got {' '.join(rest)!r}")
        if rest:
            setattr(chosen, many[-1], [*getattr(chosen, many[-1]), *rest])
        return chosen, []

    def _unknown(self, word: str):
        name = word.partition("=")[0]
        near = hint(name, [known for known in self._option_string_actions if known.startswith("--")])
        if not near and self._subparsers is not None:
            near = "those of a command come after it"
        elif not near and any(action.dest in ("prompt", "text") for action in self._actions):
            near = "text that begins with - comes after --"
        self.error(f"unknown option {name!r}{'; ' * bool(near)}{near}")

    def _check_value(self, action, value):
        """argparse's check of a choice, with the near one in its message."""
        if action.choices is not None and value not in action.choices:
            kind = "command" if isinstance(action, argparse._SubParsersAction) else action.option_strings[-1]
            self.error(str(unknown(kind, value, action.choices)))


def run(arguments: list[str], begin: Callable[[], None] = lambda: None) -> int:
    """Exit code, as `main`. `begin` is told when the command line is read and the work begins.

    ValueError and OSError are what readers and checks raise, with the path. MemoryError and RecursionError are caught
    here and nowhere else: they come from sizes and from nesting that a person chose, out of whatever line happened to
    need one byte or one frame too many, so that no reader could name them all; up here all of that is let go of, and
    there is room again to print. Any other exception is a mistake of ours, and shows its traceback.
    """
    words = [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments
    chosen = parser().parse_args(words)
    begin()
    try:
        guard(chosen, chosen.file_of_command)
        with threads(getattr(chosen, "threads", None)), _warnings(), compiling_said():
            notice(_busy() if "threads" in chosen else None)
            code = chosen.run(chosen, arguments)
        flush()
        return code
    except ModuleNotFoundError as error:
        return _say(_extra(chosen.extra, chosen.command, error), 2)
    except BrokenPipeError:  # whoever reads the output has enough of it
        drop()
        return 141
    except (ValueError, OSError) as error:
        return _say(message_of(error), 2)
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


def _busy() -> str | None:
    """What to say of a busy machine, and what to do about it."""
    said = busy()
    if said is None or torch.get_num_threads() == 1:
        return said and f"{said}; this takes longer than alone"
    return f"{said}; threads that wait for one another are slower than one alone: try --threads 1"


@contextmanager
def _warnings() -> Iterator[None]:
    """A warning of ours is a line as an error is; those of libraries stay as they are."""
    plain = warnings.formatwarning

    def line(message, category, filename, number, text=None):
        if str(filename).startswith(HERE):
            return paragraph(f"solomonic: {_line(str(message))}", file=sys.stderr) + "\n"
        return plain(message, category, filename, number, text)

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = plain


def _say(message: str, code: int) -> int:
    warn(_line(message))
    return code


def _line(message: str) -> str:
    line = visible(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _continued(line: str, width: int) -> str:
    """A command to type, on several lines of a shell where it is too long for one."""
    indent = " " * (len(line) - len(line.lstrip()))
    lines = textwrap.wrap(
        line.strip(),
        max(width - len(indent) - 2, 20),
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return " \\\n".join(indent + one for one in lines)


def _is_memory(error: BaseException) -> bool:
    """Whether memory ran out: PyTorch says so on a CPU by a RuntimeError of its allocator."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _extra(extra: str, command: str, error: ModuleNotFoundError) -> str:
    """What to install for a command whose library is not there. An extra is named as its command, or by its `EXTRA`."""
    if (error.name or "").startswith("solomonic"):
        raise error
    return f"{command} needs {error.name}, which is not installed: pip install 'solomonic[{extra}]'"
