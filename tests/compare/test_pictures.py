"""What the page's script and the command line have to work with: numbers of cells and points, and figures as files."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from solomonic._utils.look import DARK, LIGHT
from solomonic.cli import main
from solomonic.compare.figures import file_name, sections
from solomonic.compare.pictures import as_csv, as_svg, numbers, write_figures
from solomonic.compare.report import write_report
from solomonic.compare.results import choose

from .test_report import ARCHS, KEPT, RUN, cell

CELLS = [
    cell(arch, task, seed, lr, **({"kept": KEPT} if (arch, task) == ("bmojo", "recall") else {}))
    for arch in ARCHS
    for task in ("recall", "text")
    for lr in (0.001, 0.003)
    for seed in (0, 1)
]
EVIL = "<&\"'\x00\x1b]]>\ud800 $x^"


class Elements(HTMLParser):
    """(tag, attributes) of all elements; those inside the body of a table have their number in a row as "at"."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.at = [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.at = -1 if tag == "tr" else self.at + (tag in ("td", "th"))
        self.found.append((tag, dict(attributes) | {"at": self.at}))

    def those(self, tag=None, **attributes):
        return [
            values
            for name, values in self.found
            if tag in (None, name) and all(values.get(f"data-{key}") == value for key, value in attributes.items())
        ]


def results(folder, cells=CELLS, **run):
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cells))
    (folder / "run.json").write_text(json.dumps(RUN | run))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Elements(write_report(results(tmp_path_factory.mktemp("page"))).read_text())


@pytest.fixture(scope="module")
def charts():
    return {c["name"]: c for section in sections(choose(CELLS)) for c in section["charts"]}


def drawn(page, chart):
    """{architecture: the points} of a chart of the page."""
    html = [(tag, values) for tag, values in page.found]
    start = next(i for i, (_, values) in enumerate(html) if values.get("data-chart") == chart)
    end = next((i for i in range(start + 1, len(html)) if "data-chart" in html[i][1]), len(html))
    return {
        values["data-arch"]: json.loads(values["data-points"])
        for tag, values in html[start:end]
        if tag == "g" and "data-points" in values
    }


def test_cells_have_the_number_that_they_are_sorted_by(page):
    start = next(i for i, (_, v) in enumerate(page.found) if (v.get("data-arch"), v.get("at")) == ("mamba2", -1))
    row = [values for tag, values in page.found[start + 1 :] if tag == "td"][:7]
    means = [float(values["data-value"]) for values in row]
    assert means == pytest.approx([0.71, 0.71, 2.21, 2.21, 3072, 91000, 104832])  # plain, whatever the cell says
    heads = [int(values["data-column"]) for values in page.those("th") if "data-column" in values]
    assert heads[:8] == [0, 1, 2, 3, 4, 5, 6, 7] and [values["at"] for values in row] == heads[1:8]


def test_every_table_of_the_page_has_its_numbers_and_architectures(page):
    rows = page.those("tr", arch="samba")
    assert len(rows) == 1 + 2 * 4  # the summary's, and a cell for each task, rate and seed
    values = {values["data-value"] for values in page.those("td") if "data-value" in values}
    assert {"0.003", "600", "41.2"} <= values and not {"mamba2", "None", "True"} & values


def test_long_tables_have_a_filter_and_short_ones_none(page, tmp_path):
    assert sum("filter" in values.get("class", "") for values in page.those("label")) == 2
    few = Elements(write_report(results(tmp_path, [cell(), cell("samba")])).read_text())
    assert not few.those("label")


def test_architectures_can_be_found_in_every_chart_table_and_picture(page, charts):
    parts = [values.get("class", "").split() for values in page.those(arch="bmojo")]
    count = {name: sum(name in classes for classes in parts) for name in ("series", "end", "kept")}
    assert count == {"series": len(charts), "end": len(charts), "kept": 1}


@pytest.mark.parametrize("chart", ["quality:recall", "state_quality:recall", "position:text", "loss:text"])
def test_points_of_the_page_have_their_pixels_texts_and_numbers(page, charts, chart):
    points = drawn(page, chart)
    assert points.keys() == set(ARCHS)
    for series in charts[chart]["series"]:
        mine = points[series["key"]]
        assert mine == [list(point) for point in series["data"]]
        vertices = [[float(v) for v in pair.split()] for pair in re.split("[ML]", series["line"])[1:]]
        assert [point[:2] for point in mine] == vertices
        dots = [[dot["x"], dot["y"]] for dot in series["points"]]
        assert dots == (vertices if charts[chart]["dots"] else vertices[-1:])
        assert all(dot["tip"].endswith(point[2]) for dot, point in zip(series["points"][::-1], mine[::-1]))


