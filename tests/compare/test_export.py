"""Results for other programs: several folders as one, means over seeds, and tables that are read back."""

import csv
import io
import json
import re
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
    half = r"(0\.0\d\d) \* \| 0\.600 ± (0\.\d\d\d)"
    found = re.search(r"\| `mamba2` \| 1,000 \| 3 \| 0\.910 ± " + half + r" \* \| 2\u00a0KiB \|", text)
    student = 4.3027 / 3**0.5  # of two degrees of freedom, 3 seeds
    assert [float(x) for x in found.groups()] == pytest.approx([0.01 * student, 0.1 * student], rel=0.1)
    assert "`bm\\|ojo_x`" in text and "0.900 * | 0.500 *" in text and "95 % interval over seeds; * the best" in text
    text = as_latex(tasks)
    assert r"mamba2 & 1,000 & 3 & 0.910 $\pm$ 0.0" in text and r"* & 2 KiB \\" in text and r"bm|ojo\_x" in text


def scored(arch, rows, seed=0, **more):
    score = {"metric": "accuracy", "length": 64, "value": sum(rows) / 4 / len(rows), "sums": rows, "counts": 4}
    return cell(arch, seed=seed, scores=[score], **more)


def test_rows_tell_architectures_apart_that_one_seed_does_not(tmp_path):
    good, bad = [3, 1, 4, 2, 0, 4, 3, 2] * 8, [2, 0, 3, 1, 0, 3, 2, 1] * 8
    alike = [2, *good[1:62], good[63], good[62]]  # one answer of 256 less, another row right
    one = folder(tmp_path / "one", scored("bmojo", good), scored("mamba2", alike), scored("samba", bad))
    found = {row["arch"]: row for row in rows(joined([one])[0])}
    assert found["mamba2"]["difference"] == pytest.approx(-1 / 256) and found["mamba2"]["difference_high"] > 0
    assert found["samba"]["difference"] == pytest.approx(-7 / 32) and found["samba"]["difference_high"] < 0
    assert found["bmojo"]["difference"] == found["bmojo"]["difference_low"] == 0
    assert found["samba"]["high"] - found["samba"]["mean"] == pytest.approx(2 * stdev(bad) / 4 / 8, rel=0.1)
    text = as_markdown(joined([one])[0])
    assert "95 % interval over rows;" in text
    assert [line.count("*") for line in text.splitlines() if line.startswith("| `")] == [1, 0, 1]


def test_lines_with_and_without_rows_are_compared_by_seeds(tmp_path):
    """A line of before, or one that is damaged, has a score and no sums: then seeds alone are known."""
    seeds = [scored("bmojo", [3, 1, 4, 2 + i] * 8, i) for i in range(2)]
    torn = scored("bmojo", [3, 1, 4, 4] * 8, 2)
    torn["scores"][0] |= {"sums": ["x"], "counts": None}
    one = folder(tmp_path / "one", *seeds, torn, *(scored("samba", [2, 2] * 8, i) for i in range(3)))
    found = {row["arch"]: row for row in rows(joined([one])[0])}
    assert found["bmojo"]["low"] < 0.6875 < found["bmojo"]["high"] and found["bmojo"]["seeds"] == 3
    assert found["samba"]["difference_low"] < -0.1875 < found["samba"]["difference_high"]


def test_a_best_rate_at_the_edge_of_its_grid_is_said(tmp_path, capsys):
    better = [{"metric": "accuracy", "length": 64, "value": 1.0}]
    edge = [cell("samba", lr=lr, **({"scores": better} if lr == 1e-2 else {})) for lr in (1e-3, 3e-3, 1e-2)]
    inside = [cell("bmojo", lr=lr, **({"scores": better} if lr == 3e-3 else {})) for lr in (1e-3, 3e-3, 1e-2)]
    one = folder(tmp_path / "one", *edge, *inside, cell("mamba2"))
    assert main(["results", str(one)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("best learning rate") == 1
    assert "mqar: the best learning rate of Samba is the highest of its grid, 0.01; a higher one may be better" in said
    other = folder(tmp_path / "other", *edge[1:], cell("jamba", lr=1e-3, scores=better), cell("jamba", lr=1e-2))
    said = joined([other])[1]
    assert len(said) == 2 and "Jamba is the lowest of its grid, 0.001; a lower one" in said[0]


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
        (dict(version=2), "mqar as in .*, got other settings, data or version"),
    ],
)
def test_other_settings_are_not_joined(tmp_path, other, error):
    version = other.pop("version", 1)
    folders = folder(tmp_path / "one", cell()), folder(tmp_path / "other", cell(seed=1, version=version), **other)
    with pytest.raises(ValueError, match=error):
        joined(folders)


def test_another_configuration_of_one_name_is_not_joined(tmp_path):
    folders = folder(tmp_path / "one", cell()), folder(tmp_path / "other", cell(seed=1, config={"d_model": 8}))
    with pytest.raises(ValueError, match="other: expected mamba2 on mqar as in .*one, got other settings"):
        joined(folders)


def test_on_the_command_line(tmp_path, capsys):
    one = folder(tmp_path / "one", cell(seed=0), cell(seed=1))
    (one / "results.jsonl").open("a").write("{torn\n")
    for words, text in (((), "0.905 ± 0.0"), (("--csv",), ",0.905,"), (("--latex",), r"\begin{tabular}{lrrrrr}")):
        assert main(["results", str(one), *words]) == 0
        out = capsys.readouterr()
        assert text in out.out and "1 unreadable line of results.jsonl skipped" in out.err
    assert main(["results", str(tmp_path)]) == 2
    assert "expected the folder of a comparison" in capsys.readouterr().err
