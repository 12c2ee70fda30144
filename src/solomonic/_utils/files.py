"""Files that are replaced as a whole or not at all, and the right to change one, which ends with its process."""

import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from . import locks

PARTIAL, LOCK = ".partial", ".lock"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to. What is there when the block ends becomes `path`, on the disk before this returns.

    It is an empty file beside `path`, with a unique name, to be written to in place: any number of processes may write at
    once, and the last that ends decides. After an error, such as a full disk, `path` is as it was and no file is left;
    the next call removes the file of a process that was killed. Permissions of `path` stay as they were. A link is
    followed: the file that it names is replaced. A device, a pipe and the file to which the process's own output goes get
    the whole content at the end. ValueError for no path and for a folder.
    """
    target = destination(path)
    if _is_streamed(target):
        with tempfile.TemporaryDirectory() as folder:
            content = Path(folder) / "content"
            content.touch()
            yield content
            stream = _stream(target)
            if sys.stdout is not None:
                sys.stdout.flush()  # what was printed stands before it
            with content.open("rb") as source, open(target if stream is None else os.dup(stream), "wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    partial, handle = _begin(target)
    try:
        yield partial
        if not _same(handle, partial):
            raise RuntimeError(f"{partial}: expected to be written to, not to be replaced: its lock went with it")
        if mode is not None:
            os.fchmod(handle, mode)
        os.fsync(handle)
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        os.close(handle)
    _sync(target.parent)


def write(path: str | Path, content: str | bytes) -> None:
    """`content`, UTF-8 where it is text, as the whole file `path`.

    What UTF-8 lacks, a byte of a file's name that is no text, is written as in JSON: \\udce9.
    """
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def write_all(folder: str | Path, contents: Mapping[str, str]) -> None:
    """`contents`, text by name of file, into `folder`: all of them, or after an error, such as a full disk, none.

    The folder is there, and `locked` by the caller. A process that is killed while the last names are given leaves files
    that are whole, and maybe not all new.
    """
    sweep(folder)
    partial = {name: Path(folder) / f".{name}{PARTIAL}" for name in contents}
    try:
        for name, text in contents.items():
            with partial[name].open("wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
        for name, written in partial.items():
            os.replace(written, Path(folder) / name)
    except BaseException as error:
        for written in partial.values():
            written.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise
    _sync(Path(folder))


def destination(path: str | Path) -> Path:
    """The file that `path` names, links followed; of a device or a pipe `path` itself.

    ValueError where that is no path, or a folder or a socket.
    """
    if not str(path) or "\0" in str(path):
        raise ValueError(f"expected the path of a file, got {str(path)!r}")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if str(path).endswith(("/", os.sep)):
            raise ValueError(f"{path}: expected the path of a file, got that of a folder") from None
        return Path(path).resolve()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path}: expected a file, got a link that leads to itself") from None
    if stat.S_ISDIR(mode) or (stat.S_ISSOCK(mode) and _stream(path) is None):
        raise ValueError(f"{path}: expected a file to write to, got a {'folder' if stat.S_ISDIR(mode) else 'socket'}")
    return Path(path).resolve() if stat.S_ISREG(mode) else Path(path)  # resolved, a pipe of /dev/fd is no path


def check_place(path: str | Path) -> None:
    """As `destination`, and ValueError where no file can be put there: what is around it is no folder, or not ours."""
    target = destination(path)
    if _is_streamed(target):
        return
    around = next(folder for folder in target.parents if folder.exists())
    if not around.is_dir():
        raise ValueError(f"{path}: expected a path in a folder, {around} is a file")
    if not os.access(around, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: expected a path where files may be made; in {around} none may")


def sweep(folder: str | Path, name: str | None = None) -> None:
    """Remove the unfinished files that killed processes left in `folder`: all, or those of the file `name`."""
    begin = "." if name is None else _partial(name)
    try:
        left = [entry.path for entry in os.scandir(folder) if entry.name.startswith(begin)]
    except OSError:
        return
    for path in left:
        if not path.endswith(PARTIAL):
            continue
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                if locks.try_lock(handle):
                    os.unlink(path)
            finally:
                os.close(handle)


@contextmanager
def locked(path: str | Path, doing: str, folder: bool = False) -> Iterator[None]:
    """The right to change the file `path`, or the `folder`, until the block or the process ends, however it ends.

    Neither has to be there; a folder is made, and goes again if nothing came to be in it. ValueError where another
    process holds it: "PATH: process 123 is `doing`; ...".
    """
    path = Path(path).resolve() if folder else destination(path)
    made = None
    if folder:
        made = _first_missing(path)
        path.mkdir(parents=True, exist_ok=True)
    if not locks.AVAILABLE or (not folder and _is_streamed(path)):
        yield
        return
    name = path / LOCK if folder else path.with_name(_partial(path.name)[:-1] + LOCK)
    name.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(name, path, doing)
    try:
        yield
    finally:
        name.unlink(missing_ok=True)
        os.close(handle)
        if made is not None:
            with suppress(OSError):
                for empty in (path, *path.parents):
                    empty.rmdir()
                    if empty == made:
                        break


def owned(folder: str | Path, kind: str, *marks: str, option: str = "--out") -> None:
    """ValueError unless `folder` is new, or empty, or holds one of the files `marks`, as the folder of a `kind` does.

    `option` is the command's word that named it.
    """
    folder = Path(folder)
    if not folder.parts:
        raise ValueError(f"{option}: expected the name of a folder for {kind}, got {str(folder)!r}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option}: expected a folder, {folder} is a file")
    if any((folder / mark).exists() for mark in marks) or (there := _something_in(folder)) is None:
        return
    raise ValueError(
        f"{option}: expected a new or an empty folder, or that of {kind}, got {folder}, which holds {there}; name another"
    )


def _is_streamed(target: Path) -> bool:
    """Whether content is written into what is there, for that is no file, or a standard stream goes to it."""
    return target.exists() and (not target.is_file() or _stream(target) is not None)


def _stream(path: str | Path) -> int | None:
    """The standard output or error, by number, that goes to the file or pipe `path`; None where neither does."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), os.stat(path)):
                return number
    return None


