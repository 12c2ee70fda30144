"""The blobs of a store in Milvus: entries, pieces of text and states, sealed, in parts of base64."""

import base64
from hashlib import blake2b

import torch

from ..schema import DTYPES, LayerSchema, StoredTokens
from .milvus_service import Row

PART = 48_000  # bytes; as base64 less than the 65,535 that a text field holds


def parts(document: int, layer: int, number: int, data: bytes) -> list[Row]:
    """The rows of a blob: entry `number` of a layer, a piece of text or a state, sealed."""
    whole = seal(document, layer, number, data) + len(data).to_bytes(8, "little") + data
    return [
        {
            "id": f"{document}/{layer}/{number}/{part}",
            "document": document,
            "layer": layer,
            "number": number,
            "part": part,
            "data": base64.b64encode(whole[begin : begin + PART]).decode(),
            "vector": [0.0, 0.0],
        }
        for part, begin in enumerate(range(0, len(whole), PART))
    ]


def seal(document: int, layer: int, number: int, data: bytes) -> bytes:
    return blake2b(f"{document} {layer} {number} ".encode() + data, digest_size=16).digest()


def encode(tokens: StoredTokens) -> bytes:
    fields = (tokens.position, tokens.key, tokens.value, tokens.score, tokens.clock, tokens.span)
    return b"".join(field.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for field in fields)


def decode(data: bytes, layer_schema: LayerSchema, dtype: str) -> StoredTokens:
    kind, heads = DTYPES[dtype], (layer_schema.heads, layer_schema.dim)
    fields: list[tuple[torch.dtype, tuple[int, ...]]] = [
        (torch.int64, ()),
        (kind, heads),
        (kind, heads),
        (torch.float32, ()),
        (torch.float32, ()),
        (torch.int64, (2,)),
    ]
    sizes = [torch.Size(shape).numel() * field_type.itemsize for field_type, shape in fields]
    count, at, tensors = len(data) // sum(sizes), 0, []
    for (field_type, shape), size in zip(fields, sizes):
        part = bytearray(data[at : at + count * size])
        tensors.append(torch.frombuffer(part, dtype=field_type).view(count, *shape))
        at += count * size
    return StoredTokens(*tensors)


__all__ = ["decode", "encode", "parts", "seal"]
