"""A comparison of one's own, as a TOML file describes it: docs/evaluation.md has an example, and says what each key is.

What a file leaves out is as in the first run of the suite `quick`, which `solomonic compare --task NAME` takes too.
"""

import inspect
import re
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch

from .._utils import plugins
from .._utils.spelling import choose, unknown
from ..presets import PRESETS, preset
from ..tasks import TASKS
from ..tasks import options as options_of
from ..training.config import TrainConfig
from .matrix import build_model, check_task
from .suites import RUNS, SUITES, Run, Suite, select

KEYS = ("archs", "tasks", "seeds", "plugins", "dials", "options", "train")
DIALS = {k: v for k, v in get_type_hints(preset).items() if k not in ("name", "vocab_size", "layers", "return")}
OF_RUN = {k: get_type_hints(Run)[k] for k in ("steps", "batch_size", "samples", "least_samples", "lrs")}
OF_TRAIN = {k: v for k, v in get_type_hints(TrainConfig).items() if k not in ("steps", "batch_size", "lr", "seed")}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
MOST_SEEDS = 1000


def experiment(
    path: Path,
    archs: list[str] | None = None,
    tasks: list[str] | None = None,
    seeds: int | None = None,
    data: str | None = None,
) -> Suite:
    """The comparison that the file describes, all defaults filled in, narrowed to `archs`, `tasks` and `seeds`.

    data: as `suites.suite` has it. ValueError for a key, name, type or value that cannot be: it names the file, the key,
    what was expected, and the near name.
    """
    with _at(str(path)):
        base = _suite(path.stem, _content(path))
    chosen = select(base, base.archs, base.runs, archs, tasks, seeds, data)
    for name, run in chosen.runs.items():
        with _at(f"{path}: options.{name}"):
            check_task(run)
    return chosen


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():  # a pipe or a device would be waited for
        actual = "a folder" if path.is_dir() else "no file" if path.exists() else "it is not there"
        raise ValueError(f"expected a TOML file that describes a comparison; {actual}")
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        _check_plain(content)
    except RecursionError:
        raise ValueError("expected a TOML file that is nested less deeply") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected TOML in UTF-8, got what is none ({error})") from None
    return content


def _suite(name: str, content: dict[str, Any]) -> Suite:
    quick = SUITES["quick"]
    first = next(iter(quick.runs.values()))
    _check_keys("key", content, KEYS)
    with _at("plugins"):
        for word in _list("plugins", content) if "plugins" in content else ():
            plugins.load(_value("plugins", word, str))
    tables = {key: _table(key, content.get(key, {})) for key in ("dials", "options", "train")}
    seeds = _value("seeds", content.get("seeds", quick.seeds), int)
    if not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"seeds: expected a whole number from 1 to {MOST_SEEDS}, got {seeds}")

    with _at("dials"):
        _check_keys("dial", tables["dials"], DIALS)
        own = {key: _value(key, value, DIALS[key]) for key, value in tables["dials"].items()}
    dials = {dial: inspect.signature(preset).parameters[dial].default for dial in DIALS} | first.dials | own
    archs = _unique("archs", [_arch(entry) for entry in _list("archs", content)])
    pattern = replace(_trained(first, tables["train"]), lengths=None, best_lr={}, dials=dials, archs=archs)
    for arch, what in archs.items():
        with _at(arch), torch.device("meta"):
            layers = build_model(arch, pattern, 64, 0).config.layers
        if "layers" in what:
            what["layers"] = [layer.to_dict() for layer in layers[: len(what["layers"])]]
    names = [_value("tasks", entry, str) for entry in _list("tasks", content)]
    tasks = _unique("tasks", [(name, _task(name, tables["options"])) for name in names])
    _check_keys("table in options", tables["options"], tasks)
    runs = {task: replace(pattern, task=of, options=options) for task, (of, options) in tasks.items()}
    return replace(quick, name=name, archs=tuple(archs), runs=runs, seeds=seeds)


def _arch(entry: object) -> tuple[str, dict[str, Any]]:
    """The name of an architecture, and what it is, as `Run.archs` has it."""
    if isinstance(entry, str):
        with _at("archs"):
            choose("architecture", entry, PRESETS)
        return entry, {"name": entry}
    if not isinstance(entry, dict):
        raise ValueError(f"archs: expected names of architectures, or tables with a name, got {entry!r}")
    name = _name("archs: name", entry.get("name"), PRESETS, "architecture")
    with _at(f"archs: {name}"):
        _check_keys("key", entry, ("name", "preset", "layers", *DIALS))
        dials = {key: _value(key, entry[key], hint) for key, hint in DIALS.items() if key in entry}
        if ("preset" in entry) == ("layers" in entry):
            raise ValueError(f"expected one of preset and layers, got {'both' if 'preset' in entry else 'neither'}")
        if "preset" in entry:
            choose("architecture", base := _value("preset", entry["preset"], str), PRESETS)
            return name, {"name": base} | dials
        layers = entry["layers"]
        if not (isinstance(layers, list) and layers and all(isinstance(layer, dict) for layer in layers)):
            raise ValueError(f'layers: expected a list of tables such as {{ mixer = "mamba2" }}, got {layers!r}')
        return name, {"layers": layers} | dials


