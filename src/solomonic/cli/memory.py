"""The long-term store: read documents into it, search it, say what is in it and what is to go from it."""

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from .._utils.spelling import counted, paragraph, warn
from ._device import add_device, add_dtype, device, dtype
from ._json import STDOUT, add_json, say
from ._lookup import can_store, warn_unless_it_looks_up
from ._numbers import real, whole
from ._passages import naming_damage, shown, visible
from ._table import table

READS, MODELS, MAKES, WRITES = ("path",), ("model",), ("store", "out"), ("json",)
KEEP = 0.1
"""Share of tokens that pass the innovation test of a new store, unless another is asked for."""


def arguments(command: argparse.ArgumentParser) -> None:
    # a subcommand is a function with its summary as its docstring, and one that adds its arguments
    commands = command.add_subparsers(required=True, metavar="SUBCOMMAND", dest="subcommand")
    for name, (run, add) in SUBCOMMANDS.items():
        one = commands.add_parser(name, help=run.__doc__.splitlines()[0].rstrip("."), description=run.__doc__)
        one.add_argument(
            "--store", required=True, metavar="URI", help="a folder, or another store's URI (docs/memory.md)"
        )
        add(one)
        one.set_defaults(subcommand_run=run)


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    if chosen.store.startswith("ram:"):
        raise ValueError(
            f"{chosen.store}: expected a folder or a Milvus store; one in memory would end with this command"
        )
    with naming_damage():
        return chosen.subcommand_run(chosen)


def add(chosen: argparse.Namespace) -> int:
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

    if chosen.keep is not None and not 0 < chosen.keep <= 1:
        raise ValueError(f"--keep: expected a share in (0, 1], got {chosen.keep}")
    texts = list(documents(chosen.path, chosen.field))
    model, tokenizer = load(chosen.model, device(chosen.device), dtype(chosen.dtype))
    added = same = 0
    with open_store(chosen.store, _layout(chosen, model), write=True) as store:
        before, attached, names = store.stats(), Attached(model, store), Names(store)
        warn_unless_it_looks_up(chosen.model, model, [shape.layer for shape in store.schema.layers])
        with Progress(sum(len(text.text) for text in texts), "byte", "memory add") as bar:
            for text in texts:
                path = text.source if not text.start else f"{text.source}:{text.start}"
                name = names(path, text.text, chosen.session)
                bar.set_note(visible(Path(path).name)[:30])
                begun = bar.n
                known = remember(attached, tokenizer, name, text.text, session=chosen.session, report=bar.update)
                bar.update(begun + len(text.text) - bar.n)
                added, same = added + (known is not None), same + (known is None)
        after = store.stats()
    tokens = after["tokens"] - before["tokens"]
    stored = f"{counted(tokens, 'token')} stored, {counted(after['size'], 'byte')} in all"
    print(paragraph(f"{counted(added, 'document')} added, {same:,} there already; {stored}"))
    return 0


def search(chosen: argparse.Namespace) -> int:
    """Read a text with the model, and print the stored passages that its layers attend to most."""
    import torch

    from ..checkpoints.folder import load
    from ..retrieval.attach import MOST, Attached
    from ._passages import Heard

    if chosen.json not in (None, STDOUT) and chosen.json.suffix.lower() != ".json":
        raise ValueError(f"--json: expected FILE.json, or nothing, got {chosen.json}; TEXT stands before the options")
    if chosen.count < 1:
        raise ValueError(f"--count: expected a whole number >= 1, got {chosen.count}")
    if not 1 <= chosen.k <= MOST:
        raise ValueError(f"--k: expected a whole number from 1 to {MOST}, got {chosen.k}")
    model, tokenizer = load(chosen.model, device(chosen.device), dtype(chosen.dtype))
    tokens = torch.from_numpy(tokenizer.encode(os.fsencode(" ".join(chosen.text))))
    if not len(tokens):
        raise ValueError("expected some text to search for, got none")
    with _opened(chosen) as store:
        heard = Heard(store)
        attached = Attached(model, store, k=chosen.k, watch=heard)
        gain = warn_unless_it_looks_up(chosen.model, model, [shape.layer for shape in store.schema.layers])
        with torch.inference_mode():
            attached(tokens[None].to(model.embedding.weight.device))
        if chosen.json is None:
            print(heard.table(chosen.count))
        else:
            asked = {"store": chosen.store, "model": chosen.model, "text": " ".join(chosen.text)}
            say(chosen.json, asked | {"lookup_gain": gain} | {"passages": heard.passages(chosen.count)})
    return 0


