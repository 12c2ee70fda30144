"""Serve a model over HTTP, with the API of `transformers serve`: what speaks OpenAI's completions speaks to it.

    solomonic serve runs/books --port 8000

Every other option goes to `transformers serve`, to which our models are made known; `--help` after the folder lists
them.
"""

import argparse
import sys
from pathlib import Path


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="MODEL", help="folder of the model")
    command.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of `transformers serve`")


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    import fastapi  # noqa: F401  named here, before transformers says in other words that it is not installed
    import transformers
    from transformers.cli import transformers as command

    from .. import hf
    from ..folder import load

    if not {"-h", "--help"} & set(chosen.rest):
        load(chosen.folder)
    transformers.SolomonicForCausalLM = hf.SolomonicForCausalLM  # the server looks an architecture up by its name there
    sys.argv = ["transformers", "serve", str(chosen.folder), *chosen.rest]
    return command.main() or 0
