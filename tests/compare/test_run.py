"""A comparison of seconds: every cell a line, stopped and started again, folders of other settings refused."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from solomonic.checkpoints.folder import load
from solomonic.compare.folder import append_line, open_folder, read_lines
from solomonic.compare.matrix import VERSION, Cell, build_task, cells_of, digest, kept_tokens, run_cell, scores
from solomonic.compare.run import compare
from solomonic.compare.suites import SUITES, Run, Suite, suite
from solomonic.evaluation.recall import named

SMALL = {"d_model": 16, "n_layers": 1, "window": 4, "capacity": 4, "state_size": 4}
RECALL = {"pairs": 2, "keys": 4, "values": 4, "length": 12}
TINY = Suite(
    name="tiny",
    archs=("sliding_window", "bmojo"),
    runs={"distractor_recall": Run("distractor_recall", steps=4, batch_size=4, samples=8, options=RECALL, dials=SMALL)},
    seeds=1,
    cost_lengths=(8, 16),
)
CPU = torch.device("cpu")


def test_every_cell_is_a_line_and_the_page_is_written(tmp_path):
    page = compare(TINY, tmp_path, CPU, 1, "solomonic compare")
    lines, _ = read_lines(tmp_path / "results.jsonl")
    assert {(x["arch"], x["task"], x["seed"], x["lr"]) for x in lines} == {
        (c.arch, c.task, c.seed, c.lr) for c in cells_of(TINY)
    }
    for line in lines:
        assert line["params"] > 0 and line["steps"] == 4 and line["train_seconds"] > 0 and line["tokens_per_second"] > 0
        assert [s["length"] for s in line["scores"]] == [12, 24, 48, 96]
        assert all(s["metric"] == "accuracy" and 0 <= s["value"] <= 1 for s in line["scores"])
        assert len({s["state_bytes"] for s in line["scores"]}) == 1
        assert line["version"] == VERSION and "documents" not in line
        for s in line["scores"]:
            assert len(s["sums"]) == s["samples"] and s["counts"] == 2 and s["count"] == 2 * s["samples"]
            assert s["value"] == sum(s["sums"]) / s["count"] and s["standard_error"] >= 0
        assert [c["length"] for c in line["costs"]] == [8, 16]
        assert ("kept" in line) == (line["arch"] == "bmojo")
    assert "sliding_window" in page.read_text() and page == tmp_path / "report.html"
    assert list((tmp_path / "cells").glob("*")) == []
    assert {x.name for x in (tmp_path / "models").iterdir()} == {c.key for c in cells_of(TINY)}
    assert json.loads((tmp_path / "run.json").read_text())["command"] == "solomonic compare"


def test_a_second_start_skips_what_is_done_and_adds_what_is_new(tmp_path):
    compare(TINY, tmp_path, CPU, 1, "first")
    before = (tmp_path / "results.jsonl").read_text()
    compare(TINY, tmp_path, CPU, 1, "second")
    assert (tmp_path / "results.jsonl").read_text() == before
    compare(replace(TINY, archs=("bmojo", "mamba2"), seeds=2), tmp_path, CPU, 1, "third")
    after = (tmp_path / "results.jsonl").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 5


def test_what_is_said_fits_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    for _ in range(2):
        compare(replace(TINY, archs=("sliding_window",)), tmp_path, CPU, 1, "solomonic compare")
    said = capsys.readouterr().out
    assert all(len(line) <= 50 or " " not in line for line in said.splitlines()), said
    assert said.startswith("sliding_window ") and "1 of 1 cell is in" in said


def test_a_line_cut_short_is_run_again(tmp_path):
    compare(TINY, tmp_path, CPU, 1, "first")
    results = tmp_path / "results.jsonl"
    text = results.read_text()
    results.write_text(text[: len(text) - 40])
    compare(TINY, tmp_path, CPU, 1, "second")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert {x["arch"] for x in lines} == {"sliding_window", "bmojo"}


def test_a_folder_of_another_configuration_is_refused_untouched(tmp_path):
    compare(TINY, tmp_path, CPU, 1, "first")
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = replace(TINY, runs={"distractor_recall": replace(TINY.runs["distractor_recall"], steps=5)})
    with pytest.raises(ValueError, match="another configuration.*--out"):
        compare(other, tmp_path, CPU, 1, "second")
    assert files == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_folder_of_results_on_other_data_is_refused(tmp_path):
    open_folder(tmp_path, TINY, "cpu", "first", {"distractor_recall": "a digest"})
    open_folder(tmp_path, TINY, "cpu", "second", {"distractor_recall": "a digest"})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match="results of distractor_recall on other data.*--out"):
        open_folder(tmp_path, TINY, "cpu", "third", {"distractor_recall": "another"})
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_task_is_known_by_its_options_and_its_data(tmp_path):
    (tmp_path / "text").write_text("it was the best of times\n" * 40 + "the end\n" * 40)
    run = Run("text", steps=1, options={"data": str(tmp_path / "text"), "length": 16, "lengths": (16,)})
    one, same = digest(build_task(run)), digest(build_task(run))
    (tmp_path / "text").write_text("it was the worst of times\n" * 40 + "the end\n" * 40)
    assert one == same != digest(build_task(run))
    recall = [digest(build_task(Run("distractor_recall", steps=1, options=RECALL | {"easy": x}))) for x in (0.6, 0)]
    assert recall[0] != recall[1]


def test_the_checkpoint_of_another_run_ends_the_comparison_and_stays(tmp_path):
    """In a process of its own; nothing is trained over it."""
    from solomonic.compare.matrix import build_model
    from solomonic.training.config import TrainConfig
    from solomonic.training.history import Interrupted
    from solomonic.training.tasks import fit

    suite = replace(TINY, archs=("bmojo",))
    (cell,) = cells_of(suite)
    run = suite.runs[cell.task]
    problem = build_task(replace(run, options=RECALL | {"easy": 0.1}))
    path = tmp_path / "cells" / f"{cell.key}.safetensors"
    config = TrainConfig(run.steps, run.batch_size, cell.lr)
    with pytest.raises(Interrupted):
        fit(build_model("bmojo", run, problem.vocab_size, 0), problem, config, path, stop=lambda: True)
    before = path.read_bytes()
    open_folder(tmp_path, suite, "cpu", "first")
    with pytest.raises(ValueError, match="task easy 0.1, now 0.6"):
        compare(suite, tmp_path, CPU, 1, "second")
    assert path.read_bytes() == before


def test_results_without_their_settings_are_refused(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"arch": "bmojo"}\n')
    with pytest.raises(ValueError, match="no run.json"):
        open_folder(tmp_path, TINY, "cpu", "command")


def test_a_task_that_cannot_be_built_leaves_no_folder(tmp_path):
    bad = replace(TINY, runs={"text": Run("text", steps=1, options={"data": str(tmp_path / "nowhere")})})
    with pytest.raises(ValueError, match="nowhere"):
        compare(bad, tmp_path / "out", CPU, 1, "command")
    assert not (tmp_path / "out").exists()


def test_divergence_is_a_line_without_scores(tmp_path, monkeypatch):
    from solomonic.compare import matrix
    from solomonic.training.history import Diverged

    def fail(*arguments):
        raise Diverged("the loss is nan at step 3")

    monkeypatch.setattr(matrix, "fit", fail)
    line = run_cell(cells_of(TINY)[0], TINY.runs["distractor_recall"], CPU, tmp_path)
    assert line["scores"] == [] and "step 3" in line["diverged"]


def test_a_comparison_needs_what_every_installation_has():
    """README's first command has the library without extras: no module of an extra is imported."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {re.match("[a-z0-9_-]+", word)[0] for words in project["optional-dependencies"].values() for word in words}
    modules = sorted(
        {name.replace("-", "_") for name in extras} - {"solomonic", "numba", "triton"} | {"pandas", "sklearn"}
    )
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({modules}))\n"
        "from solomonic.compare import export, models, pictures, report, run\n"
        "from solomonic.cli import compare, results\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cell_keeps_its_model(tmp_path):
    """Loaded again, the model scores what its line says; its tokens are words that the tokenizer writes and reads."""
    cell, run = cells_of(TINY)[1], TINY.runs["distractor_recall"]
    line = run_cell(cell, run, CPU, tmp_path)
    model, tokenizer = load(tmp_path / "models" / cell.key)
    problem = build_task(run)
    assert scores(model, problem, run)[0] == line["scores"]
    assert tokenizer.encode("k1 v3 k0").tolist() == [1, 7, 0] and tokenizer.decode([1, 7, 0]) == "k1 v3 k0"
    with pytest.raises(ValueError, match="such as 'k0 k1 .*got 'hello world'"):
        tokenizer.encode("hello world")
    card = (tmp_path / "models" / cell.key / "README.md").read_text()
    command = next(text.strip() for text in card.splitlines() if text.startswith("    solomonic eval FOLDER --task"))
    asked = named(shlex.split(command)[-1])
    assert asked.length == 12 and asked.vocab_size == problem.vocab_size


