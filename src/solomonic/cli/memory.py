"""The long-term store: add documents, search, list, verify, repair and forget them."""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.spelling import counted, paragraph, warn
from ..model import LanguageModel
from ._device import device, dtype
from ._lookup import can_store, warn_unless_it_looks_up
from ._numbers import real, whole
from ._options import STDOUT, add_device, add_dtype, add_field, add_json, add_k, add_plugin, k_of, write_json
from ._passages import naming_damage, shown, visible
from ._table import table

if TYPE_CHECKING:
    from ..memory import Store, StoreSchema

READS, MODELS, MAKES, WRITES = ("path",), ("model",), ("store", "out"), ("json",)
KEEP = 0.1
"""Share of tokens that pass the innovation test of a new store, unless another is asked for."""


def arguments(command: argparse.ArgumentParser) -> None:
    # a subcommand is a function with its summary as its docstring, and one that adds its arguments
    commands = command.add_subparsers(required=True, metavar="SUBCOMMAND", dest="subcommand")
    for name, (run, add) in SUBCOMMANDS.items():
        command = commands.add_parser(
            name, help=(run.__doc__ or "").splitlines()[0].rstrip("."), description=run.__doc__
        )
        command.add_argument(
            "--store", required=True, metavar="URI", help="a folder, or another store's URI (docs/memory.md)"
        )
        add(command)
        command.set_defaults(subcommand_run=run)


def run(args: argparse.Namespace, words: list[str]) -> int:
    if args.store.startswith("ram:"):
        raise ValueError(
            f"{args.store}: expected a folder or a Milvus store; one in memory would end with this command"
        )
    with naming_damage():
        return args.subcommand_run(args)


def add(args: argparse.Namespace) -> int:
    """Read documents into the store, which is made where it is not there.

    Each is read by itself and kept by what its text is: the same file twice changes nothing, however its path is spelt,
    and what Ctrl-C or a crash left incomplete goes on from its last save point. Of a file that has changed, the version
    before stays, under the same name, until it is forgotten.
    """
    from .._utils.progress import Progress
    from ..checkpoints.folder import load
    from ..data.corpus import documents
    from ..memory import open_store
    from ..retrieval.attach import Attached
    from ..retrieval.remember import Names, remember

    if args.keep is not None and not 0 < args.keep <= 1:
        raise ValueError(f"--keep: expected a share in (0, 1], got {args.keep}")
    texts = list(documents(args.path, args.field))
    model, tokenizer = load(args.model, device(args.device), dtype(args.dtype))
    added = same = 0
    with open_store(args.store, _layout(args, model), write=True) as store:
        before, attached, names = store.stats(), Attached(model, store), Names(store)
        warn_unless_it_looks_up(args.model, model, [shape.layer for shape in store.schema.layers])
        with Progress(sum(len(text.text) for text in texts), "byte", "memory add") as bar:
            for text in texts:
                path = text.source if not text.start else f"{text.source}:{text.start}"
                name = names(path, text.text, args.session)
                bar.set_note(visible(Path(path).name)[:30])
                begun = bar.n
                known = remember(attached, tokenizer, name, text.text, session=args.session, report=bar.update)
                bar.update(begun + len(text.text) - bar.n)
                added, same = added + (known is not None), same + (known is None)
        after = store.stats()
    tokens = after["tokens"] - before["tokens"]
    stored = f"{counted(tokens, 'token')} stored, {counted(after['size'], 'byte')} in all"
    print(paragraph(f"{counted(added, 'document')} added, {same:,} there already; {stored}"))
    return 0


def search(args: argparse.Namespace) -> int:
    """Read a text with the model, and print the stored passages that its layers attend to most."""
    import torch

    from ..checkpoints.folder import load
    from ..retrieval.attach import MOST, Attached
    from ._passages import Heard

    if args.json not in (None, STDOUT) and args.json.suffix.lower() != ".json":
        raise ValueError(f"--json: expected FILE.json, or nothing, got {args.json}; TEXT stands before the options")
    if args.count < 1:
        raise ValueError(f"--count: expected a whole number >= 1, got {args.count}")
    k = k_of(args)
    if not 1 <= k <= MOST:
        raise ValueError(f"--k: expected a whole number from 1 to {MOST}, got {k}")
    model, tokenizer = load(args.model, device(args.device), dtype(args.dtype))
    tokens = torch.from_numpy(tokenizer.encode(os.fsencode(" ".join(args.text))))
    if not len(tokens):
        raise ValueError("expected some text to search for, got none")
    with _opened(args) as store:
        heard = Heard(store)
        attached = Attached(model, store, k=k, watch=heard)
        gain = warn_unless_it_looks_up(args.model, model, [shape.layer for shape in store.schema.layers])
        with torch.inference_mode():
            attached(tokens[None].to(model.device))
        asked = {"store": args.store, "model": args.model, "text": " ".join(args.text), "lookup_gain": gain}
        if write_json(args.json, lambda: asked | {"passages": heard.passages(args.count)}):
            print(heard.table(args.count))
    return 0


