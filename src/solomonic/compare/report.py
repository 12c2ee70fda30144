"""One self-contained page from the results of a comparison.

`write_report` reads `results.jsonl` (a line per finished cell) and `run.json`, and writes
`report.html`, which needs nothing else, nor the script in it to be read. Results may be partial.

`results.py` reads and chooses cells, `figures.py` says what each chart holds, `charts.py` has their geometry, `tables.py`
the findings and tables, `pictures.py` the charts as files; the markup is in `report.html.j2`, the looks in `report.css` and
`chart.css.j2`. `report.js` sorts and filters tables, hides architectures, shows values and saves figures.
"""

from pathlib import Path

from .._utils import look
from .._utils.files import write
from .charts import MARKERS
from .figures import sections
from .pictures import environment, picture_style
from .results import choose, edges, load, number
from .tables import everything, findings, flat, kept_pictures, legend, summary


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/results.jsonl` and `folder/run.json`; return its path."""
    folder = Path(folder)
    cells, run, notes = load(folder)
    tasks = choose(cells)
    notes += edges(tasks)
    planned = number(run.get("cells"))
    if planned and len(cells) < planned:
        notes.insert(0, f"Partial results: {len(cells)} of {planned:g} planned cells have finished.")
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            look=look.css(),
            picture_style=picture_style(),
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
    )
    write(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"
