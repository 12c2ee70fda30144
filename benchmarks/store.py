"""What a long-term store costs: engines and indexes side by side, on keys and values of 4 heads of width 64.

    python benchmarks/store.py engines [TOKENS...]    write, reopen, search, fetch: in RAM, on disk, and in LanceDB
    python benchmarks/store.py indexes [TOKENS...]    exact search against usearch and FAISS: build, latency, recall
    python benchmarks/store.py decode [TOKENS...]     a decoded token with and without a store, by the size of the model

Engines that are not installed are left out. Each number is the best of several, on one thread.
"""

import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from lookup_common import decoded

from solomonic import LanguageModel, preset
from solomonic.inference.sessions import Session
from solomonic.memory import LayerSchema, StoredTokens, StoreSchema, open_store
from solomonic.memory.search.exact import ExactIndex, Keys
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.schema import store_schema

LAYER = LayerSchema(0, heads=4, dim=64, block=16, admit=True)
SCHEMA = StoreSchema("benchmark", (LAYER,), "float16")
K = 16
CENTRES = 4096


def tokens(count: int, seed: int = 0, heads: int = LAYER.heads, dim: int = LAYER.dim) -> StoredTokens:
    """Keys around `CENTRES` centres, RMS-normed a head, as a layer's are; every second token of a document."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(CENTRES, heads, dim, generator=torch.Generator().manual_seed(99))
    key = centres[torch.randint(CENTRES, (count,), generator=random)]
    key = key + 0.7 * torch.randn(key.shape, generator=random)
    key = torch.nn.functional.rms_norm(key, key.shape[-1:])
    value = torch.randn(key.shape, generator=random)
    position = 2 * torch.arange(count)
    clock = torch.rand(count, generator=random).cumsum(0) / 100
    score = torch.randn(count, generator=random)
    return StoredTokens(position, key, value, score, clock, position[:, None] + torch.tensor([0, 2]))


def queries(count: int) -> torch.Tensor:
    return tokens(count, seed=7).key / LAYER.dim**0.5


def best(call, times: int = 5) -> float:
    """Milliseconds."""
    call()
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return 1e3 * min(took)


def engines(sizes: list[int]) -> None:
    print(f"{'engine':<8}{'tokens':>10}{'written tokens/s':>18}{'bytes/token':>13}{'reopen, 1st search s':>22}", end="")
    print(f"{'search 1 ms':>13}{'search 16 ms':>14}{'fetch 32 ms':>13}")
    for size in sizes:
        for name in ["ram", "disk", *(["lancedb"] if find_spec("lancedb") else [])]:
            with tempfile.TemporaryDirectory() as folder:
                row = lancedb_row(folder, size) if name == "lancedb" else store_row(name, folder, size)
            print(
                f"{name:<8}{size:>10,}" + "".join(f"{x:>{w},.{d}f}" for x, w, d in zip(row, WIDTHS, DIGITS)), flush=True
            )


WIDTHS, DIGITS = (18, 13, 22, 13, 14, 13), (0, 0, 2, 1, 1, 2)


def store_row(name: str, folder: str, size: int) -> list[float]:
    """Documents of 10,000 tokens, a save point every 256."""
    uri = "ram:benchmark" if name == "ram" else folder
    payload = [tokens(10_000, seed) for seed in range(min(4, size // 10_000))]
    begun = time.perf_counter()
    with open_store(uri, SCHEMA, write=True) as store:
        for number in range(size // 10_000):
            with store.document(str(number)) as document:
                for at in range(0, 10_000, 256):
                    document.write(0, payload[number % len(payload)][at : at + 256])
                    document.save()
        took = time.perf_counter() - begun
        each = store.stats()["size"] / size
    begun = time.perf_counter()
    with open_store(uri) as store:
        hits = store.search(0, queries(1), K)
        first = time.perf_counter() - begun
        one, many = queries(1), queries(16)
        entries = store.search(0, queries(8), K).entry.unique()[:32]
        row = [
            size / took,
            each,
            first,
            best(lambda: store.search(0, one, K)),
            best(lambda: store.search(0, many, K)),
            best(lambda: store.fetch(0, entries)),
        ]
        assert (hits.entry >= 0).all()
    if name == "ram":
        from solomonic.memory.engines import ram

        ram.NAMED.clear()
    return row


def lancedb_row(folder: str, size: int) -> list[float]:
    """One table a head, a row a token, flat search by inner product; values beside the keys of the first head."""
    os.environ["LANCE_LOG"] = os.environ["RUST_LOG"] = "error"
    import lancedb
    import pyarrow as pa

    database, d = lancedb.connect(folder), LAYER.dim
    payload = tokens(10_000)
    tables, begun = [], time.perf_counter()
    value = payload.value.flatten(1).half().numpy()
    for head in range(LAYER.heads):
        key, table = payload.key[:, head].half().numpy(), None
        for number in range(size // 10_000):
            columns = {
                "id": pa.array([number * 10_000 + i for i in range(10_000)]),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(key.ravel(), pa.float16()), d),
            }
            if head == 0:
                columns["value"] = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel(), pa.float16()), 4 * d)
            part = pa.table(columns)
            if table is None:
                table = database.create_table(f"head{head}", part)
            else:
                table.add(part)
        tables.append(table)
    took = time.perf_counter() - begun
    each = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / size

    def search(query: torch.Tensor) -> list:
        return [
            tables[head].search(q).distance_type("dot").select(["id"]).limit(K).to_arrow()
            for q in query.numpy()[:, None]
            for head, q in enumerate(q[0])
        ]

    begun = time.perf_counter()
    tables = [lancedb.connect(folder).open_table(f"head{head}") for head in range(LAYER.heads)]
    search(queries(1))
    first = time.perf_counter() - begun
    ids = ", ".join(str(i) for i in range(0, size, max(1, size // 32)))
    return [
        size / took,
        each,
        first,
        best(lambda: search(queries(1)), 3),
        best(lambda: search(queries(16)), 1),
        best(lambda: tables[0].search().where(f"id in ({ids})").limit(64).to_arrow(), 3),
    ]


SIZES = ((128, 3, 4, 2), (256, 6, 4, 2), (512, 8, 8, 2), (768, 12, 12, 4))  # width, layers, heads, key/value heads


def decode(sizes: list[int], count: int = 48) -> None:
    """Untrained models, a store of one layer, approximate search; the median of tokens decoded with and without in turns."""
    print(f"{'parameters':>12}{'stored':>12}{'without, ms':>14}{'with, ms':>12}{'share of the store':>20}")
    for width, layers, heads, groups in SIZES:
        torch.manual_seed(0)
        config = preset(
            "bmojo", vocab_size=2048, d_model=width, n_layers=layers, n_heads=heads, n_kv_heads=groups, window=64
        )
        model = LanguageModel(config).eval()
        shape = store_schema(model, [layers // 2])
        one = shape.layers[0]
        for size in sizes:
            with open_store("ram:", shape, write=True, approximate=True) as store:
                for document, _first in enumerate(range(0, size, 10_000)):
                    with store.document(f"{document}") as writing:
                        writing.write(one.layer, tokens(10_000, document, one.heads, one.dim))
                attached, session = Attached(model, store), Session().then(list(range(300)))
                ms = decoded({"without": model, "with": attached}, session, count)
                number = sum(p.numel() for p in model.parameters())
                share = 1 - ms["without"] / ms["with"]
                print(f"{number:>12,}{size:>12,}{ms['without']:>14.2f}{ms['with']:>12.2f}{share:>20.0%}", flush=True)


def indexes(sizes: list[int]) -> None:
    """Of one head: of its best `K` tokens by inner product, the share that an approximate index finds."""
    print(f"{'index':<22}{'tokens':>10}{'build s':>10}{'bytes/token':>13}{'search 1 ms':>13}{'recall':>9}")
    for size in sizes:
        stored = tokens(size)
        key, query = stored.key[:, 0].contiguous(), queries(256)[:, 0].contiguous()
        exact = torch.cat([(q @ key.T).topk(K).indices for q in query.split(16)])

        def row(name: str, build: float, each: float, search) -> None:
            ids = torch.tensor([search(q) for q in query.numpy()])
            share = (ids[:, :, None] == exact[:, None]).any(-1).float().mean()
            took = best(lambda: search(query.numpy()[0]), 20)
            print(f"{name:<22}{size:>10,}{build:>10.1f}{each:>13.0f}{took:>13.2f}{share:>9.3f}", flush=True)

        flat = ExactIndex(LayerSchema(0, 1, 64, 16), torch.float16)
        begun = time.perf_counter()
        flat.add(Keys(stored.position, key[:, None].half(), stored.score, stored.clock))
        row(
            "exact",
            time.perf_counter() - begun,
            128 + 16,
            lambda q: (flat.candidates(torch.tensor(q)[None, None], K, 0.0, {}, None).token_id[0, 0] // 2).tolist(),
        )
        if find_spec("usearch"):
            from usearch.index import Index

            for connect, expand in ((16, 64), (16, 256)):
                index = Index(ndim=64, metric="ip", dtype="f16", connectivity=connect, expansion_search=expand)
                begun = time.perf_counter()
                index.add(torch.arange(size).numpy(), key.half().numpy(), threads=1)
                build = time.perf_counter() - begun
                row(
                    f"usearch HNSW ef {expand}",
                    build,
                    index.memory_usage / size,
                    lambda q: index.search(q, K).keys.tolist(),
                )
        if find_spec("faiss"):
            import faiss

            faiss.omp_set_num_threads(1)
            for probe in (8, 64):
                lists = max(64, int(4 * size**0.5))
                index = faiss.IndexIVFScalarQuantizer(
                    faiss.IndexFlatIP(64), 64, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
                )
                begun = time.perf_counter()
                index.train(key[: 40 * lists].numpy())
                index.add(key.numpy())
                index.nprobe = probe
                build = time.perf_counter() - begun
                row(f"FAISS IVF probe {probe}", build, 128 + 8, lambda q: index.search(q[None], K)[1][0].tolist())


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *sizes = sys.argv[1:] or ["engines"]
    {"engines": engines, "indexes": indexes, "decode": decode}[what]([int(size) for size in sizes] or [10_000, 100_000])