def list_documents(chosen: argparse.Namespace) -> int:
    """List the documents, in the order in which they were added.

    With --json, `time` is in seconds since 1970, `text` and `bytes` are what a document takes as text and in the store.
    """
    with _opened(chosen) as store:
        if chosen.json is not None:
            found = {"store": chosen.store, "documents": [asdict(document) for document in store.documents()]}
            damaged = [{"id": number, "name": name} for number, name in store.damaged().items()]
            say(chosen.json, found | {"damaged": damaged})
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


def stats(chosen: argparse.Namespace) -> int:
    """Say what the store holds, and how much room it takes."""
    with _opened(chosen) as store:
        found, schema = store.stats(), store.schema
    rows = [
        ["documents", found["documents"]],
        ["of them incomplete", found["incomplete"]],
        ["stored tokens, all layers", found["tokens"]],
        ["text bytes", found["text"]],
        ["store bytes", found["size"]],
        ["store bytes per stored token", found["size"] / found["tokens"] if found["tokens"] else None],
    ]
    print(table(["store", visible(chosen.store)], rows))
    print()
    layers = [[str(s.layer), s.heads, s.dim, s.block, found["clock"][s.layer]] for s in schema.layers]
    print(table(["layer", "heads", "dim", "block", "clock"], layers))
    print("\n" + paragraph(f"model {visible(schema.model)}, {schema.dtype}"))
    return 0


def verify(chosen: argparse.Namespace) -> int:
    """Read everything, and name what is damaged; exit code 1 if anything is."""
    with _opened(chosen) as store:
        problems = store.verify()
        documents = 0 if problems else len(store.documents())
    for problem in problems:
        print(paragraph(visible(problem)))
    print(f"problems: {len(problems):,}" if problems else f"sound: {counted(documents, 'document')}")
    return 1 if problems else 0


def compact(chosen: argparse.Namespace) -> int:
    """Give back to the disk the room of what was forgotten."""
    with _opened(chosen, write=True) as store:
        before = store.stats()["size"]
        store.compact()
        print(f"{counted(before, 'byte')} before, {store.stats()['size']:,} after")
    return 0


def repair(chosen: argparse.Namespace) -> int:
    """Write what is sound into a new store, and say what is lost; the old one stays as it is.

    Exit code 1 if anything is lost. A document that has lost a part is in the new store too, without it, and `verify`
    goes on to name it: forget it there and add it again.
    """
    from ..memory import repair

    documents, lost = repair(chosen.store, chosen.out)
    for line in lost:
        print(paragraph(visible(line)))
    losses = f"{len(lost) or 'no'} {'loss' if len(lost) == 1 else 'losses'}"
    print(paragraph(f"{counted(documents, 'document')} written to {visible(chosen.out)}; {losses}"))
    return 1 if lost else 0


