"""Milvus, a distributed vector database: `milvus:http://HOST:PORT`, or `milvus:FOLDER.db` for its embedded edition.

A store is some collections, named from what follows a `#` in the URI ("solomonic" without one). Milvus has no
transactions over several requests, so that one row decides: a save point is there when the row of its document has it;
what lies beyond that row is not read, and the next writer deletes it.

    NAME_documents          a document, and as number 0 the store itself
    NAME_blobs              entries, pieces of text and states, sealed, in parts of base64
    NAME_keys_LAYER_HEAD    [key, logsigmoid(score), clock], searched by [query, 1, rate] with one inner product

It is searched flat, which is exact but for rounding. MILVUS_TOKEN in the environment is the token or user:password.
"""

import base64
import json
import threading
from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from ..schema import DTYPES, SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece, entry_id, log_admission
from ..search.exact import ExactIndex, Keys
from .base import Absent, Engine, Ids, IndexType
from .milvus_blobs import decode, encode, parts, seal
from .milvus_index import MilvusIndex
from .milvus_service import MOST, Row, Service

BLOCKS = 256  # asked for at a time
TEXT, STATE = -1, -2  # kinds of blobs that are of no layer
DOCUMENTS, BLOBS = "documents", "blobs"  # collections


Body = dict[str, Any]
"""What the row of a document has, as JSON: the document, and what of it has been sent."""


