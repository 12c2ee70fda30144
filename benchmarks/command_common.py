"""What benchmarks share: paths as types of `argparse`, one line and exit code 2 where one cannot serve, before any work;
and the command line of the library, which says itself why it stopped.
"""

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from solomonic._utils.files import check_place


def stop(message: str) -> NoReturn:
    """End with this line on stderr and exit code 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


def existing(name: str) -> Path:
    """A file or folder."""
    path = Path(name)
    if not path.exists():
        stop(f"{path}: expected a file or folder; it is not there")
    return path


def existing_file(name: str) -> Path:
    """A file to read."""
    path = Path(name)
    if not path.is_file():
        stop(f"{path}: expected a file; {'it is no file' if path.exists() else 'it is not there'}")
    return path


def existing_folder(name: str | Path, *parts: str) -> Path:
    """A folder to read, with these files and folders in it."""
    path = Path(name)
    if not path.is_dir():
        stop(f"{path}: expected a folder; {'it is none' if path.exists() else 'it is not there'}")
    missing = [part for part in parts if not (path / part).exists()]
    if missing:
        stop(f"{path}: expected a folder with {', '.join(parts)}; it has no {', '.join(missing)}")
    return path


def new_file(name: str) -> Path:
    """A file to write."""
    path = Path(name)
    try:
        check_place(path)
    except ValueError as error:
        stop(str(error))
    return path


def new_folder(name: str) -> Path:
    """A folder to write in, made where it is not there."""
    path = Path(name)
    around = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not around.is_dir():
        stop(f"{path}: expected a folder to write in, {around} is a file")
    return path


def solomonic(*words: object) -> None:
    """Run this command; where it stops or fails, end with its exit code."""
    code = subprocess.run([sys.executable, "-m", "solomonic", *map(str, words)]).returncode
    if code:
        raise SystemExit(code)
