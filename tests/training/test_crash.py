"""Killed at any moment and resumed, a run ends in the same weights as one that was left alone."""

import random
import signal
import time

from safetensors.torch import load_file

from .texts import SHORT, SMALL, checkpoint, same, start, write_text

KILLS = 10


def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    text = write_text(tmp_path / "text.jsonl")
    words = [text, *SMALL, *SHORT, "--carry", "--steps", "400", "--save-every", "1", "--eval-every", "50"]
    alone = start(*words, "--out", tmp_path / "alone")
    assert alone.wait(300) == 0

    out, rng = tmp_path / "killed", random.Random(0)
    path = out / "run" / "checkpoint.safetensors"
    last, killed, reached = None, 0, []
    while killed < KILLS:
        process = start(*words, "--out", out, "--resume")
        if killed:
            _wait(lambda: process.poll() is not None or _stamp(path) != last)
            time.sleep(rng.uniform(0, 0.5))
        else:
            time.sleep(rng.uniform(1, 4))
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        last = _stamp(path)
        if path.exists():
            reached.append(len(checkpoint(out)[0]["run.losses"]))
    assert reached == sorted(reached) and len(set(reached)) > 3 and reached[-1] < 400
    final = start(*words, "--out", out, "--resume")
    assert final.wait(300) == 0, final.communicate()[0]
    assert same(checkpoint(out)[0], checkpoint(tmp_path / "alone")[0])
    assert same(load_file(out / "model.safetensors"), load_file(tmp_path / "alone" / "model.safetensors"))


def _stamp(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _wait(until, seconds=120):
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.005)
    assert until()
