"""Long-term memory in storage: what a model has read, kept past its context and found by its own queries."""

from .engines import Absent, Damaged, Unfinished
from .repair import repair
from .schema import Entries, LayerSchema, StoredDocument, StoredTokens, StoreSchema
from .store import DocumentWriter, Evicted, Forgotten, SearchResult, Store, open_store

__all__ = [
    "Absent",
    "Damaged",
    "DocumentWriter",
    "Entries",
    "Evicted",
    "Forgotten",
    "LayerSchema",
    "SearchResult",
    "Store",
    "StoreSchema",
    "StoredDocument",
    "StoredTokens",
    "Unfinished",
    "open_store",
    "repair",
]