def test_the_numbers_of_a_figure_are_those_of_the_results(charts):
    lines = list(csv.DictReader(io.StringIO(as_csv(charts["quality:recall"]))))
    assert list(lines[0]) == ["arch", "length", "accuracy", "low", "high", "seeds"]
    (line,) = (line for line in lines if (line["arch"], line["length"]) == ("samba", "192"))
    found = [float(line[key]) for key in ("accuracy", "low", "high", "seeds")]
    (entry,) = (e for task in choose(CELLS) if task.name == "recall" for e in task.entries if e.arch == "samba")
    band = entry.interval("accuracy", 192)
    assert found == pytest.approx([0.41, band.low, band.high, 2]) and band.low < 0.4 < 0.42 < band.high
    lines = list(csv.DictReader(io.StringIO(as_csv(charts["loss:recall"]))))
    assert [float(line["loss_nats"]) for line in lines if line["arch"] == "jamba"] == pytest.approx(
        [3 / int(line["step"]) for line in lines if line["arch"] == "jamba"]
    )
    lines = list(csv.DictReader(io.StringIO(as_csv(charts["state_quality:recall"]))))
    assert {line["length"] for line in lines} == {"96", "384"} and "state_bytes" in lines[0]


def test_chance_and_one_seed_in_the_numbers():
    scores = [{"metric": "accuracy", "value": 0.5, "length": n, "chance": 0.125} for n in (96, 192)]
    (chart, *_) = sections(choose([cell(scores=scores)]))[0]["charts"]
    assert list(numbers(chart)) == [
        ["chance", 96, 0.125, None, None, None],
        ["chance", 192, 0.125, None, None, None],
        ["bmojo", 96, 0.5, None, None, 1],
        ["bmojo", 192, 0.5, None, None, 1],
    ]
    assert as_csv(chart).splitlines()[1] == "chance,96,0.125,,,"


def test_a_picture_stands_alone_in_light_colours(charts):
    for chart in charts.values():
        text = as_svg(chart)
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("width") == "460"
        assert (
            "var(" not in text
            and "sans-serif" in text
            and not re.search("href|url\\(|@import|<script|data-points", text)
        )
        assert set(re.findall("#[0-9a-f]{6}", text)) <= set(LIGHT.values()) and DARK["page"] not in text
        words = [part.text for part in root.iter("{http://www.w3.org/2000/svg}text")]
        assert words[0] == chart["title"] and " ".join(words[1:]).startswith(chart["note"])
        assert {part.get("data-arch") for part in root.iter() if part.get("class", "").startswith("series")} == set(
            ARCHS
        )


def test_hostile_names_are_drawn_and_named(tmp_path):
    tasks = choose([cell() | {"arch": EVIL, "task": EVIL}])
    names = write_figures(tasks, tmp_path / "figures")
    assert all(re.fullmatch("[a-z_]+-x", name) for name in names)
    for name in names:
        root = ElementTree.fromstring((tmp_path / "figures" / f"{name}.svg").read_text())
        assert any(part.get("data-arch", "").startswith("<&\"'\N{REPLACEMENT CHARACTER}") for part in root.iter())


def test_names_of_files_are_plain_and_each_its_own():
    taken = set()
    names = [
        file_name(name, taken) for name in ("loss:a/b", "loss:a:b", "LOSS:A b", "..", "", "-x", "é" * 300 + "ab" * 80)
    ]
    assert names == ["loss-a-b", "loss-a-b-2", "LOSS-A-b-3", "figure", "figure-2", "x", "ab" * 50]


def test_figures_on_the_command_line(tmp_path, capsys, page):
    source, out = results(tmp_path / "run"), tmp_path / "figures"
    assert main(["results", str(source), "--figures", str(out), "--csv"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("task,arch,") and "12 figures in" in said.err
    names = [values["download"] for values in page.those("a") if "download" in values]
    assert len(names) == 24 and {path.name for path in out.iterdir()} == {*names, "figures.csv"}  # as the page's links
    for name in ("quality-recall", "loss-text"):
        lines = list(csv.reader(io.StringIO((out / f"{name}.csv").read_text())))[1:]
        points = drawn(page, name.replace("-", ":"))
        assert [[arch, *map(str, point[3:])] for arch, rows in points.items() for point in rows] == lines
    index = list(csv.DictReader(io.StringIO((out / "figures.csv").read_text())))
    assert index[0]["file"] == "quality-recall" and "beyond the training length" in index[0]["title"]

    (out / "mine.txt").write_text("mine")
    assert main(["results", str(results(tmp_path / "other", CELLS[:4])), "--figures", str(out)]) == 0
    assert not list(out.glob("*-text.*")) and list(out.glob("*-recall.svg")) and (out / "mine.txt").exists()


@pytest.mark.parametrize("case", ["file", "foreign", "foreign index", "inside", "nothing"])
def test_figures_that_cannot_be_written_are_refused(tmp_path, capsys, case):
    source = results(tmp_path / "run", [] if case == "nothing" else CELLS[:4])
    out = source / "figures" if case == "inside" else tmp_path / "out"
    if case == "file":
        out.write_text("mine")
    elif "foreign" in case:
        out.mkdir()
        (out / ("figures.csv" if "index" in case else "mine")).write_text("a,b\nquality-recall,1\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["results", str(source), "--figures", str(out)]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "expected" in said.err and not said.out
    assert "--folders" not in said.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert out.exists() == (case == "file" or "foreign" in case)


def test_a_full_disk_leaves_the_old_figures(tmp_path, full_disk):
    out = tmp_path / "figures"
    write_figures(choose(CELLS[:4]), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with full_disk(9000), pytest.raises(OSError, match="figures"):
        write_figures(choose(CELLS), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
