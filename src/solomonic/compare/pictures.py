"""The charts of a comparison as files: a picture and its numbers each, and the templates that the page shares with them."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from .._utils import look
from .._utils.files import locked, owned, write_all
from .figures import sections
from .results import Task, number
from .tables import cell_text

INDEX, HEAD = "figures.csv", ("file", "title", "note", "x", "y")
FILE = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@cache
def environment() -> jinja2.Environment:
    """The templates of this folder."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.filters |= {"value": cell_text, "number": number}
    made.globals["series"] = look.SERIES
    return made


def picture_style() -> str:
    """The style of a picture that stands alone: light colours and fonts by value, since few programs know variables."""
    values = look.LIGHT | {"sans": look.SANS}
    text = environment().get_template("chart.css.j2").render()
    return re.sub(r"var\(--([\w-]+)\)", lambda name: values[name[1]], text)


def as_svg(chart: dict) -> str:
    """A chart as an SVG file that needs nothing else, with its title and note on top."""
    drawing: Any = environment().get_template("chart.svg.j2").module
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", drawing.picture(chart, picture_style()) + "\n")


def as_csv(chart: dict) -> str:
    """The numbers of a chart: a line a point, the mean over seeds; `low` and `high` are empty for one seed."""
    return _csv(chart["columns"], numbers(chart))


def numbers(chart: dict) -> Iterator[list]:
    """The lines of `as_csv`."""
    for one in [*([chart["reference"]] if chart["reference"] else []), *chart["series"]]:
        yield from ([one["key"], *values] for _x, _y, _text, *values in one["data"])


def write_figures(tasks: list[Task], folder: Path) -> list[str]:
    """Write every chart of the page as NAME.svg and NAME.csv, and an index of them, all or none; return the names.

    The page's links save the same. Figures of an earlier call are replaced, and those of other names go. ValueError, with
    nothing written, where there is nothing to draw and for a folder that holds anything else.
    """
    charts = [chart for section in sections(tasks) for chart in section["charts"]]
    if not charts:
        raise ValueError("expected results with scores, costs or losses, of which figures can be drawn; got none")
    files = {f"{c['file']}.{kind}": make(c) for c in charts for kind, make in (("svg", as_svg), ("csv", as_csv))}
    files[INDEX] = _csv(HEAD, ([c["file"], c["title"], c["note"], c["x_label"], c["y_label"]] for c in charts))
    owned(folder, "figures", INDEX, option="--figures")
    with locked(folder, "writing figures there", folder=True):
        earlier = _earlier(folder / INDEX)
        write_all(folder, files)
        for name in earlier - files.keys():
            (folder / name).unlink(missing_ok=True)
    return [c["file"] for c in charts]


def _earlier(index: Path) -> set[str]:
    """The files of the figures that an earlier call wrote."""
    if not index.exists():
        return set()
    head, *lines = index.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if head != ",".join(HEAD):
        raise ValueError(
            f"{index}: expected an index of figures, which begins with {','.join(HEAD)}; name another folder"
        )
    names = (line.partition(",")[0] for line in lines)
    return {f"{name}.{kind}" for name in names if re.fullmatch(FILE, name) for kind in ("svg", "csv")}


def _csv(head: Iterable[str], lines: Iterable[Iterable]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


__all__ = ["as_csv", "as_svg", "numbers", "write_figures"]
