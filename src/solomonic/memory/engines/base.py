"""What an engine does: keep save points, each whole or not at all, and return what is in them."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence

from ..schema import DTYPES, SavePoint, StoredDocument, StoredTokens, StoreSchema, TextPiece
from ..search.exact import ExactIndex, Keys

Ids = Collection[int]
"""Of documents, or of entries."""
IndexType = type[ExactIndex]


class Unwritable(OSError):
    """The place of the store takes no more: a full disk, or a server that went away."""


class Unreachable(OSError):
    """The place of the store cannot be reached now."""


class Unfinished(OSError):
    """What was removed is gone from the store, and remains of it may be in its files: the message says which."""


class Absent(FileNotFoundError, ValueError):
    """There is no store, and no schema for a new one."""


class Damaged(RuntimeWarning):
    """Something in a store is no more as it was written. It is left out, and everything else is served."""


class Engine(ABC):
    """Keeps what a store holds. Calls may come from several threads; nothing that it reads is executed.

    Laws, tested on every engine: a save point is there whole or not at all, and once `commit` has returned, it stays;
    what `remove` and `evict` removed is in no file of the engine when they return, or they raise `Unfinished`; what is
    damaged is never read as data: it is left out, and a warning, `Damaged`, names it, once.
    """

    schema: StoreSchema

    def __init__(self) -> None:
        self._warned: dict[object, str] = {}

    @abstractmethod
    def documents(self) -> list[StoredDocument]:
        """All documents in the order of their ids, with the tokens and bytes that they have now."""

    @abstractmethod
    def last_document(self) -> int:
        """The largest id that any document ever had; ids are not used twice."""

    @abstractmethod
    def commit(self, points: Sequence[SavePoint]) -> None:
        """All of them or none; on the disk when this returns. Unwritable if they could not be kept."""

    @abstractmethod
    def remove(self, documents: set[int]) -> None: ...

    @abstractmethod
    def evict(self, entries: dict[int, set[int]]) -> None:
        """Remove entries, of each layer."""

    @abstractmethod
    def fetch(self, layer: int, entries: list[int]) -> dict[int, StoredTokens]:
        """The tokens of those of `entries` that are there."""

    @abstractmethod
    def scan(self, layer: int, documents: Ids, without: Ids = ()) -> Iterator[Keys]:
        """Batches of the keys of the documents' entries but for `without`, oldest first."""

    @abstractmethod
    def last_entry(self, layer: int, document: int) -> tuple[int, StoredTokens] | None:
        """The last entry of the document."""

    @abstractmethod
    def pieces(self, document: int, start: int, end: int) -> list[TextPiece]:
        """The pieces of text that overlap the bytes [start, end), in order."""

    @abstractmethod
    def state(self, document: int) -> bytes: ...

    @abstractmethod
    def size(self) -> int:
        """Bytes that the store takes."""

    @abstractmethod
    def verify(self) -> list[str]:
        """A line for everything that is damaged."""

    def damaged(self) -> dict[int, str]:
        """The ids of documents that `documents` leaves out, as their own rows are damaged, and the names they still have."""
        return {}

    def has_remains(self, document: int) -> bool:
        """Whether anything is there of a document that `documents` leaves out."""
        return document in self.damaged()

    def is_intact(self, document: StoredDocument) -> bool:
        """Whether all of a document is there as it was written; all of it is read."""
        return True

    def warn_of_damage(self, key: object, problem: str) -> None:
        """A warning, `Damaged`, once for each key."""
        if key not in self._warned:
            self._warned[key] = problem
            warnings.warn(problem, Damaged, stacklevel=2)

    def damage_warned_of(self) -> list[str]:
        return list(self._warned.values())

    def index(self, layer: int, documents: Ids, without: Ids, index_type: IndexType = ExactIndex) -> ExactIndex:
        """An index over the keys of the documents' entries but for `without`: an `index_type`, unless the engine has its own."""
        index = index_type(self.schema[layer], DTYPES[self.schema.dtype])
        for keys in self.scan(layer, documents, without):
            index.add(keys)
        return index

    def version(self) -> tuple[int, int]:
        """(changes by other processes, removals): where they differ, a store reads again what may have changed."""
        return 0, 0

    def compact(self) -> None:
        """Give back the room of what was removed."""

    def close(self) -> None:
        pass
