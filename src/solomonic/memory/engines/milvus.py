"""Milvus, a distributed vector database: `milvus:http://HOST:PORT`, or `milvus:FOLDER.db` for its embedded edition.

A store is some collections, named from what follows a `#` in the URI ("solomonic" without one). Milvus has no
transactions over several requests, so that one row decides: what a batch brings is there when the row of its document
says so; all that lies beyond it is not read, and the next writer clears it away.

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

import torch
from torch import Tensor

from ..schema import DTYPES, SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece, entry_id, log_admission
from ..search.exact import ExactIndex, Keys
from .base import Absent, Engine
from .milvus_index import MilvusIndex
from .milvus_service import MOST, Service, parts, seal

BLOCKS = 256  # asked for at a time
TEXT, STATE = -1, -2  # kinds of blobs that are of no layer
DOCUMENTS, BLOBS = "documents", "blobs"  # collections


class MilvusEngine(Engine):
    @classmethod
    def open(cls, target: str, schema: StoreSchema | None, write: bool) -> "MilvusEngine":
        place, _, name = target.partition("#")
        if not place:
            raise ValueError("milvus: expected an address or a file, as in milvus:http://localhost:19530")
        return cls(place, name or "solomonic", schema, write)

    def __init__(self, place: str, name: str, schema: StoreSchema | None, write: bool):
        self._writing = threading.RLock()
        self._kept: dict[tuple[int, int], int] = {}  # (layer, document): the last position that this process has sent
        self._broken: dict[int, str] = {}  # documents whose own rows are damaged
        self._service = Service(place, name, make=write and schema is not None)
        self._uri = self._service.uri
        try:
            self._begin(name, schema, write)
        except BaseException:
            self.close()
            raise

    def _begin(self, name: str, schema: StoreSchema | None, write: bool) -> None:
        if not self._service.has(DOCUMENTS):
            if not write:
                raise Absent(f"{self._uri}: there is no store named {name!r}; `solomonic memory add` makes one")
            if schema is None:
                raise Absent(f"{self._uri}: expected a store that is there, or a schema for a new one")
            self._create(schema)
        self._service.load([DOCUMENTS])
        self.schema = StoreSchema.from_json(self._about()["layout"])
        if schema is not None:
            self.schema.require(schema, self._uri)
        self._service.load([BLOBS, *self._all_keys()])
        if write:
            self._clean()

    def documents(self) -> list[StoredDocument]:
        return [self._document(number, body) for number, body in self._bodies().items()]

    def last_document(self) -> int:
        return self._about()["last_document"]

    def commit(self, batches: Sequence[SavePoint]) -> None:
        with self._writing:
            for batch in batches:
                self._put(batch)

    def remove(self, documents: set[int]) -> None:
        """Later documents are sent anew: their clocks begin earlier now."""
        with self._writing:
            self._write(0, self._about() | {"removing": sorted(documents)})
            self._finish()

    def evict(self, entries: dict[int, set[int]]) -> None:
        with self._writing:
            bodies = self._bodies()
            for layer, gone in entries.items():
                shape = self.schema[layer]
                for entry, tokens in self.fetch(layer, sorted(gone)).items():
                    document, block = entry >> 32, entry & 0xFFFFFFFF
                    bodies[document]["counts"][str(layer)] -= len(tokens)
                    first = document << 32 | block * shape.block
                    for head in range(shape.heads):
                        self._service.delete(self._keys(layer, head), f"id >= {first} and id < {first + shape.block}")
                    self._service.delete(BLOBS, f"document == {document} and layer == {layer} and number == {block}")
            for document in {entry >> 32 for gone in entries.values() for entry in gone}:
                self._write(document, bodies[document])
            self._changed(removal=True)
        self.compact()

    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        blocks: dict[int, list[int]] = {}
        for entry in entries:
            blocks.setdefault(entry >> 32, []).append(entry & 0xFFFFFFFF)
        found = {}
        for document, body in self._bodies(blocks.keys()).items():
            for block, data in self._blobs(document, layer, blocks[document]).items():
                tokens = self._decode(data, layer)
                if keep := int((tokens.position <= body["last"].get(str(layer), -1)).sum()):
                    found[entry_id(document, block)] = tokens[:keep]
        return found

    def scan(self, layer: int, documents: Collection[int], without: Collection[int] = ()) -> Iterator[Keys]:
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
                found = self.fetch(layer, [entry])
                return (entry, found[entry]) if found else None
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
        return document in self._broken or self._stray(document)

    def is_intact(self, document: StoredDocument) -> bool:
        return all(self._is_whole(number, body) for number, body in self._bodies([document.id]).items())

    def size(self) -> int:
        """What was sent; what the service makes of it is its own."""
        return sum(document.bytes for document in self.documents())

    def verify(self) -> list[str]:
        problems = [
            f"{self._uri}: document {document}: a part of it is missing, or too much"
            for document, body in self._bodies().items()
            if not self._is_whole(document, body)
        ]
        return problems + list(self.__dict__.get("_named", {}).values())

    def _is_whole(self, document: int, body: dict) -> bool:
        whole = bool(self._blobs(document, STATE, [body["save"]]))
        whole &= sum(len(piece.text) for piece in self.pieces(document, 0, body["text"])) == body["text"]
        for shape in self.schema.layers:
            count = sum(len(keys.token_id) for keys in self.scan(shape.layer, [document]))
            whole &= count == body["counts"].get(str(shape.layer), 0)
            for head in range(shape.heads):
                whole &= count == self._service.count(self._keys(shape.layer, head), f"document == {document}")
        return whole

    def index(
        self, layer: int, documents: Collection[int], without: Collection[int], kind: type[ExactIndex] = ExactIndex
    ) -> "MilvusIndex":
        return MilvusIndex(self, layer)

    def version(self) -> tuple[int, int]:
        about = self._about()
        return about["changes"], about["removals"]

    def compact(self) -> None:
        """Asks the service to. When deleted rows leave its files is then its own affair."""
        with self._writing:
            for collection in (DOCUMENTS, BLOBS, *self._all_keys()):
                self._service.compact(collection)

    def close(self) -> None:
        self._service.close()

    # For the index

    def nearest(self, layer: int, head: int, vectors: Tensor, count: int, only: set[int] | None) -> list[list[dict]]:
        """Of each vector (N, D + 2), the rows with the largest inner products."""
        return self._service.search(self._keys(layer, head), vectors, count, only, ["vector", "clock"])

    def placed(self, layer: int) -> tuple[dict[int, float], float]:
        """Where each document's clock began when it was sent, and the largest key norm plus log-sigmoid of a score."""
        bodies = self._bodies()
        largest = max((body["largest"].get(str(layer), 0.0) for body in bodies.values()), default=0.0)
        return {document: body["began"][str(layer)] for document, body in bodies.items()}, largest

    def sent(self, layer: int) -> dict[int, int]:
        """The last position of each document that this process has sent."""
        return {document: last for (which, document), last in list(self._kept.items()) if which == layer}

    # Inside

    def _all_keys(self) -> list[str]:
        return [self._keys(one.layer, head) for one in self.schema.layers for head in range(one.heads)]

    def _keys(self, layer: int, head: int) -> str:
        return f"keys_{layer}_{head}"

    def _create(self, schema: StoreSchema) -> None:
        types = self._service.types
        for one in schema.layers:
            for head in range(one.heads):
                fields = {"id": types.INT64, "document": types.INT64, "clock": types.FLOAT}
                self._service.create(self._keys(one.layer, head), fields, one.dim + 2)
        integers = dict.fromkeys(("document", "layer", "number", "part"), types.INT64)
        self._service.create(BLOBS, {"id": types.VARCHAR, **integers, "data": types.VARCHAR})
        self._service.create(DOCUMENTS, {"id": types.INT64, "body": types.VARCHAR})
        about = {"layout": schema.to_json(), "last_document": 0, "removals": 0, "changes": 0, "removing": []}
        self._write(0, about)

    def _about(self) -> dict:
        row = self._service.get(DOCUMENTS, 0)
        if row is None:
            raise ValueError(f"{self._uri}: the store was not made to its end; drop its collections")
        return self._opened(row)

    def _bodies(self, wanted: Collection[int] | None = None) -> dict[int, dict]:
        """The documents' rows, in order."""
        rows: list[dict] = []
        ids = range(1, self.last_document() + 1) if wanted is None else sorted(wanted)
        for begin in range(0, len(ids), MOST):
            some = list(ids[begin : begin + MOST])
            which = f"id >= {some[0]} and id <= {some[-1]}" if wanted is None else f"id in {some}"
            rows += self._service.query(DOCUMENTS, which, ["id", "body"])
        bodies = {}
        for row in sorted(rows, key=lambda row: row["id"]):
            try:
                bodies[row["id"]] = self._opened(row)
            except ValueError as error:
                self._broken[row["id"]] = ""
                self.warn_of_damage(("document", row["id"]), str(error))
        return bodies

    def _document(self, number: int, body: dict) -> StoredDocument:
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

    def _opened(self, row: dict) -> dict:
        mark, body = row["body"][:32], row["body"][32:]
        if blake2b(f"{row['id']} {body}".encode(), digest_size=16).hexdigest() != mark:
            what = f"document {row['id']}" if row["id"] else "the store's own row"
            raise ValueError(f"{self._uri}: {what} is damaged; forget the document and add it again")
        return json.loads(body)

    def _write(self, number: int, body: dict) -> None:
        text = json.dumps(body)
        mark = blake2b(f"{number} {text}".encode(), digest_size=16).hexdigest()
        self._service.send(DOCUMENTS, [{"id": number, "body": mark + text, "vector": [0.0, 0.0]}])

    def _changed(self, removal: bool = False) -> None:
        about = self._about()
        self._write(0, about | {"changes": about["changes"] + 1, "removals": about["removals"] + removal})

    def _put(self, batch: SavePoint) -> None:
        document, layers = batch.document, [str(shape.layer) for shape in self.schema.layers]
        body = self._bodies([document.id]).get(document.id)
        if body is None:
            body = {"save": 0, "last": {}, "counts": {}, "largest": {}, "pieces": []}
            about = self._about()
            self._write(0, about | {"last_document": max(document.id, about["last_document"])})
        began = self._began(self._bodies(), document.id)
        blobs = parts(document.id, STATE, body["save"] + 1, batch.state)
        for piece in batch.pieces:
            blobs += parts(document.id, TEXT, piece.start, piece.text)
        keys: dict[int, list[Keys]] = {}
        last, counts, largest = dict(body["last"]), dict(body["counts"]), dict(body["largest"])
        for layer, entry, tokens in batch.entries:
            blobs += parts(document.id, layer, entry & 0xFFFFFFFF, _encode(tokens))
            keys.setdefault(layer, []).append(Keys.of(document.id, tokens))
            name = str(layer)
            counts[name] = counts.get(name, 0) + int((tokens.position > last.get(name, -1)).sum())
            last[name] = int(tokens.position[-1])
            reach = tokens.key.float().norm(dim=-1).max() + log_admission(tokens.score).abs().max()
            largest[name] = max(largest.get(name, 0.0), float(reach))
        for layer, some in keys.items():
            whole = [torch.cat([getattr(one, name) for one in some]) for name in ("token_id", "key", "score", "clock")]
            self._send_keys(layer, Keys(*whole), began[str(layer)])
        self._service.send(BLOBS, blobs)
        pieces = {p[0]: p for p in body["pieces"]} | {p.start: (p.start, p.lines, len(p.text)) for p in batch.pieces}
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
            "began": {layer: began[layer] for layer in layers},
        }
        self._write(document.id, row)
        for layer, position in last.items():
            self._kept[int(layer), document.id] = position
        self._service.delete(BLOBS, f"document == {document.id} and layer == {STATE} and number <= {body['save']}")
        if document.complete:
            self._changed()

    def _began(self, bodies: dict[int, dict], document: int) -> dict[str, float]:
        """Where the clocks of a document begin."""
        before = [dict(body["clock"]) for number, body in bodies.items() if number < document]
        return {str(s.layer): sum(clock.get(s.layer, 0.0) for clock in before) for s in self.schema.layers}

    def _send_keys(self, layer: int, keys: Keys, began: float) -> None:
        more = torch.stack([log_admission(keys.score), (began + keys.clock.double()).float()], -1)
        token_ids, clock = keys.token_id.tolist(), keys.clock.tolist()
        for head in range(self.schema[layer].heads):
            vectors = torch.cat([keys.key[:, head].float(), more], -1).tolist()
            self._service.send(
                self._keys(layer, head),
                [{"id": a, "document": a >> 32, "clock": c, "vector": v} for a, c, v in zip(token_ids, clock, vectors)],
            )

    def _blobs(self, document: int, layer: int, numbers: list[int]) -> dict[int, bytes]:
        """Those that are there."""
        pieces: dict[int, dict[int, bytes]] = {}
        for begin in range(0, len(numbers), BLOCKS):
            which = f"document == {document} and layer == {layer} and number in {numbers[begin : begin + BLOCKS]}"
            for row in self._service.query(BLOBS, which, ["number", "part", "data"]):
                try:
                    data = base64.b64decode(row["data"])
                except ValueError:
                    data = b""
                pieces.setdefault(row["number"], {})[row["part"]] = data
        found = {}
        for number, some in pieces.items():
            whole = b"".join(some[part] for part in sorted(some))
            sealed, size = whole[:16], int.from_bytes(whole[16:24], "little")
            found[number] = whole[24 : 24 + size]
            if seal(document, layer, number, found[number]) != sealed:
                what = {TEXT: f"the text, from byte {number} on,", STATE: "the state"}
                del found[number]
                self.warn_of_damage(
                    (document, layer, number),
                    f"{self._uri}: {what.get(layer, f'entry {number} of layer {layer}')} of document {document} is "
                    "damaged and is left out; forget the document and add it again",
                )
        return found

    def _decode(self, data: bytes, layer: int) -> StoredTokens:
        shape, kind = self.schema[layer], DTYPES[self.schema.dtype]
        heads = (shape.heads, shape.dim)
        fields = [(torch.int64, ()), (kind, heads), (kind, heads), (torch.float32, ()), (torch.float32, ())]
        fields.append((torch.int64, (2,)))
        sizes = [torch.Size(form).numel() * dtype.itemsize for dtype, form in fields]
        count, at, read = len(data) // sum(sizes), 0, []
        for (dtype, form), size in zip(fields, sizes):
            part = bytearray(data[at : at + count * size])
            read.append(torch.frombuffer(part, dtype=dtype).view(count, *form))
            at += count * size
        return StoredTokens(*read)

    def _clean(self) -> None:
        """What a writer left that was cut off: a removal not finished, and what lies beyond the last save points."""
        self._finish()
        last = self.last_document()
        for shape in self.schema.layers:
            for head in range(shape.heads):
                self._service.delete(self._keys(shape.layer, head), f"document > {last}")
        bodies = self._bodies()
        known = bodies.keys() | self._broken.keys()
        beyond = {number: {} for number in range(1, last + 1) if number not in known and self._stray(number)}
        for number, body in (bodies | beyond).items():
            if not body.get("complete"):
                for shape in self.schema.layers:
                    position = (number << 32) + body.get("last", {}).get(str(shape.layer), -1)
                    for head in range(shape.heads):
                        self._service.delete(self._keys(shape.layer, head), f"document == {number} and id > {position}")
            if number in beyond:
                self._service.delete(BLOBS, f"document == {number}")

    def _stray(self, number: int) -> bool:
        """Whether something is there of a document that has no row: its first save point was cut off."""
        return self._service.count(BLOBS, f"document == {number}") > 0 or any(
            self._service.count(self._keys(shape.layer, 0), f"document == {number}") > 0 for shape in self.schema.layers
        )

    def _finish(self) -> None:
        """A removal, and the clocks of later documents."""
        gone = self._about()["removing"]
        if not gone:
            return
        self._service.delete(DOCUMENTS, f"id in {gone}")
        for document in gone:
            self._broken.pop(document, None)
        self._service.delete(BLOBS, f"document in {gone}")
        for shape in self.schema.layers:
            for head in range(shape.heads):
                self._service.delete(self._keys(shape.layer, head), f"document in {gone}")
        bodies = self._bodies()
        for document, body in bodies.items():
            began = self._began(bodies, document)
            if began != body["began"]:
                for shape in self.schema.layers:
                    for keys in self.scan(shape.layer, [document]):
                        self._send_keys(shape.layer, keys, began[str(shape.layer)])
                self._write(document, body | {"began": began})
        self._write(0, self._about() | {"removing": []})
        self._changed(removal=True)
        self.compact()


def _encode(tokens: StoredTokens) -> bytes:
    fields = (tokens.position, tokens.key, tokens.value, tokens.score, tokens.clock, tokens.span)
    return b"".join(field.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for field in fields)
