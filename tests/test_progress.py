"""Progress: a bar on a terminal, a line each tenth elsewhere; compiling is said, and counts for nothing in the time left."""

import io
import os
import subprocess
import sys

import pytest

from solomonic._utils import progress
from solomonic._utils.progress import COMPILING, Progress, compiling_begins, compiling_said, notice, on_compiling


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    for name in ("solomonic._utils.progress.time", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(capsys):
    shown, said = capsys.readouterr()
    assert shown == "" and "\r" not in said and "\x1b" not in said
    return said.splitlines()


def test_a_line_each_tenth(capsys, clock):
    with Progress(2000, what="train") as bar:
        for step in range(2000):
            clock[0] += 0.5
            bar.set_note(f"loss {step}")
            bar.update()
    said = lines(capsys)
    assert len(said) == 11 and said[-1] == "train: 100 %, 2,000/2,000 steps in 16:40; loss 1999"
    assert said[0] == "train: 6 %, 120/2,000 steps in 01:00, 15:40 left; loss 119"  # the first minute is over
    assert said[1] == "train: 10 %, 200/2,000 steps in 01:40, 15:00 left; loss 199"


def test_few_and_large_parts(capsys, clock):
    with Progress(3, "document") as bar:
        bar.update()
        bar.update(2)
    assert lines(capsys) == ["33 %, 1/3 documents in 00:00", "100 %, 3/3 documents in 00:00"]
    with Progress(0) as bar:
        bar.compiling()
    with Progress(5, shown=False) as bar:
        bar.update(5)
    assert lines(capsys) == [] and bar.n == 5


def test_without_a_total_a_line_whenever_twice_the_time_is_over(capsys, clock):
    with Progress(unit="program") as bar:
        for _ in range(100):
            clock[0] += 1
            bar.update(1000)
    assert [line.split()[-1] for line in lines(capsys)] == ["00:10", "00:20", "00:40", "01:20"]


def test_compiling_is_said_once_and_does_not_count(capsys, clock):
    """A minute of compiling before the first of two thousand steps, and again at the hundredth."""
    with Progress(2000, what="train") as bar:
        for step in range(2000):
            if step in (0, 99):
                bar.compiling()
                clock[0] += 60
            clock[0] += 0.01001
            bar.update()
    said = lines(capsys)
    assert said[0] == f"train: {COMPILING}" and sum(COMPILING in line for line in said) == 1
    assert said[-1].endswith("in 02:20") and " in 02:02, 00:18 left" in said[2]


def test_a_bar_on_a_terminal_counts_from_after_the_first_step(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(20) as bar:
        bar.update(20)
    assert sys.stderr.getvalue() == ""  # done before anybody looks
    with Progress(2000, what="train") as bar:
        bar.compiling()
        assert f"train: {COMPILING}" in sys.stderr.getvalue()
        clock[0] += 60
        for _ in range(100):
            bar.update()
            clock[0] += 1
            if bar.n == 1:
                sys.stderr.truncate(0)
    shown = [line for line in sys.stderr.getvalue().split("\r") if "2/2000" in line]
    assert "33:18" in shown[0] and COMPILING not in shown[0], shown  # 1,998 steps of a second
    assert all("h" not in line and ":" in line for line in shown)


def test_a_bar_without_a_total_says_what_is_done(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(unit="program", what="search") as bar:
        clock[0] += 10
        bar.update(1000)
    assert "search: 1.00k programs [00:10" in sys.stderr.getvalue()


def test_what_is_to_be_known_is_said_before_progress_or_at_once_on_a_terminal(capsys, monkeypatch):
    notice("the machine is busy")
    assert lines(capsys) == []
    for _ in range(2):
        with Progress(1) as bar:
            bar.update()
    assert lines(capsys) == ["solomonic: the machine is busy"] + ["100 %, 1/1 steps in 00:00"] * 2
    notice("busy"), notice(None)
    with Progress(1):
        pass
    assert lines(capsys) == []
    monkeypatch.setattr(sys, "stderr", Terminal())
    notice("busy")
    assert sys.stderr.getvalue() == "solomonic: busy\n"


def test_compiling_without_progress_is_said_once_on_a_terminal(capsys, monkeypatch):
    with compiling_said():
        compiling_begins()
    assert lines(capsys) == []
    monkeypatch.setattr(sys, "stderr", Terminal())
    with compiling_said():
        with Progress(3):
            compiling_begins()
        assert COMPILING in sys.stderr.getvalue() and "solomonic" not in sys.stderr.getvalue()
        compiling_begins(), compiling_begins()
    assert sys.stderr.getvalue().count(f"solomonic: {COMPILING}\n") == 1


NUMBA = """
import numpy as np, torch
from solomonic._utils.progress import on_compiling
from solomonic.ops.rowwise import rms_norm
told = []
with on_compiling(lambda: told.append(1)):
    for _ in range(2):
        rms_norm(torch.ones(4, 8), torch.ones(8), 1e-5, "compiled")
        told.append(2)
rms_norm(torch.ones(4, 8, 9)[..., :8], torch.ones(8), 1e-5, "compiled")
print(1 in told, told.index(2) < len(told) - 1 and told[-1] == 2 and told[-2] == 2)
"""


def test_numba_says_when_it_compiles_and_not_when_it_is_kept(tmp_path):
    pytest.importorskip("numba")
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", NUMBA], capture_output=True, text=True, env=env, check=True).stdout
        for _ in range(2)
    ]
    assert said == ["True True\n", "False True\n"]


def test_who_no_longer_listens_is_not_told():
    told = []
    with on_compiling(lambda: told.append(1)):
        compiling_begins()
    compiling_begins()
    assert told == [1]


@pytest.mark.parametrize("load, threads, says", [(1.5, 2, None), (8.25, 2, "--threads 1"), (8.25, 1, "takes longer")])
def test_a_busy_machine_is_said(load, threads, says, monkeypatch):
    import torch

    from solomonic.cli._commands import busy_message

    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    said = busy_message()
    if says is None:
        assert said is None
    else:
        assert says in said and f"a load of {load:.1f} on 2 cores" in said


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_the_work_goes_on_where_nobody_takes_what_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    notice("busy")
    with Progress(10) as bar:
        bar.compiling()
        for _ in range(10):
            bar.update()
    assert bar.n == 10
