"""Writing what is sound in a damaged store into a new one."""

import tempfile
import warnings
from pathlib import Path

from .engines import Damaged, Engine, open_engine
from .engines.lock import shared_lock
from .engines.salvage import Salvaged, salvage, schema_of, settled
from .engines.sqlite import DiskEngine
from .engines.tables import FILE, SCHEMA_FILE, unsealed_schema
from .schema import SavePoint, StoredDocument, StoreSchema, entry_of


def repair(uri: str, out: str | Path) -> tuple[int, list[str]]:
    """Write the sound documents of the store `uri`, and what is sound of others, into a new store, the folder `out`.

    Returns the number of documents, and a line for everything that is lost. The old store stays as it is, to the byte; nobody
    may write to it meanwhile. ValueError where there is nothing to read, or something at `out`.
    """
    out = Path(out)
    if not str(out) or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ValueError(f"{out}: expected a folder for the new store that is not there yet")
    folder = Path(uri.removeprefix("file:"))
    lost = _salvaged(folder, out) if (folder / FILE).is_file() else _copied(uri, out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Damaged)  # `verify` has them all
        new = DiskEngine.open(str(out), None, write=True)
        try:
            return len(new.documents()), lost + new.verify()
        finally:
            new.close()


def _salvaged(folder: Path, out: Path) -> list[str]:
    """From the pages of a file on the disk, whether or not SQLite can read it."""
    with shared_lock(folder), tempfile.TemporaryDirectory(prefix="solomonic.") as place:
        source = settled(folder / FILE, Path(place))
        schema = _schema(folder, source)
        out.mkdir(parents=True, exist_ok=True)
        return _losses(salvage(source, out / FILE, schema))


def _schema(folder: Path, source: Path) -> StoreSchema:
    try:
        copy = unsealed_schema((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        copy = None
    schema = schema_of(source) or copy
    if schema is None:
        raise ValueError(f"{folder}: the store's schema is damaged; nothing that it holds can be read without it")
    return schema


def _losses(salvaged: Salvaged) -> list[str]:
    lost = []
    if salvaged.recorded == -1:
        lost.append("how many documents there were cannot be read any more")
    elif salvaged.recorded is not None and salvaged.recorded > salvaged.documents:
        lost.append(f"{salvaged.recorded - salvaged.documents} of {salvaged.recorded} documents")
    if salvaged.broken:
        lost.append(f"{salvaged.broken} damaged rows")
    for document, count in sorted(salvaged.orphans.items()):
        lost.append(f"document {document}: its own row is lost, and with it {count} others that are sound")
    for (document, layer), count in sorted(salvaged.halves.items()):
        lost.append(f"document {document}: {count} entries of layer {layer}, of which one half is damaged or missing")
    return lost


def _copied(uri: str, out: Path) -> list[str]:
    """From a store of another kind, as far as it can be read."""
    with warnings.catch_warnings(record=True) as damages:
        warnings.simplefilter("always", Damaged)
        old = open_engine(uri, None, write=False)
        try:
            new = DiskEngine.open(str(out), old.schema, write=True)
            try:
                for document in old.documents():
                    new.commit([_read(old, document)])
            finally:
                new.close()
        finally:
            old.close()
    return [str(damage.message) for damage in damages]


def _read(engine: Engine, document: StoredDocument) -> SavePoint:
    """All that an engine has of a document."""
    entries = []
    for schema in engine.schema.layers:
        ids: set[int] = set()
        for keys in engine.scan(schema.layer, [document.id]):
            ids.update(entry_of(keys.token_id, schema.block).tolist())
        fetched = engine.fetch(schema.layer, sorted(ids))
        entries += [(schema.layer, entry, tokens) for entry, tokens in sorted(fetched.items())]
    pieces = tuple(engine.pieces(document.id, 0, document.text))
    return SavePoint(document, tuple(entries), pieces, engine.state(document.id))


__all__ = ["repair"]
