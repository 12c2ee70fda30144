"""An LRU cache of entries, so that what is found again at the next token is not read again."""

from .schema import StoredTokens

CAPACITY = 64 << 20
"""Bytes."""


class LRUCache:
    """Up to `capacity` bytes of entries as they are stored; the least recently used entry goes first."""

    def __init__(self, capacity: int = CAPACITY):
        self._capacity, self._size = capacity, 0
        self._entries: dict[tuple[int, int], StoredTokens] = {}  # (layer, entry), the least recently used first

    def get(self, layer: int, entry: int) -> StoredTokens | None:
        tokens = self._entries.pop((layer, entry), None)
        if tokens is not None:
            self._entries[layer, entry] = tokens
        return tokens

    def put(self, layer: int, entry: int, tokens: StoredTokens) -> None:
        self.drop(layer, entry)
        self._entries[layer, entry] = tokens
        self._size += tokens.nbytes()
        while self._size > self._capacity:
            self.drop(*next(iter(self._entries)))

    def drop(self, layer: int, entry: int) -> None:
        tokens = self._entries.pop((layer, entry), None)
        if tokens is not None:
            self._size -= tokens.nbytes()

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


__all__ = ["LRUCache"]
