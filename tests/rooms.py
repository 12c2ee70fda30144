"""Which package of the library imports which, and a picture of it.

    python -m tests.rooms docs/imports.svg [SOURCE]

SOURCE is the folder of the library, that of `import solomonic` by default. A box is a package, as wide as it has lines; a
line goes down to each package that it imports and that nothing else on its way imports. Arrows to `_utils`, which all may
import, and from the command line, which imports all, are left out.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import solomonic

ROOT = Path(solomonic.__file__).parent
EVERYONE = {"_utils", "files", "jsontext", "machine", "progress", "spelling"}
TOP = {"cli", "__main__"}
WIDTH, BOX, GAP, LEFT = 1180, 34, 44, 20


def imports(root: Path = ROOT) -> Iterator[tuple[Path, str, str | None, str | None]]:
    """(file, its package, package of ours that it imports or None, package of others or None) of every import."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield path, parts[0], *_target(root, name.name.split("."), 0, parts)
            elif isinstance(node, ast.ImportFrom):
                module = node.module.split(".") if node.module else []
                for name in node.names if not module else [None]:
                    yield path, parts[0], *_target(root, module or [name.name], node.level, parts)


def _target(root: Path, module: list[str], level: int, parts: tuple[str, ...]) -> tuple[str | None, str | None]:
    if level:
        where = [*parts[: len(parts) - level], *module]
        inside = where and ((root / where[0]).is_dir() or (root / f"{where[0]}.py").exists())
        return (where[0] if inside else "__init__"), None
    if module[0] == "solomonic":
        return (module[1] if len(module) > 1 else "__init__"), None
    return None, module[0]


def graph_of(root: Path = ROOT) -> dict[str, tuple[set[str], set[str]]]:
    """{package: (those of ours that it imports, but itself and those that all may import, packages of others)}."""
    rows: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for _, room, other, package in imports(root):
        ours, others = rows[room]
        if other is not None and other != room and other not in EVERYONE:
            ours.add(other)
        if package is not None and package not in sys.stdlib_module_names:
            others.add(package)
    for path in root.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            rows[path.stem]
    return dict(rows)


def lines(root: Path) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for path in root.rglob("*.py"):
        counts[path.relative_to(root).with_suffix("").parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    return counts


def picture(root: Path = ROOT) -> str:
    """An SVG, in the reader's own colours."""
    graph = {room: ours - {"__init__"} for room, (ours, _) in graph_of(root).items() if room != "__init__"}
    counts = lines(root)
    edges = {room: ours for room, ours in graph.items() if room not in TOP}
    level: dict[str, int] = {}

    def level_of(room: str) -> int:
        if room not in level:
            level[room] = 0 if room in EVERYONE else 1 + max(map(level_of, edges.get(room, ())), default=0)
        return level[room]

    highest = max(level_of(room) for room in edges) + 1
    level |= dict.fromkeys(TOP & graph.keys(), highest)
    floors = [sorted(room for room in graph if level[room] == at) for at in range(highest, -1, -1)]
    box, y = {}, GAP
    for floor in floors:
        wide = {room: 9.2 * len(room) + 26 + counts[room] / 120 for room in floor}
        space = (WIDTH - 2 * LEFT - sum(wide.values())) / (len(floor) + 1)
        x = LEFT + space
        for room in floor:
            box[room] = (x, y, wide[room])
            x += wide[room] + space
        y += BOX + GAP

    def reaches(room: str, other: str) -> bool:
        return other in edges.get(room, ()) or any(reaches(one, other) for one in edges.get(room, ()))

    drawn = []
    for room, ours in edges.items():
        for other in sorted(ours):
            if not any(reaches(between, other) for between in ours - {other}):
                (x1, y1, w1), (x2, y2, w2) = box[room], box[other]
                a, b, c, d = x1 + w1 / 2, y1 + BOX, x2 + w2 / 2, y2
                bend = (d - b) / 2
                drawn.append(f'<path d="M{a:.0f} {b} C{a:.0f} {b + bend:.0f} {c:.0f} {d - bend:.0f} {c:.0f} {d}"/>')
    boxes = [
        f'<rect x="{x:.0f}" y="{y}" width="{w:.0f}" height="{BOX}" rx="5"><title>{counts[room]:,} lines</title></rect>'
        f'<text x="{x + w / 2:.0f}" y="{y + 22}">{room}</text>'
        for room, (x, y, w) in box.items()
    ]
    style = (
        "svg{--ink:#1f2328;--box:#eef3f8;--edge:#57606a}"
        "@media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--box:#1c2733;--edge:#8b949e}}"
        "rect{fill:var(--box);stroke:var(--edge)}path{fill:none;stroke:var(--edge);stroke-opacity:.55}"
        "text{fill:var(--ink);font:15px ui-monospace,monospace;text-anchor:middle}"
    )
    body = "\n".join([*drawn, *boxes])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}"><style>{style}</style>\n{body}\n</svg>\n'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(*map(Path, sys.argv[2:3])), encoding="utf-8")
