"""The collections of one store in Milvus, or in its embedded edition, Milvus Lite, and requests to them.

Milvus Lite serves one process at a time; engines of one process share it, and the last that closes releases it. A
collection that was opened again is loaded before the first request: in both editions it may be released.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from .base import Absent, Unreachable, Unwritable

MOST = 16_384  # results of one request
ROWS = 1_000  # sent at a time
PATIENCE = 10  # seconds
Row = dict[str, Any]  # of a collection, by the names of its fields
ENDING, OPENED = ".db", "LOCK"  # of a folder of Milvus Lite; a file in it

_embedded: Counter[str] = Counter()  # engines of this process, by the folders of Milvus Lite that they use
_opening = threading.RLock()


class Service:
    """`place` is an address, or a folder of Milvus Lite whose name ends in .db; the collections' names begin with `name`.

    make: whether to start a store where there is none; else Absent is raised.
    """

    def __init__(self, place: str, name: str, make: bool):
        from pymilvus import DataType, MilvusClient

        for logger in ("pymilvus.decorators", "milvus_lite.server_manager"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)  # what they log is raised
        self.uri, self.types, self._name = f"milvus:{place}", DataType, name
        self._folder = None if "://" in place else _folder(self.uri, place)
        address = place if self._folder is None else self._start(self._folder, make)
        try:
            with self.errors(Unreachable):
                self.client = MilvusClient(
                    uri=address,
                    token=os.environ.get("MILVUS_TOKEN", ""),
                    timeout=PATIENCE,
                    grpc_options={"grpc.keepalive_time_ms": 300_000},  # more often is refused by the embedded edition
                )
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        self.client.close()
        self._end()

    @contextmanager
    def errors(self, kind: type[OSError]) -> Iterator[None]:
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            raise kind(f"{self.uri}: the service cannot be reached, or refuses ({error.message})") from error

    def has(self, collection: str) -> bool:
        with self.errors(Unreachable):
            return bool(self.client.has_collection(f"{self._name}_{collection}"))

    def load(self, collections: Iterable[str]) -> None:
        """To be called before the first request: a collection that was opened again may be released."""
        with self.errors(Unreachable):
            for collection in collections:
                self.client.load_collection(f"{self._name}_{collection}")

    def create(self, collection: str, fields: dict[str, Any], dim: int = 2) -> None:
        """The first field is the key of the collection; Milvus requires a vector in every one."""
        name = f"{self._name}_{collection}"
        with self.errors(Unwritable):
            if self.client.has_collection(name):  # a creation that was cut off
                self.client.drop_collection(name)
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            for at, (field, kind) in enumerate(fields.items()):
                most = {"max_length": 65_535 if at else 100} if kind == self.types.VARCHAR else {}
                schema.add_field(field, kind, is_primary=at == 0, **most)
            schema.add_field("vector", self.types.FLOAT_VECTOR, dim=dim)
            index = self.client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="IP")
            self.client.create_collection(name, schema=schema, consistency_level="Strong")
            self.client.create_index(name, index, sync=False)  # flat: there is nothing to wait for
            self.client.load_collection(name)

    def get(self, collection: str, number: int) -> Row | None:
        with self.errors(Unreachable):
            rows = self.client.get(f"{self._name}_{collection}", ids=[number], timeout=PATIENCE)
        return rows[0] if rows else None

    def query(self, collection: str, which: str, fields: list[str]) -> list[Row]:
        with self.errors(Unreachable):
            rows: list[Row] = self.client.query(
                f"{self._name}_{collection}", which, output_fields=fields, timeout=PATIENCE
            )
            return rows

    def count(self, collection: str, which: str) -> int:
        return int(self.query(collection, which, ["count(*)"])[0]["count(*)"])

    def search(
        self, collection: str, vectors: Tensor, count: int, only: set[int] | None, fields: list[str]
    ) -> list[list[Row]]:
        """The rows with the largest inner products with each vector (N, D), of the documents `only`."""
        with self.errors(Unreachable):
            hits: list[list[Row]] = self.client.search(
                f"{self._name}_{collection}",
                data=vectors.tolist(),
                limit=count,
                filter="" if only is None else f"document in {sorted(only)}",
                output_fields=fields,
                search_params={"metric_type": "IP"},
                timeout=PATIENCE,
            )
            return hits

    def send(self, collection: str, rows: list[Row]) -> None:
        with self.errors(Unwritable):
            for begin in range(0, len(rows), ROWS):
                self.client.upsert(f"{self._name}_{collection}", rows[begin : begin + ROWS], timeout=PATIENCE)

    def delete(self, collection: str, which: str) -> None:
        with self.errors(Unwritable):
            self.client.delete(f"{self._name}_{collection}", filter=which, timeout=PATIENCE)

    def compact(self, collection: str) -> None:
        with self.errors(Unwritable):
            self.client.flush(f"{self._name}_{collection}")
            self.client.compact(f"{self._name}_{collection}")

    def _start(self, folder: Path, make: bool) -> str:
        """The address of Milvus Lite on the folder, started where no engine of this process has started it."""
        from milvus_lite import server_manager_instance

        if not folder.exists() and not make:
            raise Absent(f"{self.uri}: there is no store; `solomonic memory add` makes one")
        if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not (folder / OPENED).exists()):
            what = "a file" if folder.is_file() else "one that holds something else"
            raise ValueError(f"{self.uri}: expected a folder of Milvus Lite 3, or a new one, got {what}")
        with _opening:
            folder.parent.mkdir(parents=True, exist_ok=True)
            address: str | None = server_manager_instance.start_and_get_uri(str(folder))
            if address is None:
                raise Unreachable(
                    f"{self.uri}: Milvus Lite cannot open it: another process has it open, or it is no folder of "
                    "Milvus Lite 3; it serves one process at a time: wait for the other, or use a Milvus server"
                )
            _embedded[str(folder)] += 1
            return address

    def _end(self) -> None:
        """Release Milvus Lite, so that another process can open it."""
        if self._folder is None:
            return
        from milvus_lite import server_manager_instance

        with _opening:
            _embedded[str(self._folder)] -= 1
            if not _embedded[str(self._folder)]:
                del _embedded[str(self._folder)]
                server_manager_instance.release_server(str(self._folder))


def _folder(uri: str, place: str) -> Path:
    if not place.endswith(ENDING):
        raise ValueError(
            f"{uri}: expected an address, as in milvus:http://localhost:19530, or a folder of Milvus Lite whose name "
            f"ends in {ENDING}"
        )
    return Path(place).resolve()


__all__ = ["MOST", "Row", "Service"]
