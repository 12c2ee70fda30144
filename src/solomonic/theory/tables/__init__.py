"""Tables of measurements as people have them, read in the one way they can be meant, or refused with what to do."""

from .table import Table, read
from .times import Times

__all__ = ["Table", "Times", "read"]
