"""Long-term memory in storage: what a model has read, kept past its context and found by its own queries."""

from .engines import Absent, Damaged, Unfinished
from .repair import repair
from .schema import Document, Entries, LayerLayout, Layout, Tokens
from .store import Evicted, Forgotten, Found, Store, Writing, open_store

__all__ = [
    "Absent",
    "Damaged",
    "Document",
    "Entries",
    "Evicted",
    "Forgotten",
    "Found",
    "LayerLayout",
    "Layout",
    "Store",
    "Tokens",
    "Unfinished",
    "Writing",
    "open_store",
    "repair",
]
