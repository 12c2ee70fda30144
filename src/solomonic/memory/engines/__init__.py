"""Where a store is kept: one file an engine, behind one URI."""

from .base import Engine, Unwritable
from .choose import open_engine

__all__ = ["Engine", "Unwritable", "open_engine"]
