"""The report's page, read back as a reader sees it: text, tables and the points of each chart."""

import itertools
import json
import math
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest

from solomonic.compare.charts import LINE, Axis, Point, Series, chart, push_apart
from solomonic.compare.report import write_report
from solomonic.compare.results import NAMES

ARCHS = ["transformer", "sliding_window", "mamba2", "gated_deltanet", "jamba", "samba", "bmojo_f", "bmojo"]
LENGTHS = {"recall": [96, 192, 384], "text": [512, 1024, 2048]}
POSITIONS = [256, 512, 1024, 2048]
VOID = {"meta", "br", "link", "img", "input", "hr"}


def cell(arch: str = "bmojo", task: str = "recall", seed: int = 0, lr: float = 0.003, **changes) -> dict:
    """A finished cell. Recall is 0.9 - 0.1 * place + 0.02 * seed at lr 0.003 and half that at 0.001, at every length."""
    place = ARCHS.index(arch) if arch in ARCHS else 0
    good, lengths = lr == 0.003, LENGTHS[task]
    if task == "recall":
        value = (0.9 - 0.1 * place + 0.02 * seed) * (1 if good else 0.5)
        scores = [
            {"metric": "accuracy", "value": value, "length": n, "state_bytes": 1024 * (place + 1)} for n in lengths
        ]
    else:
        value = 2 + 0.1 * place + 0.02 * seed + (0 if good else 1)
        scores = [{"metric": "bits_per_byte", "value": value, "length": n, "state_bytes": 1024 * n} for n in lengths]
        scores += [
            {"metric": "bits_per_byte_at", "value": value, "length": 2048, "position": p, "state_bytes": 7}
            for p in POSITIONS
        ]
    costs = [
        {"length": n, "prefill_us_per_token": 10.0 + n, "decode_us_per_token": 900.0, "state_bytes": 1024}
        for n in lengths
    ]
    return {
        "arch": arch,
        "task": task,
        "seed": seed,
        "lr": lr,
        "params": 104832,
        "steps": 600,
        "train_length": lengths[0],
        "train_seconds": 41.2,
        "tokens_per_second": 91000.0,
        "loss": 0.02,
        "scores": scores,
        "costs": costs,
        "curve": [[step, 3.0 / step] for step in range(1, 401)],
    } | changes


KEPT = {
    "tokens": ["k3", "v17", "d<1>", "d2", "d3", "d4"],
    "window": 2,
    "capacity": 2,
    "marked": [1, 2],
    "layers": [
        {"layer": 0, "kept": [0, 1], "score": [0.5, 2.0, 0.1, 0.1, None, None]},
        {"layer": 1, "kept": [3], "score": None},
    ],
}
RUN = {
    "command": "solomonic compare --suite quick",
    "suite": "quick",
    "date": "2026-11-22T16:40:00Z",
    "device": "cpu",
    "threads": 2,
    "versions": {"torch": "2.13.0"},
    "platform": "Linux x86_64",
    "cells": 64,
    "settings": {"model": {"width": 48}, "seeds": [0, 1]},
}


class Page(HTMLParser):
    """Checks that tags are balanced; gathers the text, the tables and the charts."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.html, self.open, self.text, self.rows, self.charts, self.chips = html, [], "", [], {}, []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif "data-chart" in attributes:
            self.series = self.charts[attributes["data-chart"]] = {}
        elif "data-points" in attributes and tag == "g":
            self.points = self.series[attributes["data-arch"]] = {"points": [], "line": ""}
        elif "title" in attributes and tag == "i":
            self.chips.append((attributes["class"].split(), attributes["title"]))
        elif (
            tag == "path"
            and "translate" in attributes.get("transform", "")
            and "g" in self.open
            and "scale" not in attributes["transform"]
        ):
            self.points["points"].append(attributes["transform"])
        elif tag == "path" and attributes.get("class") == "line":
            self.points["line"] = attributes["d"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if {"style", "script", "caption"} & set(self.open):
            return
        self.text += data
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        """The first table row of this name, the summary's."""
        return next(row for row in self.rows if name in row[0])


