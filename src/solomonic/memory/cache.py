"""The entries that were read last, so that what is found again at the next token is not read again."""

from .schema import StoredTokens

ROOM = 64 << 20


class LRUCache:
    """Up to `room` bytes of entries as they are stored; the one that was asked for longest ago goes first."""

    def __init__(self, room: int = ROOM):
        self._room, self._size = room, 0
        self._kept: dict[tuple[int, int], StoredTokens] = {}  # in the order in which they were asked for

    def get(self, layer: int, entry: int) -> StoredTokens | None:
        tokens = self._kept.pop((layer, entry), None)
        if tokens is not None:
            self._kept[layer, entry] = tokens
        return tokens

    def put(self, layer: int, entry: int, tokens: StoredTokens) -> None:
        self.drop(layer, entry)
        self._kept[layer, entry] = tokens
        self._size += tokens.nbytes()
        while self._size > self._room:
            self.drop(*next(iter(self._kept)))

    def drop(self, layer: int, entry: int) -> None:
        tokens = self._kept.pop((layer, entry), None)
        if tokens is not None:
            self._size -= tokens.nbytes()

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0