def list_documents(args: argparse.Namespace) -> int:
    """List the documents, in the order in which they were added.

    With --json, `time` is in seconds since 1970, `text` and `bytes` are what a document takes as text and in the store.
    """
    with _opened(args) as store:

        def content() -> dict[str, Any]:
            documents = [asdict(document) for document in store.documents()]
            damaged = [{"id": number, "name": name} for number, name in store.damaged().items()]
            return {"store": args.store, "documents": documents, "damaged": damaged}

        if not write_json(args.json, content):
            return 0
        rows = [
            [
                visible(shown(d.name)),
                d.id,
                visible(d.session) if d.session is not None else None,
                _moment(d.time),
                d.tokens,
                d.text,
                d.bytes,
                "yes" if d.complete else "no",
            ]
            for d in store.documents()
        ]
    names = ["document", "id", "session", "time (UTC)", "stored tokens", "text bytes", "store bytes", "complete"]
    print(table(names, rows))
    return 0


def stats(args: argparse.Namespace) -> int:
    """Say what the store holds, and how much room it takes."""
    with _opened(args) as store:
        stats, schema = store.stats(), store.schema
    rows = [
        ["documents", stats["documents"]],
        ["of them incomplete", stats["incomplete"]],
        ["stored tokens, all layers", stats["tokens"]],
        ["text bytes", stats["text"]],
        ["store bytes", stats["size"]],
        ["store bytes per stored token", stats["size"] / stats["tokens"] if stats["tokens"] else None],
    ]
    print(table(["store", visible(args.store)], rows))
    print()
    layers = [[str(s.layer), s.heads, s.dim, s.block, stats["clock"][s.layer]] for s in schema.layers]
    print(table(["layer", "heads", "dim", "block", "clock"], layers))
    print("\n" + paragraph(f"model {visible(schema.model)}, {schema.dtype}"))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Read everything, and name what is damaged; exit code 1 if anything is."""
    with _opened(args) as store:
        problems = store.verify()
        documents = 0 if problems else len(store.documents())
    for problem in problems:
        print(paragraph(visible(problem)))
    print(f"problems: {len(problems):,}" if problems else f"sound: {counted(documents, 'document')}")
    return 1 if problems else 0


def compact(args: argparse.Namespace) -> int:
    """Give back to the disk the room of what was forgotten."""
    with _opened(args, write=True) as store:
        before = store.stats()["size"]
        store.compact()
        print(f"{counted(before, 'byte')} before, {store.stats()['size']:,} after")
    return 0


def repair(args: argparse.Namespace) -> int:
    """Write what is sound into a new store, and say what is lost; the old one stays as it is.

    Exit code 1 if anything is lost. A document that has lost a part is in the new store too, without it, and `verify`
    goes on to name it: forget it there and add it again.
    """
    from ..memory import repair

    documents, lost = repair(args.store, args.out)
    for line in lost:
        print(paragraph(visible(line)))
    losses = f"{len(lost) or 'no'} {'loss' if len(lost) == 1 else 'losses'}"
    print(paragraph(f"{counted(documents, 'document')} written to {visible(args.out)}; {losses}"))
    return 1 if lost else 0


def forget(args: argparse.Namespace) -> int:
    """Forget the documents that all options select, and everything that was computed from them.

    It asks nothing. What it prints is gone from the store, its index and its log when it ends.
    """
    from ..retrieval.remember import same_file

    if all(getattr(args, name) is None for name in ("document", "id", "before", "after", "session")):
        raise ValueError(
            "expected documents, a time or a session, got none of them; --document, --id, --before, --after and "
            "--session name them"
        )
    limits = {
        name: None if (at := getattr(args, name)) is None else _time(f"--{name}", at) for name in ("before", "after")
    }
    with _opened(args, write=not args.dry_run) as store:
        documents = None
        if args.document or args.id:
            known = [(d.id, d.name) for d in store.documents()] + list(store.damaged().items())
            documents = set(args.id or ())
            for name in args.document or ():
                named = {number for number, its in known if its == name or same_file(its, name)}
                if not named:
                    raise ValueError(f"--document: expected one that the store holds, got {name!r}; see memory list")
                documents |= named
        gone = store.forget(documents, session=args.session, dry_run=args.dry_run, **limits)
    rows = [
        [visible(shown(d.name)), visible(d.session) if d.session is not None else None, _moment(d.time), d.tokens, why]
        for why, group in (("asked", gone.asked), ("computed from it", gone.followed))
        for d in group
    ]
    if rows:
        print(table(["document", "session", "time (UTC)", "stored tokens", "why"], rows))
    print(f"{counted(len(rows), 'document')} {'would go' if args.dry_run else 'forgotten'}")
    for number in gone.unknown:
        warn(
            f"document {number} is damaged: whether it was computed from what went, nobody can tell; "
            f"forget it too (--id {number})"
        )
    if gone.unfinished is not None:
        warn(visible(" ".join(gone.unfinished.split())))
        return 1
    return 0


def _layout(args: argparse.Namespace, model: LanguageModel) -> "StoreSchema | None":
    """Of the store that is there, None; of a new one, a function of the model: the texts may be forgotten."""
    from ..memory import Absent, open_store
    from ..retrieval.schema import store_schema

    if not can_store(model):
        raise ValueError(f"{args.model}: expected a model with an eidetic memory, which can store, got one without")
    for_new = args.keep is not None or args.layers is not None
    try:
        open_store(args.store).close()
    except Absent:
        return store_schema(model, args.layers, keep=KEEP if args.keep is None else args.keep)
    if for_new:
        raise ValueError(f"--keep and --layers are for a new store; {args.store} is there and has its own")
    return None


def _forget_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--document", action="append", metavar="NAME", help="name or file of a document; may be repeated"
    )
    command.add_argument(
        "--id", action="append", type=whole(), metavar="N", help="number of a document in memory list; may be repeated"
    )
    command.add_argument("--session", metavar="S", help="documents of this session")
    command.add_argument(
        "--before", metavar="TIME", help="documents added before TIME: 2026-01-31, 2026-01-31T12:00 (UTC)"
    )
    command.add_argument("--after", metavar="TIME", help="documents added at TIME or later")
    command.add_argument("--dry-run", action="store_true", help="only print what would go")


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", nargs="+", metavar="PATH", help="files or folders of text")
    _model_arguments(command)
    add_field(command)
    command.add_argument("--session", metavar="S", help="name of a session, to forget it by")
    command.add_argument(
        "--keep",
        type=real(),
        metavar="SHARE",
        help=f"share of tokens that a new store keeps, those of the highest scores (default {KEEP})",
    )
    command.add_argument(
        "--layers",
        nargs="+",
        type=whole(),
        metavar="N",
        help="layers of the model that a new store serves, from 0 (default: all that can)",
    )


def _search_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="+", metavar="TEXT", help="what to search for")
    _model_arguments(command)
    command.add_argument(
        "--count", "-n", type=whole(), default=3, metavar="N", help="passages of each layer (default 3)"
    )
    add_k(command)
    add_json(command)


def _model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", required=True, metavar="MODEL", help="folder of the model that the store belongs to"
    )
    add_plugin(command)
    add_device(command)
    add_dtype(command)


def _repair_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", required=True, metavar="NEW", help="folder of the new store, which is not there yet")


def _list_arguments(command: argparse.ArgumentParser) -> None:
    add_json(command)


def _no_arguments(command: argparse.ArgumentParser) -> None:
    pass


def _opened(args: argparse.Namespace, write: bool = False) -> "Store":
    from ..memory import open_store

    return open_store(args.store, write=write)


def _moment(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OSError, OverflowError):
        return str(time)


def _time(option: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{option}: expected a time like 2026-01-31 or 2026-01-31T12:00, got {text!r}") from None


SUBCOMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "add": (add, _add_arguments),
    "search": (search, _search_arguments),
    "list": (list_documents, _list_arguments),
    "stats": (stats, _no_arguments),
    "verify": (verify, _no_arguments),
    "compact": (compact, _no_arguments),
    "repair": (repair, _repair_arguments),
    "forget": (forget, _forget_arguments),
}
