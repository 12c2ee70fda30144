"""A thread that writes save points to the engine, in order, so that whoever makes them does not wait for the disk."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from .schema import SavePoint


class WriterThread:
    """`put` returns at once, unless more than `backlog` bytes wait to be written; then it waits for the disk.

    saved: called with each save point that has been written. The first error ends the thread: `error` has it, `lost`
    counts the save points that were not written, and nothing more is written.
    """

    def __init__(self, commit: Callable[[Sequence[SavePoint]], None], saved: Callable[[SavePoint], None], backlog: int):
        self.error: Exception | None = None
        self.lost = 0
        self.waiting = 0
        self._commit, self._on_saved, self._backlog = commit, saved, backlog
        self._queue: deque[SavePoint] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="memory-writer", daemon=True)
        self._thread.start()

    def put(self, point: SavePoint) -> None:
        with self._change:
            self._change.wait_for(lambda: self.waiting <= self._backlog or self.error)
            if self.error:
                self.lost += 1
                return
            self._queue.append(point)
            self.waiting += point.size()
            self._change.notify_all()

    def drain(self) -> None:
        """Returns when every save point is written, or lost."""
        with self._change:
            self._change.wait_for(lambda: not self._queue)

    def close(self) -> None:
        self.drain()
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                points = list(self._queue)
            try:
                self._commit(points)
                for point in points:
                    self._on_saved(point)
                failed = None
            except Exception as error:  # surfaces in the thread that writes
                failed = error
                if not isinstance(error, (OSError, ValueError)):
                    failed = RuntimeError(f"the store's writer failed: {error!r}")
                    failed.__cause__ = error
            with self._change:
                if failed:
                    self.error, self.lost = failed, len(self._queue)
                    self._queue.clear()
                    self.waiting = 0
                else:
                    for point in points:
                        self._queue.popleft()
                        self.waiting -= point.size()
                self._change.notify_all()
