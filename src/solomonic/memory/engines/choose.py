"""A URI to its engine."""

import re

from ..._utils.spelling import unknown
from ..schema import StoreSchema
from .base import Engine

SCHEMES = ("ram", "file", "milvus")


def open_engine(uri: str, schema: StoreSchema | None, write: bool) -> Engine:
    """ValueError for an unknown scheme, or a store of another schema; OSError if it cannot be opened."""
    scheme, rest = uri.split(":", 1) if re.match(r"\w+:", uri) else ("file", uri)
    if scheme == "file":
        from .sqlite import DiskEngine

        return DiskEngine.open(rest, schema, write)
    if scheme == "ram":
        from .ram import RamEngine

        return RamEngine.open(rest, schema)
    if scheme == "milvus":
        from .milvus import MilvusEngine

        try:
            return MilvusEngine.open(rest, schema, write)
        except ModuleNotFoundError as error:  # whichever command asks, the extra is this one
            raise ValueError(f"{uri}: it needs {error.name}; pip install 'solomonic[milvus]'") from None
    raise unknown("kind of store", scheme, SCHEMES)
