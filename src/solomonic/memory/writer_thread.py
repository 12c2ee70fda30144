"""A thread that keeps what it is handed, in order, so that whoever writes does not wait for the disk."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from .schema import SavePoint


class WriterThread:
    """`put` returns at once, but while more than `backlog` bytes wait to be written; then it waits for the disk.

    The first error ends it: `error` has it, what was not written is counted in `lost`, and nothing more is written.
    """

    def __init__(self, commit: Callable[[Sequence[SavePoint]], None], done: Callable[[SavePoint], None], backlog: int):
        self.error: Exception | None = None
        self.lost = 0
        self.waiting = 0
        self._commit, self._done, self._backlog = commit, done, backlog
        self._queue: deque[SavePoint] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="memory-writer", daemon=True)
        self._thread.start()

    def put(self, batch: SavePoint) -> None:
        with self._change:
            self._change.wait_for(lambda: self.waiting <= self._backlog or self.error)
            if self.error:
                self.lost += 1
                return
            self._queue.append(batch)
            self.waiting += batch.size()
            self._change.notify_all()

    def drain(self) -> None:
        """Until all that was put is kept, or lost."""
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
                batches = list(self._queue)
            try:
                self._commit(batches)
                for batch in batches:
                    self._done(batch)
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
                    for batch in batches:
                        self._queue.popleft()
                        self.waiting -= batch.size()
                self._change.notify_all()
