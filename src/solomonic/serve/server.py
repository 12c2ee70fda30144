"""The port that a server listens at, and how it ends."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .worker import Worker

AT_ONCE = 256
"""Connections beside those of requests that run or wait."""

SECONDS = 30
"""After which a connection on which no request came is closed, so that it takes the place of none."""

GRACE = 2
"""Seconds after which a response that is still being sent is cut off, once the server is to end."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the port, and does not listen yet. ValueError where it cannot be had."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port: expected a number from 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or "\0", port, type=socket.SOCK_STREAM)[0]
    except (OSError, ValueError):
        raise ValueError(f"--host: expected a name or address of this machine, got {host!r}") from None
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _taken(host, port, error) from None
    return bound


def listen(app: ASGIApp, worker: Worker, bound: socket.socket, ready: Callable[[str], None] = lambda url: None) -> None:
    """Answer requests until SIGINT or SIGTERM, which end every answer at once. In the main thread alone.

    ready: called with the URL of the API once requests are taken. ValueError where another process has the port.
    """
    host, port = bound.getsockname()[:2]
    config = uvicorn.Config(
        app,
        lifespan="off",
        loop="asyncio",
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=worker.parallel + worker.waiting + AT_ONCE,
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config, worker)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            bound.listen(socket.SOMAXCONN)
        except OSError as error:
            raise _taken(host, port, error) from None
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        server.run(sockets=[bound])
    finally:
        worker.end()
        for number, handler in before.items():
            signal.signal(number, handler)


class Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
        super().connection_made(transport)
        self._next_look = self.loop.call_later(SECONDS, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look(self, ended: object) -> None:
        """Close it where no request came since the last look. ended: what had been answered last, at that look."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is ended:
            self.transport.close()
        else:
            self._next_look = self.loop.call_later(SECONDS, self._look, self.cycle if waits else self)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, worker: Worker):
        super().__init__(config)
        self.worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No request is waited for: each is told that the server ends."""
        self.worker.end()
        await super().shutdown(sockets)


def _taken(host: str, port: int, error: OSError) -> ValueError:
    return ValueError(f"--port: expected one to listen at, but {host}:{port} cannot be had ({error.strerror})")


__all__ = ["bind", "listen"]
