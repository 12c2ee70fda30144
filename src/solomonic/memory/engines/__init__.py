"""Where a store is kept: one file an engine, behind one URI."""

from .base import Engine, Unreachable, Unwritable
from .choose import open_engine

__all__ = ["Engine", "Unreachable", "Unwritable", "open_engine"]
