"""Architectures, tasks, suites and devices, a line each."""

import argparse

from .._utils.plugins import load_installed
from .._utils.spelling import paragraph
from ..compare.suites import SUITES
from ..presets import PRESETS
from ..tasks import TASKS, summaries
from ._device import device_names
from ._options import add_json, add_plugin, write_json

WRITES = ("json",)


def arguments(command: argparse.ArgumentParser) -> None:
    add_plugin(command)
    add_json(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    load_installed()
    devices = {name: "this machine's processor" if name == "cpu" else "accelerator" for name in device_names()}
    suites = {name: f"{len(s.archs)} architectures on {', '.join(s.runs)}" for name, s in SUITES.items()}
    about = {name: summary for name, (summary, _) in PRESETS.items()}
    groups = {"architectures": about, "tasks": summaries(), "suites": suites, "devices": devices}
    if not write_json(args.json, lambda: groups):
        return 0
    origins = {"architectures": PRESETS.origins, "tasks": TASKS.origins}
    for title, entries in groups.items():
        print(title)
        added = origins.get(title, {})
        for name, summary in entries.items():
            summary += f" (plug-in {added[name]})" if name in added else ""
            print(paragraph(f"{name:<18} {summary}", "  ", " " * 21))
    return 0