def test_a_cell_of_text_keeps_a_model_of_bytes(tmp_path):
    run = Run("text", steps=1, batch_size=2, samples=2, options={"length": 16, "lengths": (16,)}, dials=SMALL)
    run_cell(Cell("bmojo", "text", 0, 1e-2), run, CPU, tmp_path)
    model, tokenizer = load(tmp_path / "models" / "bmojo-text-0-0.01")
    assert model.config.vocab_size == tokenizer.vocab_size == 256 and tokenizer.is_bytes and tokenizer.end is None
    assert tokenizer.decode(tokenizer.encode("naïve\n").tolist()) == "naïve\n"


def test_kept_tokens_are_those_of_the_state():
    from solomonic.compare.matrix import build_model, build_task

    run = TINY.runs["distractor_recall"]
    problem = build_task(run)
    picture = kept_tokens(build_model("bmojo", run, problem.vocab_size, 0), problem)
    assert len(picture["tokens"]) == 9 and picture["marked"] == [1, 3]  # up to the first question
    (layer,) = picture["layers"]
    assert len(layer["score"]) == 9 and len(layer["kept"]) == 4 == picture["capacity"]
    best = sorted(range(8), key=lambda i: (-torch.tensor(layer["score"][i]).bfloat16().item(), i))[:4]
    assert layer["kept"] == sorted(best)  # blocks of 4: tokens 0-7 have been considered at token 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_started_again(tmp_path, number):
    """Stopped in the middle of a cell: exit code 130, the cell goes on from its checkpoint, its losses the same.

    The cell waits in its middle for the signal, however long that takes to come.
    """
    options = ["--arch", "sliding_window", "--task", "distractor_recall", "--jobs", "1", "--out"]
    command = [sys.executable, "-c", PROGRAM, "compare", *options]
    process = subprocess.Popen(
        [*command, str(tmp_path / "cut")], stderr=subprocess.PIPE, env=os.environ | {"WAITS": "1"}
    )
    seen = b""
    while not re.search(rb"[1-9]\d*/60 ", seen):
        seen += (part := os.read(process.stderr.fileno(), 4096))
        assert part, seen.decode()
    process.send_signal(number)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130 and b"goes on from here" in said, said.decode()
    assert b"\r" not in seen + said
    assert read_lines(tmp_path / "cut" / "results.jsonl") == ([], [])
    assert len(list((tmp_path / "cut" / "cells").glob("*.safetensors"))) == 1
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    cut, whole = (read_lines(tmp_path / name / "results.jsonl")[0] for name in ("cut", "whole"))
    assert (
        len(cut) == len(whole) == 1 and cut[0]["curve"] == whole[0]["curve"] and cut[0]["scores"] == whole[0]["scores"]
    )