def _something_in(folder: Path) -> str | None:
    """A file under `folder` that is no lock and no unfinished one, None where there is none."""
    for where, _folders, names in os.walk(folder):
        for name in sorted(names):
            if name != LOCK and not (name.startswith(".") and name.endswith(PARTIAL)):
                return os.path.relpath(os.path.join(where, name), folder)
    return None


def _first_missing(path: Path) -> Path | None:
    """The highest of the folder and those around it that is not there, None where all are."""
    missing = [around for around in (path, *path.parents) if not around.exists()]
    return missing[-1] if missing else None


def _lock(name: Path, path: Path, doing: str) -> int:
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not locks.try_lock(handle):
                raise ValueError(
                    f"{path}: process {locks.holder(handle)} is {doing}; wait for it, or name another path"
                )
            if _same(handle, name):  # or whoever held it has just taken the file away
                locks.sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _begin(target: Path) -> tuple[Path, int]:
    """An empty file beside `target`, which is locked: no other process takes it for one that was left."""
    while True:
        partial = target.with_name(_partial(target.name) + secrets.token_hex(8) + PARTIAL)
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if locks.try_lock(handle) and _same(handle, partial):  # or a sweep has taken it between the two lines
            return partial, handle
        os.close(handle)


def _partial(name: str) -> str:
    """How the unfinished files of `name` begin."""
    return "." + os.fsdecode(os.fsencode(name)[:200]) + "."


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    """To the disk. Folders cannot be opened everywhere; there the rename may come later."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders cannot be synced
            raise
    finally:
        os.close(handle)


__all__ = ["check_place", "destination", "locked", "owned", "replacing", "sweep", "write", "write_all"]