def forget(chosen: argparse.Namespace) -> int:
    """Forget for good the documents for which all that is given holds, and all that was computed from them.

    It asks nothing. What it prints is gone from the store, its index and its log when it ends.
    """
    from ..retrieval.remember import same_file

    if all(getattr(chosen, name) is None for name in ("document", "id", "before", "after", "session")):
        raise ValueError(
            "expected documents, a time or a session, got none of them; --document, --id, --before, --after and "
            "--session name them"
        )
    limits = {
        name: None if (at := getattr(chosen, name)) is None else _time(f"--{name}", at) for name in ("before", "after")
    }
    with _opened(chosen, write=not chosen.dry_run) as store:
        documents = None
        if chosen.document or chosen.id:
            known = [(d.id, d.name) for d in store.documents()] + list(store.damaged().items())
            documents = set(chosen.id or ())
            for name in chosen.document or ():
                named = {number for number, its in known if its == name or same_file(its, name)}
                if not named:
                    raise ValueError(f"--document: expected one that the store holds, got {name!r}; see memory list")
                documents |= named
        gone = store.forget(documents, session=chosen.session, dry_run=chosen.dry_run, **limits)
    rows = [
        [visible(shown(d.name)), visible(d.session) if d.session is not None else None, _moment(d.time), d.tokens, why]
        for why, group in (("asked", gone.asked), ("computed from it", gone.followed))
        for d in group
    ]
    if rows:
        print(table(["document", "session", "time (UTC)", "stored tokens", "why"], rows))
    print(f"{counted(len(rows), 'document')} {'would go' if chosen.dry_run else 'forgotten'}")
    for number in gone.unknown:
        warn(
            f"document {number} is damaged: whether it was computed from what went, nobody can tell; "
            f"forget it too (--id {number})"
        )
    if gone.unfinished is not None:
        warn(visible(" ".join(gone.unfinished.split())))
        return 1
    return 0


def _layout(chosen: argparse.Namespace, model):
    """Of the store that is there, None; of a new one, a function of the model: the texts may be forgotten."""
    from ..memory import Absent, open_store
    from ..retrieval.schema import store_schema

    if not can_store(model):
        raise ValueError(f"{chosen.model}: expected a model with an eidetic memory, which can store, got one without")
    given = chosen.keep is not None or chosen.layers is not None
    try:
        open_store(chosen.store).close()
    except Absent:
        return store_schema(model, chosen.layers, keep=KEEP if chosen.keep is None else chosen.keep)
    if given:
        raise ValueError(f"--keep and --layers are for a new store; {chosen.store} is there and has its own")
    return None


def _forget_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--document", action="append", metavar="NAME", help="of this name, or this file; may be given again"
    )
    command.add_argument(
        "--id", action="append", type=whole(), metavar="N", help="of this number in memory list; may be given again"
    )
    command.add_argument("--session", metavar="S", help="of this session")
    command.add_argument("--before", metavar="TIME", help="added before TIME: 2026-01-31, 2026-01-31T12:00 (UTC)")
    command.add_argument("--after", metavar="TIME", help="added at TIME or later")
    command.add_argument("--dry-run", action="store_true", help="only print what would go")


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", nargs="+", metavar="PATH", help="files or folders of text")
    _model_arguments(command)
    command.add_argument("--field", default="text", metavar="F", help="of JSON lines and parquet (default text)")
    command.add_argument("--session", metavar="S", help="to forget by")
    command.add_argument(
        "--keep",
        type=real(),
        metavar="SHARE",
        help=f"of a new store: the share of tokens that are kept, the most telling ones (default {KEEP})",
    )
    command.add_argument(
        "--layers", nargs="+", type=whole(), metavar="N", help="of a new store: layers, from 0 (default: all that can)"
    )


def _search_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("text", nargs="+", metavar="TEXT", help="what to search for")
    _model_arguments(command)
    command.add_argument(
        "--count", "-n", type=whole(), default=3, metavar="N", help="passages of each layer (default 3)"
    )
    command.add_argument(
        "--k", type=whole(), default=4, metavar="K", help="tokens a head finds for each token (default 4)"
    )
    add_json(command)


def _model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", required=True, metavar="MODEL", help="folder of the model that the store belongs to"
    )
    add_device(command)
    add_dtype(command)


def _repair_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", required=True, metavar="NEW", help="folder of the new store, which is not there yet")


def _list_arguments(command: argparse.ArgumentParser) -> None:
    add_json(command)


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
