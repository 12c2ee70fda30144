"""The parser, and the one place where a user's mistake becomes a line on stderr."""

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
from typing import Any, NoReturn

import torch

from .. import __version__
from .._utils import plugins
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
            "\n".join(_continued(line, width) for line in text.splitlines())
            if text.startswith(" ")
            else textwrap.fill(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent)
            for text in paragraphs
        )


class Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": Help} | options)

    def error(self, message: str) -> NoReturn:
        line = f"{self.prog}: {_line(message)} (see {self.prog} --help)"
        self.exit(2, paragraph(line, file=sys.stderr) + "\n")

    def parse_known_args(self, words: Any = None, namespace: Any = None) -> Any:
        """A parser of commands prints its help for no words. An unknown option is reported before a missing argument.

        A positional argument that takes any number of words (a prompt, files) may stand between and after the options.
        """
        words = sys.argv[1:] if words is None else list(words)
        if self._subparsers is not None and not words:
            self.print_help()
            self.exit()
        ours = takewhile(lambda word: word != "--" and (self._subparsers is None or word.startswith("-")), words)
        for word in ours:
            name = word.partition("=")[0]
            known = any(option.startswith(name) for option in self._option_string_actions)
            if name.startswith("--") and " " not in name and not known:
                self._unknown(word)
        args, rest = super().parse_known_args(words, namespace)
        free = rest.index("--") if "--" in rest else len(rest)
        for word in rest[:free]:
            if re.match("-[^0-9.]", word):
                self._unknown(word)
        rest = rest[:free] + rest[free + 1 :]
        many = [action.dest for action in self._get_positional_actions() if action.nargs in ("*", "+")]
        if rest and not many:
            self.error(f"expected nothing more, got {' '.join(rest)!r}")
        if rest:
            setattr(args, many[-1], [*getattr(args, many[-1]), *rest])
        return args, []

    def _unknown(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        shown = {known for known, action in self._option_string_actions.items() if action.help != argparse.SUPPRESS}
        near = hint(name, sorted(known for known in shown if known.startswith("--")))
        if not near and self._subparsers is not None:
            near = "those of a command come after it"
        elif not near and any(action.dest in ("prompt", "text") for action in self._actions):
            near = "text that begins with - comes after --"
        self.error(f"unknown option {name!r}{'; ' * bool(near)}{near}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's check of a choice, with the near one in its message."""
        if action.choices is not None and value not in action.choices:
            kind = "command" if isinstance(action, argparse._SubParsersAction) else action.option_strings[-1]
            self.error(str(unknown(kind, value, action.choices)))


def run(arguments: list[str], begin: Callable[[], None] = lambda: None) -> int:
    """Exit code, as `main`. `begin` is called when the command line has been read and the work begins.

    Readers and checks raise ValueError and OSError, with the path. MemoryError and RecursionError are caught here and
    nowhere else: a user's sizes and nesting can exhaust memory or frames on any line, and here the frames below are
    gone, so that there is room to print. Any other exception is a bug, and shows its traceback.
    """
    words = [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments
    args = parser().parse_args(words)
    begin()
    try:
        guard(args, args.file_of_command)
        with threads(getattr(args, "threads", None)), _warnings(), compiling_said():
            notice(busy_message() if "threads" in args else None)
            for word in getattr(args, "plugin", None) or ():
                plugins.load(word)
            code = args.run(args, arguments)
        flush()
        return code
    except ModuleNotFoundError as error:
        return _say(_extra(args.extra, args.command, error), 2)
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
            summary = (file.__doc__ or "").splitlines()[0].rstrip(".")
            command = commands.add_parser(module.name, help=summary[0].lower() + summary[1:], description=file.__doc__)
            file.arguments(command)
            command.set_defaults(run=file.run, file_of_command=file, extra=getattr(file, "EXTRA", module.name))
    return top


def busy_message() -> str | None:
    """A message for a busy machine, with what to do about it; None for one that is not."""
    load = busy()
    if load is None or torch.get_num_threads() == 1:
        return load and f"{load}; this takes longer than alone"
    return f"{load}; threads that wait for one another are slower than one alone: try --threads 1"


@contextmanager
def _warnings() -> Iterator[None]:
    """A warning of this library is one line, as an error is; those of other libraries stay as they are."""
    plain = warnings.formatwarning

    def as_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if str(filename).startswith(HERE):
            return paragraph(f"solomonic: {_line(str(message))}", file=sys.stderr) + "\n"
        return plain(message, category, filename, lineno, line)

    warnings.formatwarning = as_line
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
    """An indented command, on several lines of a shell where it is too long for one."""
    indent = " " * (len(line) - len(line.lstrip()))
    lines = textwrap.wrap(
        line.strip(),
        max(width - len(indent) - 2, 20),
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return " \\\n".join(indent + part for part in lines)


def _is_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a CPU PyTorch's allocator raises RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _extra(extra: str, command: str, error: ModuleNotFoundError) -> str:
    """A message for a missing library: what to install. An extra has its command's name, or that of its `EXTRA`."""
    if (error.name or "").startswith("solomonic"):
        raise error
    return f"{command} needs {error.name}, which is not installed: pip install 'solomonic[{extra}]'"