def report(folder: Path, cells: list[dict], run: dict | None = RUN, tail: str = "") -> Page:
    (folder / "results.jsonl").write_text("".join(json.dumps(c) + "\n" for c in cells) + tail, encoding="utf-8")
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Page:
    cells = [
        cell(a, t, seed, lr, **({"kept": KEPT} if (a, t) == ("bmojo", "recall") else {}))
        for a in ARCHS
        for t in LENGTHS
        for lr in (0.001, 0.003)
        for seed in (0, 1)
    ]
    return report(tmp_path_factory.mktemp("full"), cells)


def test_the_page_stands_alone(full):
    assert "http:" not in full.html and "https:" not in full.html and "<script>" in full.html
    assert not {"src", "srcset", "data"} & {name for name, _ in full.attributes} and "@import" not in full.html
    assert all(value.startswith("#") for name, value in full.attributes if name in ("src", "href"))


def test_no_temporary_file_is_left(tmp_path):
    report(tmp_path, [cell()])
    assert {p.name for p in tmp_path.iterdir()} == {"results.jsonl", "run.json", "report.html"}


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    old = report(tmp_path, [cell("jamba")]).html

    def full_disk(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="disk is full"):
        report(tmp_path, [cell("samba")])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert len(list(tmp_path.iterdir())) == 3


def test_summary_shows_the_best_learning_rates_mean(full):
    recall, text = full.row("Mamba-2")[1:3], full.row("Mamba-2")[3:5]
    assert recall == ["0.710.58 – 0.84"] * 2  # 0.7 and 0.72, not the halves of lr 0.001; Student's t of two seeds
    assert text == ["2.212.08 – 2.34"] * 2  # lower is better: not the 3.21 of lr 0.001
    assert full.row("Mamba-2")[5].replace("\xa0", " ") == "3 KiB"


def test_the_best_learning_rate_may_be_the_lower_one(tmp_path):
    worse = cell(lr=0.003, scores=[{"metric": "accuracy", "value": 0.01, "length": 96}])
    assert report(tmp_path, [cell("samba", lr=0.001), worse | {"arch": "samba"}]).row("Samba")[1] == "0.20"


def test_a_diverged_seed_does_not_flatter_its_learning_rate(tmp_path):
    def scored(seed: int, lr: float, value: float) -> dict:
        return cell("mamba2", "text", seed, lr, scores=[{"metric": "bits_per_byte", "value": value, "length": 512}])

    page = report(
        tmp_path, [scored(0, 0.01, 1.5), scored(1, 0.01, math.nan), scored(0, 0.001, 2.5), scored(1, 0.001, 2.5)]
    )
    assert page.row("Mamba-2")[1] == "2.50"


def test_the_last_of_two_runs_of_a_cell_counts(tmp_path):
    again = cell(scores=[{"metric": "accuracy", "value": 0.77, "length": 96}])
    assert report(tmp_path, [cell(), again]).row("B'MOJO")[1] == "0.77"


def test_rows_are_ranked_at_the_longest_length(full):
    assert [row[0] for row in full.rows if row[0] in NAMES.values()] == [NAMES[arch] for arch in ARCHS]


def at(arch: str, long: float, size: int, **changes) -> dict:
    scores = [
        {"metric": "accuracy", "value": 1.0, "length": 96},
        {"metric": "accuracy", "value": long, "length": 768, "state_bytes": size, "chance": 0.03125},
    ]
    return cell(arch, scores=scores, **changes)


def lead(page: Page) -> str:
    return page.text.replace("\xa0", " ")


