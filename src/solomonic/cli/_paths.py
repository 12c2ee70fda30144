"""Checks of the paths that a command writes: never a file that it reads, never another of its outputs.

A command names its options that are paths: `READS`, `MODELS` (folders of models, which are read too), `WRITES` (files)
and `MAKES` (folders).
"""

import argparse
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .._utils.files import check_place
from ..data.corpus import files

OF_MODEL: tuple[str, ...] = (
    "*.safetensors",
    "*.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens*",
)
OF_MODEL += ("vocab*", "merges.txt", "*.jinja", "*.bin", "README.md", "training.json", "run")
POSITIONAL = {name: name.upper() for name in ("model", "data", "clip", "bits", "path", "experiment")} | {
    "folders": "DIR"
}


def guard(args: argparse.Namespace, command: Any) -> None:
    """ValueError where an output would replace an input or another output, or cannot be written at all.

    command: the module of the command.
    """
    reads = list(_paths(args, getattr(command, "READS", ())))
    reads += [("plugin", Path(word)) for word in getattr(args, "plugin", None) or () if word.endswith(".py")]
    models = list(_paths(args, getattr(command, "MODELS", ())))
    names = (*getattr(command, "WRITES", ()), *getattr(command, "MAKES", ()))
    for name in names:
        if str(getattr(args, name, None)) in ("", ".") or "\0" in str(getattr(args, name, None)):
            raise ValueError(
                f"{_option(name)}: expected the path of what to write, got {str(getattr(args, name))!r}; name one"
            )
    writes = list(_paths(args, names))
    for i, (name, path) in enumerate(writes):
        for other, source in reads + models + writes[:i]:
            if other != name and _same(path, source):
                raise ValueError(f"{_option(name)}: expected another file than {source}, which is {_option(other)}")
        for other, source in reads:
            if source.is_dir() and _inside(path, source):
                raise ValueError(
                    f"{_option(name)}: expected a path outside of {source}, got {path}; {_option(other)} is read whole, "
                    "and what is written there would be read the next time"
                )
            if source.is_dir() and path.is_file() and any(_same(path, file) for file in files(source)):
                raise ValueError(
                    f"{_option(name)}: expected another file than {path}, to which a link in {source} leads, which is "
                    f"{_option(other)}"
                )
            if _inside(source, path):
                raise ValueError(
                    f"{_option(name)}: expected a folder without {source} in it, which is {_option(other)}, got {path}"
                )
        for other, source in models:
            if _is_of_model(path, source):
                raise ValueError(
                    f"{_option(name)}: expected another file than {path}, which is of {_option(other)}; name another"
                )
        for other, folder in writes:
            if _inside(path, folder):
                raise ValueError(f"{_option(name)}: expected a path outside of {folder}, {_option(other)}, got {path}")
    for name, path in writes:
        if name in getattr(command, "WRITES", ()) or not _there(path):
            try:
                check_place(path)
            except ValueError as error:
                raise ValueError(f"{_option(name)}: {error}") from None


def _paths(args: argparse.Namespace, names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        value = getattr(args, name, None)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is None or not str(item) or "\0" in str(item):
                continue
            path = Path(item)
            if isinstance(item, str) and not _there(path) and re.match(r"[a-z]{2,}:.", item):
                path = Path(item.partition(":")[2])  # of a store
            yield name, path


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long is no file's
        return False


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return _resolved(path) == _resolved(other)


def _inside(path: Path, folder: Path) -> bool:
    return _resolved(folder) in _resolved(path).parents


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _is_of_model(path: Path, folder: Path) -> bool:
    """Whether a path is that of a file which makes `folder` a model, or of one to which a link there leads."""
    if _inside(path, folder):
        first = _resolved(path).relative_to(_resolved(folder)).parts[0]
        return any(fnmatch(first, pattern) for pattern in OF_MODEL)
    return path.is_file() and any(_same(path, file) for pattern in OF_MODEL for file in folder.glob(pattern))


def _option(name: str) -> str:
    return POSITIONAL.get(name, f"--{name.replace('_', '-')}")