class MilvusEngine(Engine):
    @classmethod
    def open(cls, target: str, schema: StoreSchema | None, write: bool) -> "MilvusEngine":
        place, _, name = target.partition("#")
        if not place:
            raise ValueError("milvus: expected an address or a file, as in milvus:http://localhost:19530")
        return cls(place, name or "solomonic", schema, write)

    def __init__(self, place: str, name: str, schema: StoreSchema | None, write: bool):
        super().__init__()
        self._writing = threading.RLock()
        self._sent: dict[tuple[int, int], int] = {}  # (layer, document): the last position that this process has sent
        self._broken: dict[int, str] = {}  # documents whose own rows are damaged: ids, and names
        self.service = Service(place, name, make=write and schema is not None)
        self._uri = self.service.uri
        try:
            self._begin(name, schema, write)
        except BaseException:
            self.close()
            raise

    def _begin(self, name: str, schema: StoreSchema | None, write: bool) -> None:
        if not self.service.has(DOCUMENTS):
            if not write:
                raise Absent(f"{self._uri}: there is no store named {name!r}; `solomonic memory add` makes one")
            if schema is None:
                raise Absent(f"{self._uri}: expected a store that is there, or a schema for a new one")
            self._create(schema)
        self.service.load([DOCUMENTS])
        self.schema = StoreSchema.from_json(self._about()["layout"])
        if schema is not None:
            self.schema.require(schema, self._uri)
        self.service.load([BLOBS, *self._all_keys()])
        if write:
            self._clean()

    def documents(self) -> list[StoredDocument]:
        return [self._document(number, body) for number, body in self._bodies().items()]

    def last_document(self) -> int:
        return int(self._about()["last_document"])

    def commit(self, points: Sequence[SavePoint]) -> None:
        with self._writing:
            for point in points:
                self._put(point)

    def remove(self, documents: set[int]) -> None:
        """Later documents are sent again: their clocks begin earlier now."""
        with self._writing:
            self._write(0, self._about() | {"removing": sorted(documents)})
            self._finish_removal()

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._writing:
            bodies = self._bodies()
            for layer, gone in entries.items():
                layer_schema = self.schema[layer]
                for entry, tokens in self.fetch(layer, sorted(gone)).items():
                    document, block = entry >> 32, entry & 0xFFFFFFFF
                    bodies[document]["counts"][str(layer)] -= len(tokens)
                    first = document << 32 | block * layer_schema.block
                    for head in range(layer_schema.heads):
                        self.service.delete(
                            self._keys(layer, head), f"id >= {first} and id < {first + layer_schema.block}"
                        )
                    self.service.delete(BLOBS, f"document == {document} and layer == {layer} and number == {block}")
            for document in {entry >> 32 for gone in entries.values() for entry in gone}:
                self._write(document, bodies[document])
            self._changed(removal=True)
        self.compact()

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        blocks: dict[int, list[int]] = {}
        for entry in entries:
            blocks.setdefault(entry >> 32, []).append(entry & 0xFFFFFFFF)
        fetched = {}
        for document, body in self._bodies(blocks.keys()).items():
            for block, data in self._blobs(document, layer, blocks[document]).items():
                tokens = decode(data, self.schema[layer], self.schema.dtype)
                if count := int((tokens.position <= body["last"].get(str(layer), -1)).sum()):
                    fetched[entry_id(document, block)] = tokens[:count]
        return fetched

    def scan(self, layer: int, documents: Ids, without: Ids = ()) -> Iterator[Keys]:
        unwanted = set(without)
        for document, body in self._bodies(documents).items():
            blocks = body["last"].get(str(layer), -1) // self.schema[layer].block + 1
            for begin in range(0, blocks, BLOCKS):
                ids = {entry_id(document, block) for block in range(begin, min(begin + BLOCKS, blocks))}
                for _, tokens in sorted(self.fetch(layer, sorted(ids - unwanted)).items()):
                    yield Keys.of(document, tokens)

    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        for body in self._bodies([document]).values():
            if str(layer) in body["last"]:
                entry = entry_id(document, body["last"][str(layer)] // self.schema[layer].block)
                fetched = self.fetch(layer, [entry])
                return (entry, fetched[entry]) if fetched else None
        return None

    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        for body in self._bodies([document]).values():
            end = min(end, body["text"])
            wanted = [p for p in body["pieces"] if p[0] < end and p[0] + p[2] > start]
            data = self._blobs(document, TEXT, [at for at, _, _ in wanted])
            return [TextPiece(at, lines, data[at][:length]) for at, lines, length in wanted if at in data]
        return []

    def state(self, document: int) -> bytes:
        for body in self._bodies([document]).values():
            for state in self._blobs(document, STATE, [body["save"]]).values():
                return state
        raise ValueError(f"{self._uri}: document {document} is damaged; forget the document and add it again")

    def damaged(self) -> dict[int, str]:
        return dict(self._broken)

    def has_remains(self, document: int) -> bool:
        return document in self._broken or self._is_stray(document)

    def is_intact(self, document: StoredDocument) -> bool:
        return all(self._is_intact(number, body) for number, body in self._bodies([document.id]).items())

    def size(self) -> int:
        """Bytes that were sent; the service may take others."""
        return sum(document.bytes for document in self.documents())

    def verify(self) -> list[str]:
        problems = [
            f"{self._uri}: document {document}: a part of it is missing, or too much"
            for document, body in self._bodies().items()
            if not self._is_intact(document, body)
        ]
        return problems + self.damage_warned_of()

    def _is_intact(self, document: int, body: Body) -> bool:
        intact = bool(self._blobs(document, STATE, [body["save"]]))
        intact &= bool(sum(len(piece.text) for piece in self.pieces(document, 0, body["text"])) == body["text"])
        for layer_schema in self.schema.layers:
            count = sum(len(keys.token_id) for keys in self.scan(layer_schema.layer, [document]))
            intact &= bool(count == body["counts"].get(str(layer_schema.layer), 0))
            for head in range(layer_schema.heads):
                intact &= count == self.service.count(self._keys(layer_schema.layer, head), f"document == {document}")
        return intact

    def index(self, layer: int, documents: Ids, without: Ids, index_type: IndexType = ExactIndex) -> "MilvusIndex":
        return MilvusIndex(self, layer)

    def version(self) -> tuple[int, int]:
        about = self._about()
        return about["changes"], about["removals"]

    def compact(self) -> None:
        """Ask the service to. It decides when deleted rows leave its files."""
        with self._writing:
            for collection in (DOCUMENTS, BLOBS, *self._all_keys()):
                self.service.compact(collection)

    def close(self) -> None:
        self.service.close()

    # For `MilvusIndex`

    def nearest(self, layer: int, head: int, vectors: Tensor, count: int, only: set[int] | None) -> list[list[Row]]:
        """The rows with the largest inner products with each vector (N, D + 2)."""
        return self.service.search(self._keys(layer, head), vectors, count, only, ["vector", "clock"])

    def clock_starts(self, layer: int) -> tuple[dict[int, float], float]:
        """The store's clock where each document begins, as it was sent, and the largest key norm plus log-sigmoid of a score."""
        bodies = self._bodies()
        largest = max((body["largest"].get(str(layer), 0.0) for body in bodies.values()), default=0.0)
        return {document: body["began"][str(layer)] for document, body in bodies.items()}, largest

    def sent(self, layer: int) -> dict[int, int]:
        """The last position of each document that this process has sent."""
        return {document: last for (which, document), last in list(self._sent.items()) if which == layer}

    # Inside

    def _all_keys(self) -> list[str]:
        return [self._keys(known.layer, head) for known in self.schema.layers for head in range(known.heads)]

    def _keys(self, layer: int, head: int) -> str:
        return f"keys_{layer}_{head}"

    def _create(self, schema: StoreSchema) -> None:
        types = self.service.types
        for layer_schema in schema.layers:
            for head in range(layer_schema.heads):
                fields = {"id": types.INT64, "document": types.INT64, "clock": types.FLOAT}
                self.service.create(self._keys(layer_schema.layer, head), fields, layer_schema.dim + 2)
        integers = dict.fromkeys(("document", "layer", "number", "part"), types.INT64)
        self.service.create(BLOBS, {"id": types.VARCHAR, **integers, "data": types.VARCHAR})
        self.service.create(DOCUMENTS, {"id": types.INT64, "body": types.VARCHAR})
        about = {"layout": schema.to_json(), "last_document": 0, "removals": 0, "changes": 0, "removing": []}
        self._write(0, about)

    def _about(self) -> Body:
        row = self.service.get(DOCUMENTS, 0)
        if row is None:
            raise ValueError(f"{self._uri}: the store was not made completely; drop its collections")
        return self._opened(row)

    def _bodies(self, wanted: Collection[int] | None = None) -> dict[int, Body]:
        """What the rows of documents have, by id, rising; None: of all documents."""
        rows: list[Row] = []
        ids = range(1, self.last_document() + 1) if wanted is None else sorted(wanted)
        for begin in range(0, len(ids), MOST):
            part = list(ids[begin : begin + MOST])
            which = f"id >= {part[0]} and id <= {part[-1]}" if wanted is None else f"id in {part}"
            rows += self.service.query(DOCUMENTS, which, ["id", "body"])
        bodies = {}
        for row in sorted(rows, key=lambda row: row["id"]):
            try:
                bodies[row["id"]] = self._opened(row)
            except ValueError as error:
                self._broken[row["id"]] = ""
                self.warn_of_damage(("document", row["id"]), str(error))
        return bodies

    def _document(self, number: int, body: Body) -> StoredDocument:
        counts = body["counts"]
        each = {str(s.layer): 2 * s.heads * s.dim * DTYPES[self.schema.dtype].itemsize + 32 for s in self.schema.layers}
        return StoredDocument(
            id=number,
            name=body["name"],
            session=body["session"],
            time=body["time"],
            digest=body["digest"],
            sources=tuple(body["sources"]),
            tokens=sum(counts.values()),
            text=body["text"],
            bytes=body["text"] + sum(count * each[layer] for layer, count in counts.items()),
            clock=tuple((layer, ran) for layer, ran in body["clock"]),
            complete=body["complete"],
        )

    def _opened(self, row: Row) -> Body:
        mark, body = row["body"][:32], row["body"][32:]
        if blake2b(f"{row['id']} {body}".encode(), digest_size=16).hexdigest() != mark:
            what = f"document {row['id']}" if row["id"] else "the store's own row"
            raise ValueError(f"{self._uri}: {what} is damaged; forget the document and add it again")
        opened: Body = json.loads(body)
        return opened

    def _write(self, number: int, body: Body) -> None:
        text = json.dumps(body)
        mark = blake2b(f"{number} {text}".encode(), digest_size=16).hexdigest()
        self.service.send(DOCUMENTS, [{"id": number, "body": mark + text, "vector": [0.0, 0.0]}])

    def _changed(self, removal: bool = False) -> None:
        about = self._about()
        self._write(0, about | {"changes": about["changes"] + 1, "removals": about["removals"] + removal})

    def _put(self, point: SavePoint) -> None:
        document, layers = point.document, [str(layer_schema.layer) for layer_schema in self.schema.layers]
        body = self._bodies([document.id]).get(document.id)
        if body is None:
            body = {"save": 0, "last": {}, "counts": {}, "largest": {}, "pieces": []}
            about = self._about()
            self._write(0, about | {"last_document": max(document.id, about["last_document"])})
        starts = self._clock_starts(self._bodies(), document.id)
        blobs = parts(document.id, STATE, body["save"] + 1, point.state)
        for piece in point.pieces:
            blobs += parts(document.id, TEXT, piece.start, piece.text)
        keys: dict[int, list[Keys]] = {}
        last, counts, largest = dict(body["last"]), dict(body["counts"]), dict(body["largest"])
        for layer, entry, tokens in point.entries:
            blobs += parts(document.id, layer, entry & 0xFFFFFFFF, encode(tokens))
            keys.setdefault(layer, []).append(Keys.of(document.id, tokens))
            name = str(layer)
            counts[name] = counts.get(name, 0) + int((tokens.position > last.get(name, -1)).sum())
            last[name] = int(tokens.position[-1])
            reach = tokens.key.float().norm(dim=-1).max() + log_admission(tokens.score).abs().max()
            largest[name] = max(largest.get(name, 0.0), float(reach))
        for layer, parts_of_layer in keys.items():
            joined = [
                torch.cat([getattr(part, name) for part in parts_of_layer])
                for name in ("token_id", "key", "score", "clock")
            ]
            self._send_keys(layer, Keys(*joined), starts[str(layer)])
        self.service.send(BLOBS, blobs)
        pieces = {p[0]: p for p in body["pieces"]} | {p.start: (p.start, p.lines, len(p.text)) for p in point.pieces}
        row = {
            "name": document.name,
            "session": document.session,
            "time": document.time,
            "digest": document.digest,
            "sources": document.sources,
            "text": document.text,
            "clock": document.clock,
            "complete": document.complete,
            "save": body["save"] + 1,
            "last": last,
            "counts": counts,
            "largest": largest,
            "pieces": list(pieces.values()),
            "began": {layer: starts[layer] for layer in layers},
        }
        self._write(document.id, row)
        for layer, position in last.items():
            self._sent[int(layer), document.id] = position
        self.service.delete(BLOBS, f"document == {document.id} and layer == {STATE} and number <= {body['save']}")
        if document.complete:
            self._changed()

    def _clock_starts(self, bodies: dict[int, Body], document: int) -> dict[str, float]:
        """The store's clocks where a document begins, by layer."""
        before = [dict(body["clock"]) for number, body in bodies.items() if number < document]
        return {str(s.layer): sum(clock.get(s.layer, 0.0) for clock in before) for s in self.schema.layers}

    def _send_keys(self, layer: int, keys: Keys, start: float) -> None:
        more = torch.stack([log_admission(keys.score), (start + keys.clock.double()).float()], -1)
        token_ids, clock = keys.token_id.tolist(), keys.clock.tolist()
        for head in range(self.schema[layer].heads):
            vectors = torch.cat([keys.key[:, head].float(), more], -1).tolist()
            self.service.send(
                self._keys(layer, head),
                [{"id": a, "document": a >> 32, "clock": c, "vector": v} for a, c, v in zip(token_ids, clock, vectors)],
            )

    def _blobs(self, document: int, layer: int, numbers: list[int]) -> dict[int, bytes]:
        """The blobs `numbers` of a layer, of the text or of the state; those that are there."""
        pieces: dict[int, dict[int, bytes]] = {}
        for begin in range(0, len(numbers), BLOCKS):
            which = f"document == {document} and layer == {layer} and number in {numbers[begin : begin + BLOCKS]}"
            for row in self.service.query(BLOBS, which, ["number", "part", "data"]):
                try:
                    data = base64.b64decode(row["data"])
                except ValueError:
                    data = b""
                pieces.setdefault(row["number"], {})[row["part"]] = data
        blobs = {}
        for number, by_part in pieces.items():
            joined = b"".join(by_part[part] for part in sorted(by_part))
            sealed, size = joined[:16], int.from_bytes(joined[16:24], "little")
            blobs[number] = joined[24 : 24 + size]
            if seal(document, layer, number, blobs[number]) != sealed:
                what = {TEXT: f"the text, from byte {number} on,", STATE: "the state"}
                del blobs[number]
                self.warn_of_damage(
                    (document, layer, number),
                    f"{self._uri}: {what.get(layer, f'entry {number} of layer {layer}')} of document {document} is "
                    "damaged and is left out; forget the document and add it again",
                )
        return blobs

    def _clean(self) -> None:
        """Delete what a writer that was cut off left: a removal not finished, and what lies beyond the last save points."""
        self._finish_removal()
        last = self.last_document()
        for layer_schema in self.schema.layers:
            for head in range(layer_schema.heads):
                self.service.delete(self._keys(layer_schema.layer, head), f"document > {last}")
        bodies = self._bodies()
        known = bodies.keys() | self._broken.keys()
        beyond: dict[int, Body] = {
            number: {} for number in range(1, last + 1) if number not in known and self._is_stray(number)
        }
        for number, body in (bodies | beyond).items():
            if not body.get("complete"):
                for layer_schema in self.schema.layers:
                    position = (number << 32) + body.get("last", {}).get(str(layer_schema.layer), -1)
                    for head in range(layer_schema.heads):
                        self.service.delete(
                            self._keys(layer_schema.layer, head), f"document == {number} and id > {position}"
                        )
            if number in beyond:
                self.service.delete(BLOBS, f"document == {number}")

    def _is_stray(self, number: int) -> bool:
        """Whether anything is there of a document that has no row: its first save point was cut off."""
        return self.service.count(BLOBS, f"document == {number}") > 0 or any(
            self.service.count(self._keys(layer_schema.layer, 0), f"document == {number}") > 0
            for layer_schema in self.schema.layers
        )

    def _finish_removal(self) -> None:
        """Delete the rows of removed documents, and send the clocks of later documents again."""
        gone = self._about()["removing"]
        if not gone:
            return
        self.service.delete(DOCUMENTS, f"id in {gone}")
        for document in gone:
            self._broken.pop(document, None)
        self.service.delete(BLOBS, f"document in {gone}")
        for layer_schema in self.schema.layers:
            for head in range(layer_schema.heads):
                self.service.delete(self._keys(layer_schema.layer, head), f"document in {gone}")
        bodies = self._bodies()
        for document, body in bodies.items():
            starts = self._clock_starts(bodies, document)
            if starts != body["began"]:
                for layer_schema in self.schema.layers:
                    for keys in self.scan(layer_schema.layer, [document]):
                        self._send_keys(layer_schema.layer, keys, starts[str(layer_schema.layer)])
                self._write(document, body | {"began": starts})
        self._write(0, self._about() | {"removing": []})
        self._changed(removal=True)
        self.compact()