def test_the_lead_names_the_best_the_runner_up_and_the_transformer(tmp_path):
    page = report(tmp_path, [at("transformer", 0.21, 3 * 2**19), at("samba", 0.3, 2**14), at("bmojo", 0.97, 51200)])
    assert (
        "B'MOJO recalls 0.97 at 8× its training length with a state of 50 KiB; Samba, the runner-up, 0.30 with 16 KiB; "
        "Transformer 0.21 with 1.5 MiB." in lead(page)
    )
    assert "Each was trained with 1 seed and 1 learning rate; with one seed, small differences may be chance." in lead(
        page
    )


def test_of_equals_the_smaller_state_leads_and_a_variant_is_no_runner_up(tmp_path):
    archs = [("bmojo_published", 0.999, 2**17), ("bmojo", 0.998, 2**16), ("gated_deltanet", 0.97, 2**14)]
    page = report(tmp_path, [at(*arch, seed=seed) for arch in archs for seed in (0, 1)])
    assert (
        "B'MOJO recalls 1.00 at 8× its training length with a state of 64 KiB; Gated DeltaNet, the runner-up"
        in lead(page)
    )
    assert "Each was trained with 2 seeds and 1 learning rate." in lead(page)


def with_rows(arch: str, rows: list[int], seed: int = 0) -> dict:
    score = {"metric": "accuracy", "value": sum(rows) / 4 / len(rows), "length": 96, "sums": rows, "counts": 4}
    return cell(arch, seed=seed, scores=[score])


def test_those_not_distinguishable_from_the_best_are_bold_and_said(tmp_path):
    good, bad = [3, 1, 4, 2, 0, 4, 3, 2] * 8, [2, 0, 3, 1, 0, 3, 2, 1] * 8
    alike = [x - (i in (0, 8, 16, 24)) + (i == 1) for i, x in enumerate(good)]  # of 256 answers three fewer
    page = report(tmp_path, [with_rows("bmojo", good), with_rows("mamba2", alike), with_rows("transformer", bad)])
    words = "Mamba-2, the runner-up, 0.58 with 1 KiB, not distinguishable from it (difference from B'MOJO -0.0"
    assert words in lead(page) and "Transformer 0.38 with 1 KiB. Each was trained" in lead(page)
    assert "with one seed, intervals cover held-out rows alone, not what another seed gives" in page.text
    first = {
        arch: page.html.split(f'<tr data-arch="{arch}">')[1].split("<td ")[1] for arch in ARCHS if arch in page.html
    }
    assert {arch for arch, cell in first.items() if "best" in cell.split(">")[0]} == {"bmojo", "mamba2"}
    tips = [value for name, value in page.attributes if name == "title" and "difference from" in value]
    assert [tip.split(",")[0] for tip in tips] == [f"difference from B'MOJO {x}" for x in ("-0.012", "-0.219")]
    assert page.row("Mamba-2")[1].startswith("0.58") and " – " in page.row("Mamba-2")[1]
    assert "recall: band the 95 % interval over rows" in page.text


def test_how_much_text_was_scored_is_said(tmp_path):
    score = {"metric": "bits_per_byte", "value": 2.0, "length": 512, "sums": [2000.0, 2096.0], "counts": 1024}
    line = cell("bmojo", "text", scores=[score | {"count": 2048}], documents=["a.py", "b.py"])
    assert "scored on 2,048 bytes of 2 held-out documents" in report(tmp_path, [line]).text


def test_an_edge_of_a_grid_is_a_notice(full):
    assert full.text.count("the highest of its grid, 0.003; a higher one may be better.") == 2  # of each task


def test_tasks_are_explained_with_their_chance_and_parameters_counted(tmp_path):
    run = RUN | {"settings": {"runs": {"recall": {"task": "distractor_recall"}}}}
    page = report(tmp_path, [at("bmojo", 0.97, 51200)], run)
    assert (
        "key-value pairs, then distractors of any length, then every key is asked once; recall, higher is better, a guess is right with 0.03"
        in lead(page)
    )
    assert page.row("B'MOJO")[-1] == "104,832"
    assert "dotted: chance" in report(tmp_path, [at("bmojo", 0.97, 51200)], RUN).text


