"""Results for other programs: several folders as one, means over seeds, and tables that are read back."""

import csv
import io
import json
from statistics import mean, stdev

import pytest

from solomonic.cli import main
from solomonic.compare.export import FIELDS, as_csv, as_latex, as_markdown, joined, rows


def cell(arch="mamba2", task="mqar", seed=0, lr=1e-2, **more):
    values = {64: 0.9 + seed / 100, 256: 0.5 + seed / 10}
    scores = [{"metric": "accuracy", "length": n, "value": v, "state_bytes": 2048} for n, v in values.items()]
    about = {"params": 1000, "train_length": 64, "metric": "accuracy", "config": {"d_model": 64}, "loss": 0.1}
    return {"arch": arch, "task": task, "seed": seed, "lr": lr, "scores": scores, "costs": []} | about | more


def folder(path, *cells, runs=None, tasks=None):
    path.mkdir()
    (path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cells))
    settings = {"runs": runs or {"mqar": {"steps": 9}}, "tasks": tasks or {"mqar": "a digest"}}
    (path / "run.json").write_text(json.dumps({"settings": settings}))
    return path


def test_seeds_of_several_folders_are_one_row(tmp_path):
    one = folder(tmp_path / "one", cell(seed=0), cell(seed=1))
    other = folder(tmp_path / "other", cell(seed=2), cell("bm|ojo_x", seed=0))
    tasks, notes = joined([one, other])
    assert not notes
    table = list(csv.DictReader(io.StringIO(as_csv(tasks))))
    assert list(table[0]) == list(FIELDS) and len(table) == 4
    found = {(row["arch"], row["length"]): row for row in table}
    row, values = found["mamba2", "256"], [0.5, 0.6, 0.7]
    assert float(row["mean"]) == pytest.approx(mean(values)) and row["seeds"] == "3" and row["lr"] == "0.01"
    assert float(row["standard_deviation"]) == pytest.approx(stdev(values)) and row["state_bytes"] == "2048"
    assert found["bm|ojo_x", "64"]["standard_deviation"] == "" and found["bm|ojo_x", "64"]["seeds"] == "1"
    text = as_markdown(tasks)
    assert "| `mamba2` | 1,000 | 3 | 0.910 ± 0.010 | 0.600 ± 0.100 | 2\N{NO-BREAK SPACE}KiB |" in text
    assert "`bm\\|ojo_x`" in text and "0.900 | 0.500" in text
    text = as_latex(tasks)
    assert r"mamba2 & 1,000 & 3 & 0.910 $\pm$ 0.010 & 0.600 $\pm$ 0.100 & 2 KiB \\" in text and r"bm|ojo\_x" in text


def test_the_last_folder_counts_and_the_best_rate_is_shown(tmp_path):
    one = folder(tmp_path / "one", cell(seed=0, loss=0.3), cell(seed=0, lr=1e-3, scores=[]))
    better = [{"metric": "accuracy", "length": 64, "value": 1.0}]
    other = folder(tmp_path / "other", cell(seed=0, scores=better))
    (row,) = rows(joined([one, other])[0])
    assert (row["mean"], row["lr"], row["seeds"], row["standard_deviation"]) == (1.0, 1e-2, 1, None)


@pytest.mark.parametrize(
    "other, error",
    [
        (dict(runs={"mqar": {"steps": 10}}), "expected the task mqar as in"),
        (dict(tasks={"mqar": "another digest"}), "expected the task mqar as in"),
    ],
)
def test_other_settings_are_not_joined(tmp_path, other, error):
    folders = folder(tmp_path / "one", cell()), folder(tmp_path / "other", cell(seed=1), **other)
    with pytest.raises(ValueError, match=error):
        joined(folders)


def test_another_configuration_of_one_name_is_not_joined(tmp_path):
    folders = folder(tmp_path / "one", cell()), folder(tmp_path / "other", cell(seed=1, config={"d_model": 8}))
    with pytest.raises(ValueError, match="other: expected mamba2 on mqar as in .*one, got other settings"):
        joined(folders)


def test_on_the_command_line(tmp_path, capsys):
    one = folder(tmp_path / "one", cell(seed=0), cell(seed=1))
    (one / "results.jsonl").open("a").write("{torn\n")
    for words, text in (((), "0.905 ± 0.007"), (("--csv",), ",0.905,"), (("--latex",), r"\begin{tabular}{lrrrrr}")):
        assert main(["results", str(one), *words]) == 0
        out = capsys.readouterr()
        assert text in out.out and "1 unreadable line of results.jsonl skipped" in out.err
    assert main(["results", str(tmp_path)]) == 2
    assert "expected the folder of a comparison" in capsys.readouterr().err
