"""Every engine there is, and documents to put in a store."""

import pytest
import torch

from solomonic.memory import LayerSchema, StoredTokens, StoreSchema, open_store

SCHEMA = StoreSchema(
    model="0" * 32,
    layers=(LayerSchema(1, heads=2, dim=6, block=4, admit=True), LayerSchema(3, heads=1, dim=5, block=3)),
)
ENGINES = ["ram", "disk", "milvus"]


def uri_of(engine: str, folder) -> str:
    if engine == "ram":
        return f"ram:{folder}"
    if engine == "milvus":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        return f"milvus:{folder}.db"
    assert engine == "disk", f"uri_of: no URI for the engine {engine!r}"
    return str(folder)


def beside(uri: str) -> str:
    """Another place of the same kind."""
    return uri.replace(".db", "-beside.db") if uri.endswith(".db") else uri + "-beside"


def opened(uri, schema=SCHEMA, write=True, **settings):
    return open_store(uri, schema, write=write, **settings)


def tokens_of(seed: int, layer: int = 1, count: int = 23, begin: int = 0, rough: bool = False) -> StoredTokens:
    """Some of the tokens of a document. rough: keys of few values, so that logits are equal often."""
    shape, random = SCHEMA[layer], torch.Generator().manual_seed(seed)
    key, value = torch.randn(2, count, shape.heads, shape.dim, generator=random)
    clock = torch.rand(count, generator=random).cumsum(0)
    score = torch.randn(count, generator=random)
    if rough:
        key, score, clock = key.sign(), score.sign(), clock.floor()
    position = begin + torch.randint(1, 4, (count,), generator=random).cumsum(0) - 1
    span = position[:, None] + torch.tensor([0, 1])
    return StoredTokens(position, key, value, score, clock, span)


def kept(tokens: StoredTokens) -> StoredTokens:
    """As a store of `SCHEMA` keeps them."""
    return StoredTokens(
        tokens.position, tokens.key.half(), tokens.value.half(), tokens.score, tokens.clock, tokens.span
    )


def put(store, name: str, seed: int, **settings) -> int:
    """A whole document with a text of 40 lines, both layers, three pieces a layer. Returns its id."""
    rough = settings.pop("rough", False)
    with store.document(name, **settings) as document:
        for layer in (1, 3):
            tokens = tokens_of(seed, layer, rough=rough)
            for begin, end in ((0, 7), (7, 8), (8, 23)):
                document.write(layer, tokens[begin:end])
        for line in range(40):
            document.append(f"{name} line {line + 1}\n".encode())
    return document.id


def queries(layer: int, count: int = 3, seed: int = 9, rough: bool = False) -> torch.Tensor:
    shape = SCHEMA[layer]
    query = torch.randn(count, shape.heads, shape.dim, generator=torch.Generator().manual_seed(seed))
    return query.sign() if rough else query


def answers(store, rough: bool = False) -> list:
    """All that a layer can get out of the store, documents by name."""
    names = {document.id: document.name for document in store.documents()}
    out = []
    for layer in (1, 3):
        for rate, k in ((0.0, 1), (0.0, 9), (0.3, 9), (0.3, 200)):
            found = store.search(layer, queries(layer, rough=rough), k, rate, now=store.clock(layer))
            which = [names.get(e >> 32) for e in found.entry.flatten().tolist()]
            out += [found.position, found.logit, which]
            entries = store.fetch(layer, found.entry.unique())
            out += [
                entries.key,
                entries.value,
                entries.score,
                entries.clock,
                entries.position,
                entries.real,
                entries.span,
            ]
            out += [[names.get(document) for document in entries.document.tolist()]]
            read = store.read(layer, found.token_id.flatten().tolist())
            out += [read.key, read.value, read.score, read.clock, read.real]
    return out


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in zip(a, b))