PROGRAM = """
import os
import sys
import time
from dataclasses import replace
from solomonic.compare import matrix, suites
fit = matrix.fit
def waiting(model, problem, config, checkpoint, report, stop):
    def waits(step, loss):
        report(step, loss)
        while step == 30 and not stop():
            time.sleep(0.01)
    return fit(model, problem, config, checkpoint, waits, stop)
if os.environ.get("WAITS"):
    matrix.fit = waiting
quick = suites.QUICK
run = replace(quick.runs["distractor_recall"], steps=60, batch_size=8, samples=8, lengths=(96,))
suites.SUITES["quick"] = replace(quick, runs={"distractor_recall": run}, cost_lengths=(8,))
from solomonic.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def test_suites_are_what_the_commands_choose():
    assert suite().name == "quick" and set(suite().archs) >= {
        "transformer",
        "sliding_window",
        "mamba2",
        "gated_deltanet",
        "bmojo_f",
        "bmojo",
    }
    assert {"distractor_recall", "text"} <= set(suite().runs)
    narrowed = suite("quick", ["bmojo"], ["mqar"], 3)
    assert narrowed.archs == ("bmojo",) and list(narrowed.runs) == ["mqar"] and narrowed.seeds == 3
    assert Cell("bmojo", "mqar", 2, narrowed.runs["mqar"].rates("bmojo")[0]) in cells_of(narrowed)


@pytest.mark.parametrize(
    "arguments, near",
    [
        ({"name": "qick"}, "quick"),
        ({"archs": ["bmoj"]}, "bmojo"),
        ({"tasks": ["mqra"]}, "mqar"),
        ({"seeds": 0}, ">= 1"),
        ({"tasks": ["mqar"], "data": "x"}, "text"),
    ],
)
def test_unknown_names_are_told_the_near_one(arguments, near):
    with pytest.raises(ValueError, match=near):
        suite(**arguments)


@pytest.mark.parametrize("name", SUITES)
def test_parameters_within_ten_percent(name):
    from solomonic.compare.matrix import build_model, build_task

    for run in SUITES[name].runs.values():
        with torch.device("meta"):
            sizes = {
                arch: sum(p.numel() for p in build_model(arch, run, build_task(run).vocab_size, 0).parameters())
                for arch in SUITES[name].archs
            }
        assert max(sizes.values()) <= 1.1 * min(sizes.values()), sizes


def test_lengths_of_drawn_rows_are_prefixes_of_one_reading():
    """By causality a row read to 40 tells what it would have scored at 20."""
    from solomonic.compare.matrix import build_model, scores
    from solomonic.evaluation.tasks import evaluate

    run = Run("context_tree", steps=1, samples=4, lengths=(20, 40), dials=SMALL)
    problem = build_task(run)
    model = build_model("bmojo", run, problem.vocab_size, 0)
    found, documents = scores(model, problem, run)
    values = evaluate(model, problem, 40, 4, batch_size=4)
    assert [s["length"] for s in found if s["metric"] == "bits_per_bit"] == [20, 40] and documents == []
    assert found[0]["value"] == pytest.approx(values[:, :20].mean()) and found[1]["value"] == pytest.approx(
        values.mean()
    )
    assert found[1]["regret"] == pytest.approx(found[1]["value"] - found[1]["bound"])
    places = [s["position"] for s in found if s["metric"] == "bits_per_bit_at"]
    assert places == [16, 22, 32, 40]
    assert found[2]["value"] == pytest.approx(values[:, :16].mean())


def test_a_text_is_scored_on_the_same_bytes_at_every_length(tmp_path, monkeypatch):
    """All of the held-out text where that is less than `TEXT`, and what is beyond; errors are by document."""
    from solomonic.compare import matrix
    from solomonic.compare.statistics import ratio
    from solomonic.evaluation.tasks import evaluate, held_out

    for i in range(20):
        (tmp_path / f"{i}.txt").write_text("".join(chr(97 + (i * j * j) % 26) for j in range(100 + 10 * i)))
    options = {"data": str(tmp_path), "length": 20, "lengths": (20, 40), "held_out": 0.4}
    run = Run("text", steps=1, samples=4, options=options, dials=SMALL)
    problem = build_task(run)
    model = matrix.build_model("bmojo", run, 256, 0)
    found, documents = matrix.scores(model, problem, run)
    short, long = found[:2]
    rows = problem.held_out_rows(40)
    assert (long["samples"], long["count"]) == (rows, 40 * rows) and (short["samples"], short["count"]) == (
        2 * rows,
        40 * rows,
    )
    assert long["value"] == pytest.approx(evaluate(model, problem, 40, 1000).mean()) and short["value"] != long["value"]
    names = [problem.document(i) for i in held_out(problem, 40, 1000).documents.tolist()]
    assert len(documents) > 4 and [names.count(name) * 40 for name in documents] == long["counts"] == short["counts"]
    for s in found:
        value, error = ratio(torch.tensor(s["sums"]).numpy(), torch.tensor(s["counts"]).numpy())
        assert value == pytest.approx(s["value"], abs=1e-4) and error == pytest.approx(s["standard_error"], rel=1e-2)
    monkeypatch.setattr(matrix, "TEXT", 6 * 40 - 1)
    enough, _ = matrix.scores(model, problem, run)
    assert enough[1]["samples"] == 6 and len(documents) > 5


def test_results_of_another_version_are_not_gone_on_with(tmp_path):
    open_folder(tmp_path, TINY, "cpu", "first")
    before = {"arch": "bmojo", "task": "distractor_recall", "seed": 0, "lr": 0.003, "scores": []}
    append_line(tmp_path / "results.jsonl", before)
    with pytest.raises(ValueError, match="of another version of the comparison; choose another --out"):
        open_folder(tmp_path, TINY, "cpu", "second")
