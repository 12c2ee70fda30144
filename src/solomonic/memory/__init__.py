"""Long-term memory in storage: what a model has read, kept past its context and found by its own queries."""

from .layout import Document, Entries, LayerLayout, Layout, Tokens
from .store import Evicted, Forgotten, Found, Store, Writing, open_store

__all__ = [
    "Document",
    "Entries",
    "Evicted",
    "Forgotten",
    "Found",
    "LayerLayout",
    "Layout",
    "Store",
    "Tokens",
    "Writing",
    "open_store",
]
