"""Where a store is kept: one file an engine, behind one URI."""

from .base import Absent, Damaged, Engine, Unfinished, Unreachable, Unwritable
from .choose import open_engine

__all__ = ["Absent", "Damaged", "Engine", "Unfinished", "Unreachable", "Unwritable", "open_engine"]
