"""Runs the cells of a comparison, several at a time, and shows progress; can be stopped and started again."""

import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from .._utils import jsontext
from .._utils.files import locked, owned, write
from .._utils.machine import cores
from .._utils.plugins import load as load_plugin
from .._utils.plugins import used
from .._utils.progress import Progress, on_compiling
from .._utils.spelling import counted, paragraph, warn
from ..training.history import Interrupted
from .folder import append_line, open_folder, settings_of
from .matrix import Cell, cell_of, cells_of, check_task, costs, digest, run_cell
from .report import write_report
from .results import Entry, choose, edges, load
from .suites import Run, Suite


def compare(
    suite: Suite, folder: Path, device: torch.device, jobs: int, command: str, threads: int | None = None
) -> Path:
    """Run what `folder` does not hold yet of `suite`, `jobs` cells at a time with `threads` each, and write its page.

    Returns the page. Raises ValueError for settings that cannot be, before anything is written, or the checkpoint of
    another run; Interrupted when it is stopped by Ctrl-C or SIGTERM, with every finished cell on disk and the others as
    checkpoints.
    """
    problems = {name: check_task(run) for name, run in suite.runs.items()}
    owned(folder, "a comparison", "run.json", "results.jsonl")
    with locked(folder, "comparing there", folder=True):
        done = open_folder(folder, suite, str(device), command, {n: digest(p) for n, p in problems.items()})
        del problems  # a text may be large
        return _compare(suite, folder, device, jobs, threads or max(1, cores() // jobs), done)


def _compare(suite: Suite, folder: Path, device: torch.device, jobs: int, threads: int, done: list[dict]) -> Path:
    wanted = cells_of(suite)
    finished = {cell_of(line) for line in done}
    todo = [cell for cell in wanted if cell not in finished]
    measured = cost_table(suite, folder, device)
    steps = sum(suite.runs[cell.task].steps for cell in wanted)
    before = steps - sum(suite.runs[cell.task].steps for cell in todo)
    if before:
        cells = counted(len(wanted), "cell")
        there = len(wanted) - len(todo)
        print(paragraph(f"{there} of {cells} {'is' if there == 1 else 'are'} in {folder / 'results.jsonl'} already"))
    with Progress(steps, "step", "compare", shown=bool(todo)) as bar:
        bar.update(before)

        def finish(line: dict[str, Any]) -> None:
            line |= {"costs": measured[line["task"]].get(line["arch"], [])}
            append_line(folder / "results.jsonl", line)
            bar.say(paragraph(summary(line), after="  "))

        try:
            plugins = used([suite.archs, settings_of(suite, str(device))])
            run_cells(todo, suite.runs, device, folder, jobs, threads, bar, finish, plugins)
        finally:
            if (folder / "results.jsonl").exists():
                page = write_report(folder)
    for note in edges(choose(load(folder)[0])):
        warn(note)
    return page


def cost_table(suite: Suite, folder: Path, device: torch.device) -> dict[str, dict[str, list]]:
    """run -> architecture -> costs, measured one at a time before training begins, kept in `costs.json`."""
    path = folder / "costs.json"
    table = _kept(path)
    missing = [(n, a) for n in suite.runs for a in suite.archs if a not in table.get(n, {})]
    if missing:
        with Progress(len(missing), "model", "time and state against length") as bar:
            for name, arch in missing:
                table.setdefault(name, {})[arch] = costs(arch, suite.runs[name], suite.cost_lengths, device)
                write(path, jsontext.write(table))
                bar.update()
    return table


def _kept(path: Path) -> dict[str, dict[str, list]]:
    """The content of the file; nothing, with a warning, where it is damaged."""
    if not path.exists():
        return {}
    try:
        table = jsontext.read(path, dict)
        if all(isinstance(rows, list) for archs in table.values() for rows in archs.values()):
            return table
    except (ValueError, AttributeError):
        pass
    warn(f"{path}: damaged; time and state are measured again")
    return {}


def summary(line: dict[str, Any]) -> str:
    """One line for the terminal: what the cell scored at its training length and at its longest, with 95 % intervals."""
    scores = [s for s in line["scores"] if s["metric"] == line["metric"]]
    ends = []
    for s in scores[:1] + scores[-1:]:
        known = Entry(line["arch"], 0, [line]).interval(line["metric"], s["length"])
        bound = f" (bound {s['bound']:.3f})" if "bound" in s else ""
        ends.append(f"{s['value']:.3f}{f' ± {known.half:.3f}' if known else ''} at {s['length']}{bound}")
    shown = ", ".join(ends) or line["diverged"]
    return f"{line['arch']:<15} {line['task']:<17} lr {line['lr']:<5g} {line['train_seconds']:4.0f} s  {shown}"


def run_cells(
    todo: list[Cell],
    runs: dict[str, Run],
    device: torch.device,
    folder: Path,
    jobs: int,
    threads: int,
    bar: Progress,
    finish: Callable[[dict[str, Any]], None],
    plugins: Sequence[str] = (),
) -> None:
    """`jobs` processes, of so many threads each, take cells from one queue; the parent alone writes results.

    Each loads the `plugins` first: it begins with the library alone.
    """
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    cells, news, stop = context.Queue(), context.Queue(), context.Event()
    jobs = min(jobs, len(todo))
    for cell in todo:
        cells.put(cell)
    for _ in range(jobs):
        cells.put(None)
    arguments = (cells, news, stop, runs, str(device), folder, threads, plugins)
    workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(jobs)]
    stopping = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt  # the second time: at once, checkpoints as they are
        stopping.set()
        stop.set()
        bar.say(paragraph("stopping: cells under way are being saved (once more to stop at once)"))

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for worker in workers:
            worker.start()
        working = jobs
        while working:
            try:
                kind, value = news.get(timeout=1.0)
            except queue.Empty:
                dead = [w for w in workers if w.exitcode not in (None, 0)]
                if dead and not stopping.is_set():
                    raise RuntimeError(f"a worker process ended with exit code {dead[0].exitcode}") from None
                if all(not w.is_alive() for w in workers):
                    break
                continue
            if kind == "step":
                bar.update(value)
            elif kind == "line":
                finish(value)
            elif kind == "warning":
                bar.say(paragraph(f"solomonic: {value}", file=sys.stderr), sys.stderr)
            elif kind == "compiling":
                bar.compiling()
            elif kind == "refused":
                raise ValueError(value)
            elif kind == "error":
                raise RuntimeError(value)
            else:
                working -= 1
        if stopping.is_set():
            raise Interrupted("stopped; the same command goes on from here")
    finally:
        for worker in workers:
            worker.join(0.2)
            if worker.is_alive():
                worker.terminate()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _work(
    cells: Queue,
    news: Queue,
    stop: Event,
    runs: dict[str, Run],
    device: str,
    folder: Path,
    threads: int,
    plugins: Sequence[str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a process of its own

    def stopping() -> bool:
        """Whether to stop: on request, and where the parent process is gone."""
        return not parent.is_alive() or stop.is_set()

    try:
        for word in plugins:
            load_plugin(word)
    except ValueError as error:
        news.put(("refused", str(error)))
        return
    while (cell := _next(cells, stopping)) is not None and not stopping():
        reached = 0

        def report(step: int, loss: float) -> None:
            nonlocal reached
            news.put(("step", step - reached))
            reached = step

        def warn(text: str) -> None:
            news.put(("warning", text))

        try:
            with on_compiling(lambda: news.put(("compiling", None))):
                line = run_cell(cell, runs[cell.task], torch.device(device), folder, report, stopping, warn)
            news.put(("line", line))
        except Interrupted:
            break
        except ValueError as error:
            news.put(("refused", str(error)))
            break
        except Exception as error:  # the parent ends the comparison with it
            news.put(("error", f"{cell.key}: {type(error).__name__}: {error}"))
            raise
    news.put(("end", None))
    if not parent.is_alive():
        news.cancel_join_thread()


def _next(cells: Queue, stopping: Callable[[], bool]) -> Cell | None:
    while not stopping():
        try:
            return cells.get(timeout=1.0)
        except queue.Empty:
            continue
    return None
