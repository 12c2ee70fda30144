"""One self-contained page from the results of a comparison.

`write_report` reads `results.jsonl` (a line per finished cell) and `run.json`, and writes
`report.html`: no script, no external address. Results may be partial.

`results.py` reads and chooses cells, `figures.py` says what each chart holds, `charts.py` has their geometry, `tables.py`
the findings and tables; the markup is in `report.html.j2`, the looks in `report.css.j2`.
"""

from pathlib import Path

import jinja2

from .._utils.files import write
from .charts import MARKERS
from .figures import sections
from .results import choose, edges, load, number
from .tables import cell_text, everything, findings, flat, kept_pictures, legend, summary


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/results.jsonl` and `folder/run.json`; return its path."""
    folder = Path(folder)
    cells, run, notes = load(folder)
    tasks = choose(cells)
    notes += edges(tasks)
    planned = number(run.get("cells"))
    if planned and len(cells) < planned:
        notes.insert(0, f"Partial results: {len(cells)} of {planned:g} planned cells have finished.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = cell_text
    page = environment.get_template("report.html.j2").render(
        run=run,
        notes=notes,
        count=len(cells),
        findings=findings(tasks),
        legend=legend(tasks, run),
        summary=summary(tasks),
        sections=sections(tasks),
        pictures=kept_pictures(tasks),
        tables=everything(cells, tasks),
        settings=flat(run.get("settings")),
        versions=flat(run.get("versions")),
        markers=MARKERS,
    )
    write(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"