def _task(name: str, tables: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The task, and all of its options."""
    table, where = _table(f"options.{name}", tables.get(name, {})), f"options.{name}"
    if name not in tables and name not in TASKS and name not in RUNS:
        raise unknown("task in tasks", name, {*TASKS, *RUNS, *tables})
    ours = RUNS.get(name) if "task" not in table else None
    task = ours.task if ours else _value(f"{where}: task", table.get("task", name), str)
    with _at(where):
        _check_keys("task", [task], TASKS)
        if task != name and ours is None:
            _name("tasks", name, {*TASKS, *RUNS}, "task")
        known = options_of(task) | (ours.options if ours else {})
        _check_keys(f"option of task {task}", table, (*known, "task"))
    return task, known | {key: value for key, value in table.items() if key != "task"}


def _trained(first: Run, table: dict[str, Any]) -> Run:
    """`first`, trained as the file says."""
    with _at("train"):
        _check_keys("setting", table, (*OF_RUN, *OF_TRAIN))
        own = {key: _value(key, value, (OF_RUN | OF_TRAIN)[key]) for key, value in table.items()}
        usual: dict[str, Any] = {field.name: field.default for field in fields(TrainConfig)} | first.train
        train = {key: own.get(key, usual[key]) for key in OF_TRAIN}
        run = replace(first, train=train, **{key: value for key, value in own.items() if key in OF_RUN})
        if min(run.samples, run.least_samples) < 1:
            raise ValueError(f"expected samples and least_samples >= 1, got {run.samples} and {run.least_samples}")
        for lr in run.lrs:
            TrainConfig(run.steps, run.batch_size, lr, **train)
        if len({f"{lr:g}" for lr in run.lrs}) < len(run.lrs):  # the name of a cell's checkpoint has so many digits
            raise ValueError(f"lrs: expected rates that differ in their first six digits, got {list(run.lrs)}")
    return run


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Errors of what a user wrote say where it is written."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
    except (TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{where}: expected settings of another kind, or smaller ones ({error})") from None


def _check_keys(kind: str, table: Collection[str], known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            raise unknown(kind, key, known)


def _value(where: str, value: Any, hint: Any) -> Any:
    """`value`, a tuple for a list. ValueError unless it is of the type `hint`."""
    kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint
    if get_origin(kind) is tuple:
        first, last = get_args(kind)
        count = "" if last is Ellipsis else f"{len(get_args(kind))} "
        if not isinstance(value, list) or not value or (count and len(value) != len(get_args(kind))):
            raise ValueError(f"{where}: expected a list of {count}numbers, got {value!r}")
        return tuple(_value(where, item, first) for item in value)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"{where}: expected {WORDS[kind]}, got {value!r}")
    return value


def _name(where: str, name: object, taken: Collection[str], kind: str) -> str:
    """A name of the file's own, which file names have in them."""
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,60}", name, re.ASCII):
        raise ValueError(f"{where}: expected letters, digits and _, 60 at most, got {name!r}")
    if name.lower() in taken:
        raise ValueError(f"{where}: expected a name that no {kind} has yet, got {name!r}")
    return name


def _table(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: expected a table, got {value!r}")
    return value


def _list(key: str, content: dict[str, Any]) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: expected a list of one or more, got {'nothing' if value is None else repr(value)}")
    return value


def _unique(key: str, entries: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name.lower() for name, _ in entries]  # some file systems do not tell capitals apart
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{key}: expected each name once, got {name!r} {names.count(name)} times")
    return dict(entries)


def _check_plain(content: Any, key: str = "") -> None:
    """ValueError for a date, and for a number that JSON has no word for."""
    if isinstance(content, (dict, list)):
        for name, value in content.items() if isinstance(content, dict) else enumerate(content, 1):
            _check_plain(value, f"{key}.{name}".removeprefix("."))
    elif not isinstance(content, (str, int)) and not (isinstance(content, float) and isfinite(content)):
        raise ValueError(f"{key}: expected text, true, false or a finite number, got {content}")
    elif isinstance(content, int) and abs(content) >= 2**63:
        raise ValueError(f"{key}: expected a number of 64 bits, got {str(content)[:40]}...")
