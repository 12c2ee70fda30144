"""The folder of a comparison.

`run.json` has settings, command and versions, `results.jsonl` a line a finished cell, `costs.json` time and state of each
architecture against length, `cells/` checkpoints of cells under way, `models/` a folder for the model of each finished
cell, which every command loads, and `report.html` is the page. The same command on the same folder goes on where it
stopped.
"""

import json
import os
import platform
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._utils import jsontext
from .._utils.files import write
from .._utils.plugins import advice, recorded
from .matrix import VERSION, Cell, cells_of
from .suites import Suite

CELL = frozenset(field.name for field in fields(Cell))  # what every line names


def open_folder(
    folder: Path, suite: Suite, device: str, command: str, tasks: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Make or check the folder of a comparison, write `run.json`, and return the lines that it has already.

    tasks: the digest of each run's task. Raises ValueError when the folder holds results of other settings or data.
    """
    settings = settings_of(suite, device, tasks)
    about, results = folder / "run.json", folder / "results.jsonl"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, {folder} is a file")
    lines, _ = read_lines(results)
    if about.exists():
        earlier = _settings_in(about)
        for name, run in settings["runs"].items():
            before = earlier.get("runs", {}).get(name)
            if (
                (before is not None and before != run)
                or earlier.get("device") != device
                or earlier.get("suite") != suite.name
                or not _same_archs(earlier.get("archs"), settings.get("archs"))
            ):
                raise ValueError(
                    f"{folder} holds results of another configuration (suite {earlier.get('suite')!r} on "
                    f"{earlier.get('device')!r}); choose another --out, or delete that folder"
                )
        if any(line.get("version", 1) != VERSION for line in lines):
            raise ValueError(
                f"{folder} holds results whose held-out text and scores are of another version of the comparison; choose "
                "another --out (`solomonic results` goes on reading that folder)"
            )
        known = earlier.get("tasks", {})
        for name, now in settings["tasks"].items():
            if known.get(name, now) != now:
                raise ValueError(
                    f"{folder} holds results of {name} on other data than there is now; choose another --out, or bring "
                    "the data back"
                )
        settings["runs"] = earlier["runs"] | settings["runs"]
        if "archs" in settings:
            settings["archs"] = earlier["archs"] | settings["archs"]
        settings["tasks"] = known | settings["tasks"]
        if names := {*plugins_of(earlier), *settings.get("plugins", ())}:
            settings["plugins"] = sorted(names)
    elif results.exists():
        raise ValueError(f"{folder} has results but no run.json that says of what; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write(about, jsontext.write(describe(suite, device, command) | {"settings": settings}, 1))
    _put_aside(results)
    return lines


def _same_archs(before: dict[str, Any] | None, now: dict[str, Any] | None) -> bool:
    """Whether no architecture of a file has changed; None: those of a suite of ours, which have no settings."""
    if before is None or now is None:
        return before is now
    return all(before.get(name, arch) == arch for name, arch in now.items())


def _settings_in(about: Path) -> dict[str, Any]:
    try:
        settings = jsontext.read(about, dict)["settings"]
        if isinstance(settings["runs"], dict) and all(
            isinstance(settings.get(x, {}), dict) for x in ("tasks", "archs")
        ):
            return settings
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(
        f"{about}: expected the settings of a comparison, got a file that is damaged; use a copy of it, or another --out"
    )


def plugins_of(settings: Mapping[str, Any]) -> list[str]:
    """The plug-ins that the settings of a comparison name, none where that is damaged."""
    names = settings.get("plugins")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def plugins_advice(folder: Path) -> str:
    """What to add to the message for an unknown name, where results in the folder are of a plug-in that is not loaded."""
    about = folder / "run.json"
    try:
        return advice({"plugins": plugins_of(_settings_in(about))}, folder)
    except (ValueError, OSError):
        return ""


def describe(suite: Suite, device: str, command: str) -> dict[str, Any]:
    from .. import __version__

    return {
        "command": command,
        "suite": suite.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "threads": torch.get_num_threads(),
        "cells": len(cells_of(suite)),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {
            "solomonic": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def settings_of(suite: Suite, device: str, tasks: dict[str, str] | None = None) -> dict[str, Any]:
    """What must be the same for results to stand in one folder; architectures and seeds may be added."""
    runs = {name: asdict(run) for name, run in suite.runs.items()}
    archs = {name: dials for run in runs.values() for name, dials in run.pop("archs").items()}
    of_file = {"archs": archs, "seeds": suite.seeds} if archs else {}
    settings = {"suite": suite.name, "device": device, "runs": runs, "tasks": tasks or {}} | of_file
    return jsontext.plain(settings | recorded([suite.archs, settings]))


def read_lines(results: Path, names: Collection[str] = CELL) -> tuple[list[dict[str, Any]], list[str]]:
    """The sound lines of a file of JSON lines, and the text of the others.

    A sound line is a whole object with all of `names` and with the digest that it was written with; lines of an earlier
    version have no digest.
    """
    sound, damaged = [], []
    for text in _texts(results):
        line = _sound(text)
        if line is not None and line.keys() >= set(names):
            sound.append(line)
        else:
            damaged.append(text)
    return sound, damaged


def append_line(results: Path, line: dict[str, Any]) -> None:
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"digest": jsontext.digest(line)}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sound(text: str) -> dict[str, Any] | None:
    try:
        line = jsontext.parse(text, "line", dict, infinite=True)
    except ValueError:
        return None
    digest = line.pop("digest", None)
    return line if digest in (None, jsontext.digest(line)) else None


def _put_aside(results: Path) -> None:
    """Move damaged lines to a file beside, with a message: their cells are trained again."""
    _, damaged = read_lines(results)
    if not damaged:
        return
    aside = results.with_name("results.damaged")
    print(
        f"solomonic: {results}: {len(damaged)} damaged line{'s' * (len(damaged) > 1)}, now in {aside.name}; what is "
        "missing is trained again",
        file=sys.stderr,
    )
    for path, lines in ((aside, _texts(aside) + damaged), (results, [x for x in _texts(results) if x not in damaged])):
        write(path, "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))


def _texts(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    return [line for line in text.split("\n") if line.strip()]
