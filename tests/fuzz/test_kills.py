"""Commands that are killed at moments drawn with a seed, a few times each; `python benchmarks/kills.py` does it a hundred times."""

import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.parametrize("names", [["generate", "memory-forget"], ["memory-add"], ["train"]], ids=" ".join)
def test_what_was_killed_ends_like_what_was_left_alone(names):
    found = subprocess.run(
        [sys.executable, KILLS, *names, "--kills", "3"], capture_output=True, text=True, timeout=3600
    )
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()[-len(names) :]
    for name, line in zip(names, lines, strict=True):
        _, said, killed, ended, same, left, _ = (cell.strip() for cell in line.split("|"))
        assert said == name and int(killed) == 3 and ended == same and left == "0", line
