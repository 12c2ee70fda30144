"""The long-term store: what is in it, and what is to go from it.

A subcommand is a function here with its summary as its docstring, and one that adds its arguments.
"""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime

from ._table import table


def arguments(command: argparse.ArgumentParser) -> None:
    commands = command.add_subparsers(required=True, metavar="SUBCOMMAND", dest="subcommand")
    for name, (run, add) in SUBCOMMANDS.items():
        one = commands.add_parser(name, help=run.__doc__.splitlines()[0].rstrip("."), description=run.__doc__)
        one.add_argument(
            "--store", required=True, metavar="URI", help="a folder, or another store's URI (docs/memory.md)"
        )
        add(one)
        one.set_defaults(subcommand_run=run)


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    return chosen.subcommand_run(chosen)


def list_documents(chosen: argparse.Namespace) -> int:
    """Documents, in the order in which they were added."""
    with _opened(chosen) as store:
        rows = [
            [
                visible(d.name),
                visible(d.session) if d.session is not None else None,
                _moment(d.time),
                d.tokens,
                d.text,
                d.bytes,
                "yes" if d.complete else "no",
            ]
            for d in store.documents()
        ]
    print(table(["document", "session", "time (UTC)", "stored tokens", "text bytes", "store bytes", "complete"], rows))
    return 0


def stats(chosen: argparse.Namespace) -> int:
    """What the store holds, and what it takes."""
    with _opened(chosen) as store:
        found, layout = store.stats(), store.layout
    rows = [
        ["documents", found["documents"]],
        ["of them incomplete", found["incomplete"]],
        ["stored tokens, all layers", found["tokens"]],
        ["text bytes", found["text"]],
        ["store bytes", found["size"]],
        ["store bytes per stored token", found["size"] / found["tokens"] if found["tokens"] else None],
    ]
    print(table(["store", chosen.store], rows))
    print()
    layers = [[str(s.layer), s.heads, s.dim, s.block, found["clock"][s.layer]] for s in layout.layers]
    print(table(["layer", "heads", "dim", "block", "clock"], layers))
    print(f"\nmodel {visible(layout.model)}, {layout.dtype}")
    return 0


def verify(chosen: argparse.Namespace) -> int:
    """Reads everything, and names what is damaged; exit code 1 if anything is."""
    with _opened(chosen) as store:
        problems = store.verify()
        documents = 0 if problems else len(store.documents())
    for problem in problems:
        print(visible(problem))
    print(f"{len(problems)} problems" if problems else f"sound: {documents} documents")
    return 1 if problems else 0


def compact(chosen: argparse.Namespace) -> int:
    """Gives the room of what went back to the disk."""
    with _opened(chosen, write=True) as store:
        before = store.stats()["size"]
        store.compact()
        print(f"{before:,} bytes before, {store.stats()['size']:,} after")
    return 0


def forget(chosen: argparse.Namespace) -> int:
    """Documents for which all that is given holds, and all that was computed from them, gone for good.

    It asks nothing. What it prints is gone from the store, its index and its log when it ends.
    """
    limits = {
        name: None if (at := getattr(chosen, name)) is None else _time(f"--{name}", at) for name in ("before", "after")
    }
    with _opened(chosen, write=not chosen.dry_run) as store:
        documents = None
        if chosen.document:
            known = store.documents()
            documents = set()
            for name in chosen.document:
                named = {d.id for d in known if d.name == name}
                if not named:
                    raise ValueError(f"--document: expected one that the store holds, got {name!r}; see memory list")
                documents |= named
        gone = store.forget(documents, session=chosen.session, dry_run=chosen.dry_run, **limits)
    rows = [
        [visible(d.name), visible(d.session) if d.session is not None else None, _moment(d.time), d.tokens, why]
        for why, group in (("asked", gone.asked), ("computed from it", gone.followed))
        for d in group
    ]
    if rows:
        print(table(["document", "session", "time (UTC)", "stored tokens", "why"], rows))
    print(f"{len(rows)} documents {'would go' if chosen.dry_run else 'forgotten'}")
    return 0


def visible(text: str) -> str:
    """Without what a terminal would take for an order."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)


def _forget_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--document", action="append", metavar="NAME", help="of this name; may be given again")
    command.add_argument("--session", metavar="S", help="of this session")
    command.add_argument("--before", metavar="TIME", help="added before TIME: 2026-01-31, 2026-01-31T12:00 (UTC)")
    command.add_argument("--after", metavar="TIME", help="added at TIME or later")
    command.add_argument("--dry-run", action="store_true", help="only print what would go")


def _no_arguments(command: argparse.ArgumentParser) -> None:
    pass


def _opened(chosen: argparse.Namespace, write: bool = False):
    from ..memory import open_store

    return open_store(chosen.store, write=write)


def _moment(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OSError, OverflowError):
        return str(time)


def _time(option: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option}: expected a time like 2026-01-31 or 2026-01-31T12:00, got {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


SUBCOMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "list": (list_documents, _no_arguments),
    "stats": (stats, _no_arguments),
    "verify": (verify, _no_arguments),
    "compact": (compact, _no_arguments),
    "forget": (forget, _forget_arguments),
}
