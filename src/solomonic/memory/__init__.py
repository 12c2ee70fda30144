"""Long-term memory in storage: what a model has read, kept past its context and found by its own queries."""

from .document import DocumentWriter
from .engines import Absent, Damaged, Unfinished
from .repair import repair
from .results import Entries, Evicted, Forgotten, ReadTokens, SearchResult
from .schema import LayerSchema, StoredDocument, StoredTokens, StoreSchema
from .store import Store, open_store

__all__ = [
    "Absent",
    "Damaged",
    "DocumentWriter",
    "Entries",
    "Evicted",
    "Forgotten",
    "LayerSchema",
    "ReadTokens",
    "SearchResult",
    "Store",
    "StoreSchema",
    "StoredDocument",
    "StoredTokens",
    "Unfinished",
    "open_store",
    "repair",
]