@pytest.mark.parametrize(
    "name, points",
    [
        ("quality:recall", 3),
        ("quality:text", 3),
        ("state_quality:recall", 2),
        ("position:text", 4),
        ("prefill:recall", 3),
        ("decode:text", 3),
        ("state:recall", 3),
        ("state:text", 3),
        ("loss:recall", 1),
        ("loss:text", 1),
    ],
)
def test_charts_hold_every_series_and_point(full, name, points):
    assert sorted(full.charts[name]) == sorted(ARCHS)
    assert {len(series["points"]) for series in full.charts[name].values()} == {points}


def test_there_are_no_other_charts(full):
    assert len(full.charts) == 12 and "position:recall" not in full.charts and "state_quality:text" not in full.charts


def test_charts_are_named_for_those_who_cannot_see_them(full):
    spoken = [value for name, value in full.attributes if name == "aria-label"]
    assert any("Does recall hold" in s and "Mamba-2 from 0.71 at 96 to 0.71 at 384" in s for s in spoken)


def test_a_missing_value_is_a_gap(tmp_path):
    scores = [
        {"metric": "accuracy", "value": None if n == 384 else 0.5, "length": n, "state_bytes": 9}
        for n in (96, 192, 384, 768, 1536)
    ]
    page = report(tmp_path, [cell(scores=scores), cell("samba", scores=[s | {"value": 0.4} for s in scores])])
    broken, whole = page.charts["quality:recall"]["bmojo"], page.charts["quality:recall"]["samba"]
    assert (len(broken["points"]), broken["line"].count("M")) == (4, 2)
    assert (len(whole["points"]), whole["line"].count("M")) == (5, 1)


def test_kept_tokens(full):
    assert len(full.chips) == 12
    first = [set(classes) for classes, _ in full.chips[:6]]
    assert [("k" in c, "w" in c, "m" in c) for c in first] == [
        (True, False, False),
        (True, False, True),
        (False, False, True),
        (False, False, False),
        (False, True, False),
        (False, True, False),
    ]
    assert "strong" in first[1] and "strong" not in first[0]
    assert full.chips[1][1] == "v17 at 1, score 2, kept, will be asked for"
    assert "2 of 6 tokens kept, 1 of the 2 that the task will ask for" in full.text


def test_a_long_example_is_a_strip_of_bounded_size(tmp_path):
    size = 4500
    kept = {
        "tokens": [f"t{i}" for i in range(size)],
        "window": 16,
        "capacity": 4,
        "layers": [{"layer": 0, "kept": [4], "score": [1.0] * size}],
    }
    page = report(tmp_path, [cell(kept=kept)])
    assert len(page.chips) == 1500 and "a cell stands for 3 tokens" in page.text
    assert [i for i, (classes, _) in enumerate(page.chips) if "k" in classes] == [1]
    assert sum("w" in classes for classes, _ in page.chips) == 6


def test_every_line_is_in_the_full_table(full):
    rows = [row for row in full.rows if len(row) > 1 and row[1] in ARCHS]
    assert len(rows) == 64
    assert sum(row[0] == "●" for row in rows) == 32
    assert all((row[0] == "●") == (row[3] == "0.003") for row in rows)
    assert next(row for row in rows if row[1:4] == ["mamba2", "0", "0.001"])[10:13] == ["0.35", "0.35", "0.35"]


def test_the_run_is_told(full):
    for part in (RUN["command"], RUN["date"], "Linux x86_64", "2.13.0", "model.width", "48", "[0, 1]"):
        assert part in full.text
    assert "Partial" not in full.text


def test_hostile_strings_are_escaped(tmp_path):
    evil = '"><script>alert(1)</script>&\' onload="x'
    kept = KEPT | {"tokens": [evil] * 6}
    page = report(
        tmp_path,
        [cell() | {"arch": evil, "task": evil, "note": evil, "kept": kept}],
        RUN | {"command": evil, "suite": evil, "settings": {evil: evil}},
    )
    assert page.html.count("<script") == 1 and "<script>alert" not in page.html
    assert evil in page.charts[f"quality:{evil}"]
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_zero_cells(tmp_path):
    page = report(tmp_path, [])
    assert "No cell has finished yet" in page.text and RUN["command"] in page.text and not page.charts


