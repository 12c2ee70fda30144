"""docs/architecture.md's table of packages: who may import whom, no more and no less."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .rooms import graph_of, picture

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
ANYTHING = "*"


def table():
    """{package of ours: (those it may import, packages of others it may import)}."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").split("## Packages")[1].split("\n## ")[0].splitlines():
        if found := re.fullmatch(r"\| `(\w+)` \|.*\|([^|]*)\|([^|]*)\|", line):
            name, ours, others = found.groups()
            assert name not in rows, name
            rows[name] = tuple({word.strip() for word in cell.split(",") if word.strip()} for cell in (ours, others))
    return rows


def test_every_package_is_in_the_table_and_nothing_else_is():
    assert table().keys() == graph_of().keys() and len(graph_of()) > 20


@pytest.mark.parametrize("room", sorted(graph_of()))
def test_a_package_imports_what_the_table_says(room):
    ours, others = graph_of()[room]
    allowed, packages = table()[room]
    if allowed != {ANYTHING}:
        assert ours == allowed, f"imports that the table has not: {ours - allowed}; that no file has: {allowed - ours}"
    assert others == packages, (
        f"packages that the table has not: {others - packages}; that no file has: {packages - others}"
    )


def test_nobody_imports_the_command_line():
    assert not [room for room, (ours, _) in graph_of().items() if "cli" in ours and room != "__main__"]


def test_there_are_no_circles():
    """But for the version, which `__init__` has."""
    left = {room: ours - {"__init__"} for room, (ours, _) in graph_of().items() if room not in ("cli", "__main__")}
    while left:
        free = {room for room, ours in left.items() if not ours & left.keys()}
        assert free, f"packages that import one another: {left}"
        left = {room: ours for room, ours in left.items() if room not in free}


def test_the_picture_shows_every_package():
    root = ElementTree.fromstring(picture())
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts == graph_of().keys() - {"__init__"} and len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 15
