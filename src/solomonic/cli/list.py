"""Architectures, tasks, suites and devices, a line each."""

import argparse

from .._utils.spelling import paragraph
from ..compare.suites import SUITES
from ..presets import PRESETS
from ..tasks import summaries
from ._device import device_names
from ._options import add_json, write_json

WRITES = ("json",)


def arguments(command: argparse.ArgumentParser) -> None:
    add_json(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    devices = {name: "this machine's processor" if name == "cpu" else "accelerator" for name in device_names()}
    suites = {name: f"{len(s.archs)} architectures on {', '.join(s.runs)}" for name, s in SUITES.items()}
    about = {name: summary for name, (summary, _) in PRESETS.items()}
    groups = {"architectures": about, "tasks": summaries(), "suites": suites, "devices": devices}
    if not write_json(args.json, lambda: groups):
        return 0
    for title, entries in groups.items():
        print(title)
        for name, summary in entries.items():
            print(paragraph(f"{name:<18} {summary}", "  ", " " * 21))
    return 0