@pytest.mark.parametrize("task", LENGTHS)
def test_one_cell(tmp_path, task):
    page = report(tmp_path, [cell("jamba", task)])
    assert "Partial results: 1 of 64 planned cells" in page.text
    assert page.charts[f"quality:{task}"].keys() == {"jamba"}
    assert "lowest to highest" not in page.text


def test_a_cell_with_nothing_optional_and_no_score(tmp_path):
    page = report(tmp_path, [{"arch": "bmojo", "task": "recall", "scores": []}])
    assert not page.charts and "B'MOJO" in page.row("B'MOJO")[0]


def test_a_torn_last_line_is_skipped_and_told(tmp_path):
    page = report(tmp_path, [cell("jamba"), cell("samba")], tail=json.dumps(cell("bmojo"))[:200])
    assert page.charts["quality:recall"].keys() == {"jamba", "samba"}
    assert "1 unreadable line of results.jsonl skipped" in page.text


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="results.jsonl"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_run_is_told(tmp_path):
    assert "run.json is missing" in report(tmp_path, [cell()], run=None).text


def test_unknown_architectures_get_colours_of_their_own(tmp_path):
    page = report(tmp_path, [cell("bmojo"), cell("zeta"), cell("alpha")])
    assert [
        s in page.html for s in ('class="series s7"', 'class="series s8"', 'class="series s9"', 'class="series s10"')
    ] == [True, True, True, False]


@pytest.mark.parametrize(
    "targets", [[], [50], [50, 50, 50], [0, 1, 2, 90], [99, 98, 100, 97], [30, 10, 20], list(range(40))]
)
def test_labels_are_pushed_apart_in_order_and_inside(targets):
    placed = push_apart(targets, 10, 0, 100)
    gap = min(10, 100 / max(1, len(targets) - 1))
    in_order = [placed[i] for i in sorted(range(len(targets)), key=lambda i: targets[i])]
    assert all(b - a >= gap - 0.11 for a, b in itertools.pairwise(in_order))
    assert all(-0.1 <= p <= 100.1 for p in placed)


def test_labels_that_have_room_stay():
    assert push_apart([80, 20, 50], 10, 0, 100) == [80, 20, 50]
    assert push_apart([50, 50], 10, 0, 100) == [45, 55]


def test_axis_puts_doubling_lengths_at_even_steps_with_ticks_at_the_data():
    drawn = chart(
        "c",
        "t",
        "n",
        Axis("x", log=2, data_ticks=True),
        Axis("y"),
        [Series("a", "a", 0, [Point(n, 0.5) for n in (96, 192, 384)])],
    )
    xs = [p["x"] for p in drawn["series"][0]["points"]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2) and xs[0] < xs[1]
    assert [text for _, text in drawn["x_ticks"]] == ["96", "192", "384"]


@pytest.mark.parametrize(
    "log, values", [(0, [0.1, 0.9]), (0, [5, 5]), (10, [3, 4]), (10, [1e-3, 1e6]), (2, [1, 2**40]), (10, [7])]
)
def test_ticks_are_few_inside_and_apart(log, values):
    drawn = chart(
        "c", "t", "n", Axis("x"), Axis("y", log=log), [Series("a", "a", 0, [Point(i, v) for i, v in enumerate(values)])]
    )
    at = [pixel for pixel, _ in drawn["y_ticks"]]
    assert 2 <= len(at) <= 10 and all(drawn["top"] - 1 <= p <= drawn["bottom"] + 1 for p in at)
    assert all(abs(a - b) >= LINE - 1 for a, b in itertools.pairwise(at))


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    assert chart("c", "t", "n", Axis("x"), Axis("y", log=10), [Series("a", "a", 0, [Point(1, 0.0)])]) is None
