"""Damaged folders of comparisons: what is sound stays, what is damaged is said and done again."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic.compare.run import compare
from solomonic.compare.suites import QUICK, Run, Suite

from . import cases, no_hang

DIALS = {"d_model": 16, "n_layers": 1, "window": 4, "capacity": 2, "state_size": 4}
RUN = Run(
    "distractor_recall", steps=2, batch_size=2, samples=2, least_samples=2, lengths=(96,), dials=DIALS, lrs=(1e-2,)
)
SUITE = Suite("quick", ("mamba2", "bmojo"), {"distractor_recall": RUN}, 1, cost_lengths=(8,))
VOLATILE = {"train_seconds", "tokens_per_second", "costs", "digest"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "whole"
    compare(SUITE, folder, torch.device("cpu"), 1, "first")
    return folder


def _lines(folder):
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return sorted(
        json.dumps({key: value for key, value in line.items() if key not in VOLATILE}, sort_keys=True) for line in lines
    )


@cases(4)
@given(st.data())
def test_any_damage_ends_in_the_same_results_or_is_refused(whole, data):
    out = whole.with_name("tried")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out)
    path = out / data.draw(st.sampled_from(["results.jsonl", "run.json", "costs.json", "report.html"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    with no_hang(120):
        try:
            compare(SUITE, out, torch.device("cpu"), 1, "second")
        except ValueError as error:
            assert path.name == "run.json", error
            assert path.read_bytes() == content
            return
    assert _lines(out) == _lines(whole)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not tensors"], ids=["empty", "zeros", "other"])
def test_a_damaged_checkpoint_of_a_cell_begins_again(tmp_path, content):
    suite = replace(SUITE, archs=("mamba2",))
    (tmp_path / "out" / "cells").mkdir(parents=True)
    (tmp_path / "out" / "run.json").write_text(json.dumps({"settings": _settings(suite)}))
    (tmp_path / "out" / "cells" / "mamba2-distractor_recall-0-0.01.safetensors").write_bytes(content)
    compare(suite, tmp_path / "out", torch.device("cpu"), 1, "command")
    assert len(_lines(tmp_path / "out")) == 1 and not list((tmp_path / "out" / "cells").iterdir())


def _settings(suite):
    from solomonic.compare.folder import settings_of

    return settings_of(suite, "cpu")


def test_the_tiny_suite_is_of_the_kind_that_users_run():
    assert set(SUITE.runs) <= set(QUICK.runs)
