"""docs/architecture.md's table of packages: who may import whom, no more and no less."""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import solomonic

ROOT = Path(solomonic.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
EVERYONE = {"_utils"}
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


def imports():
    """(file, room, imported room or None, imported package or None) of every import in the library."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield path, parts[0], *_target(name.name.split("."), 0, parts)
            elif isinstance(node, ast.ImportFrom):
                module = node.module.split(".") if node.module else []
                for name in node.names if not module else [None]:
                    yield path, parts[0], *_target(module or [name.name], node.level, parts)


def _target(module, level, parts):
    if level:
        base = list(parts[: len(parts) - level])
        where = [*base, *module]
        inside = (
            where[0] if where and ((ROOT / where[0]).is_dir() or (ROOT / f"{where[0]}.py").exists()) else "__init__"
        )
        return inside, None
    if module[0] == "solomonic":
        return (module[1] if len(module) > 1 else "__init__"), None
    return None, module[0]


def found():
    """{package of ours: (those it imports, but itself and those that all may import, packages of others)}."""
    rows = defaultdict(lambda: (set(), set()))
    for _, room, other, package in imports():
        ours, others = rows[room]
        if other is not None and other != room and other not in EVERYONE:
            ours.add(other)
        if package is not None and package not in sys.stdlib_module_names:
            others.add(package)
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            rows[path.stem]
    return dict(rows)


def test_every_package_is_in_the_table_and_nothing_else_is():
    assert table().keys() == found().keys() and len(found()) > 20


@pytest.mark.parametrize("room", sorted(found()))
def test_a_package_imports_what_the_table_says(room):
    ours, others = found()[room]
    allowed, packages = table()[room]
    if allowed != {ANYTHING}:
        assert ours == allowed, f"imports that the table has not: {ours - allowed}; that no file has: {allowed - ours}"
    assert others == packages, (
        f"packages that the table has not: {others - packages}; that no file has: {packages - others}"
    )


def test_nobody_imports_the_command_line():
    assert not [room for room, (ours, _) in found().items() if "cli" in ours and room != "__main__"]


def test_there_are_no_circles():
    """But for the version, which `__init__` has."""
    left = {room: ours - {"__init__"} for room, (ours, _) in found().items() if room not in ("cli", "__main__")}
    while left:
        free = {room for room, ours in left.items() if not ours & left.keys()}
        assert free, f"packages that import one another: {left}"
        left = {room: ours for room, ours in left.items() if room not in free}
