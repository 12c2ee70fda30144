"""The commands of `solomonic`, as its parser has them."""

import argparse
from collections.abc import Iterator

from solomonic.cli._commands import parser


def commands() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Every command and subcommand by its words."""

    def walk(command: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple]:
        inner = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            yield words, command
        for action in inner:
            for name, other in action.choices.items():
                yield from walk(other, (*words, name))

    return dict(walk(parser(), ()))
