"""The one thread that calls the model: a step of each request in turn, so that no request blocks the others."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..data.tokenizer import Tokenizer
from ..model import LanguageModel
from .answers import Piece, answers
from .questions import Question
from .refused import Refused

log = logging.getLogger("solomonic.serve")

ENDED = object()


class Job:
    """One request's answers, as they come; an iteration for the event loop that it was made in.

    Cancel it when nobody listens any more, in any case: it costs nothing where it has ended.
    """

    def __init__(self, worker: "Worker", pieces: Iterator[Piece | None]):
        self.pieces, self.cancelled = pieces, False
        self._worker, self._loop = worker, asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()  # a Piece, Refused or ENDED

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Refused where the model failed, or the server ends."""
        while (event := await self._events.get()) is not ENDED:
            if isinstance(event, Refused):
                raise event
            yield event

    def cancel(self) -> None:
        """It takes no step after the one that is under way, and gets no more events."""
        self._worker._cancel(self)

    def _tell(self, event: Any) -> None:
        """From any thread, which holds the worker's lock: so the event loop has not been closed."""
        if not self.cancelled:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Worker:
    """parallel: requests whose steps take turns, each of which has a state of the model; waiting: others, at most."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, parallel: int = 4, waiting: int = 64):
        if parallel < 1 or waiting < 0:
            raise ValueError(f"expected parallel >= 1 and waiting >= 0, got {parallel} and {waiting}")
        self.model, self.tokenizer, self.parallel, self.waiting = model, tokenizer, parallel, waiting
        self._change = threading.Condition()
        self._queue: deque[Job] = deque()
        self._running: deque[Job] = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def counts(self) -> dict[str, int]:
        with self._change:
            return {"running": len(self._running), "waiting": len(self._queue)}

    def submit(self, question: Question) -> Job:
        """In an event loop. Refused where too many wait, and where the server ends."""
        job = Job(self, answers(self.model, self.tokenizer, question))
        with self._change:
            if self._ends:
                raise _ending()
            if len(self._running) + len(self._queue) >= self.parallel + self.waiting:
                raise Refused(f"{self.waiting} requests wait already; try again later", 429, code="too_many_requests")
            self._queue.append(job)
            self._change.notify()
        return job

    def end(self) -> None:
        """Every answer ends here, at once."""
        with self._change:
            self._ends = True
            for job in (*self._running, *self._queue):
                job._tell(_ending())
                job.cancelled = True
            self._queue.clear()
            self._change.notify()

    def join(self, seconds: float) -> bool:
        """Whether the thread has ended by then: it does after the step that is under way when `end` is called."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._change:
                while not (self._ends or self._running or self._queue):
                    self._change.wait()
                if self._ends:
                    return
                while self._queue and len(self._running) < self.parallel:
                    self._running.append(self._queue.popleft())
                job = self._running[0]
            event = None if job.cancelled else self._step(job)
            with self._change:
                self._running.popleft()
                if event is not None:
                    job._tell(event)
                if not job.cancelled and event is not ENDED and not isinstance(event, Refused):
                    self._running.append(job)

    def _step(self, job: Job) -> Any:
        try:
            return next(job.pieces, ENDED)
        except Exception as error:  # whatever the model does in one request, the others are answered
            log.exception("a request failed")
            reason = f": {error}" if isinstance(error, ValueError) else "; the server's log says why"
            return Refused(f"the model failed{reason}", 500)

    def _cancel(self, job: Job) -> None:
        with self._change:
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)


def _ending() -> Refused:
    return Refused("the server is being stopped", 503, code="server_stopped")


__all__ = ["Job", "Worker"]
