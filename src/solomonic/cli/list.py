"""Architectures, tasks, suites and devices, a line each."""

import argparse

from ..compare.suites import SUITES
from ..presets import PRESETS
from ..tasks import summaries
from ._device import device_names


def arguments(command: argparse.ArgumentParser) -> None:
    pass


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    devices = {name: "this machine's processor" if name == "cpu" else "accelerator" for name in device_names()}
    suites = {name: f"{len(s.archs)} architectures on {', '.join(s.runs)}" for name, s in SUITES.items()}
    about = {name: summary for name, (summary, _) in PRESETS.items()}
    for title, entries in {"architectures": about, "tasks": summaries(), "suites": suites, "devices": devices}.items():
        print(title)
        for name, summary in entries.items():
            print(f"  {name:<18} {summary}")
    return 0
