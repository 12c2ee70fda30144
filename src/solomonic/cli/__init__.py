"""The command line. A user's mistake gives one line on stderr and exit code 2, never a traceback.

A command is a file here, known by being there: its docstring's first line is its summary, `arguments(parser)` adds its
options, `run(args, words)` does it and returns the exit code. What takes long to import is imported in `run`. This
file imports next to nothing, so that Ctrl-C is looked after before anything that takes long.
"""

import os
import sys

from ._interrupts import interrupts
from ._streams import open_streams


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 when training diverged, 2 for a user's mistake, 130 when interrupted, 141 without a reader.

    `arguments` None: the process's own, which ends with this.
    """
    with interrupts(ends=arguments is None) as begun:
        try:
            open_streams()
            if arguments is None and not sys.stderr.isatty():  # bars of other libraries: ours are lines there
                os.environ.setdefault("TQDM_DISABLE", "1")
            from ._commands import run

            return run(sys.argv[1:] if arguments is None else arguments, begun)
        except KeyboardInterrupt:
            print("solomonic: interrupted", file=sys.stderr)
            return 130
