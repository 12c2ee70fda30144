"""The paths of the server, over ASGI."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from hmac import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .questions import Question, Served, chat, completion, no_model
from .refused import Refused
from .shapes import Chat, Completion, Shape
from .worker import Job, Worker

SECONDS = 30
"""That the body of a request may take to come."""

PARSED = 2
"""Requests whose text becomes tokens at a time."""

ELSEWHERE = {
    "/v1/embeddings": "a language model's states are no embeddings of texts; ask a model that was trained for them",
    "/v1/responses": "ask /v1/chat/completions, with all messages so far",
    "/v1/completions/": "ask /v1/completions",
    "/v1/chat/completions/": "ask /v1/chat/completions",
    "/completions": "ask /v1/completions; the client's base URL ends in /v1",
    "/chat/completions": "ask /v1/chat/completions; the client's base URL ends in /v1",
}
"""Paths that clients ask for and this server lacks, with the reason, or the path to ask instead."""


def application(served: Served, worker: Worker, key: str | None = None) -> Starlette:
    """GET /health, /v1/models and /v1/models/NAME; POST /v1/completions and /v1/chat/completions.

    key: what every request but /health must bear. POST to a path of `ELSEWHERE` is refused with the reason.
    """
    paths = Paths(served, worker)
    app = Starlette(
        routes=[
            Route("/health", paths.health),
            Route("/v1/models", paths.models),
            Route("/v1/models/{name:path}", paths.model),
            Route("/v1/completions", paths.completions, methods=["POST"]),
            Route("/v1/chat/completions", paths.chat, methods=["POST"]),
            *(Route(path, paths.elsewhere, methods=["POST"]) for path in ELSEWHERE),
        ],
        middleware=[Middleware(Keyed, key.encode())] if key is not None else [],
        exception_handlers={
            Refused: lambda request, error: refusal(error),
            HTTPException: lambda request, error: refusal(_no_path(request, error.status_code)),
            ClientDisconnect: lambda request, error: Response(status_code=400),
            Exception: lambda request, error: refusal(Refused("the server failed; its log says why", 500)),
        },
    )
    app.router.redirect_slashes = False
    return app


class Paths:
    def __init__(self, served: Served, worker: Worker):
        self.served, self.worker = served, worker
        self.created = int(time.time())
        self.parsing = asyncio.Semaphore(PARSED)

    async def health(self, request: Request) -> Response:
        return response({"status": "ok", **self.worker.counts()})

    async def models(self, request: Request) -> Response:
        return response({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] not in {self.served.name, *self.served.also}:
            raise no_model(request.path_params["name"], self.served)
        return response(self._described())

    async def elsewhere(self, request: Request) -> Response:
        path = request.url.path
        raise Refused(f"{path}: not served here: {ELSEWHERE[path]}", 404, code="unknown_url")

    async def completions(self, request: Request) -> Response:
        return await self._answer(request, completion, Completion)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat, Chat)

    def _described(self) -> dict[str, Any]:
        return {"id": self.served.name, "object": "model", "created": self.created, "owned_by": "solomonic"}

    async def _answer(
        self, request: Request, parse: Callable[[bytes, Served], Question], shape: type[Shape]
    ) -> Response:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(f"expected the header Content-Type: application/json, got {kind[:100]!r}", 415)
        body = await _body(request, self.served.limits.body)
        async with self.parsing:
            question = await run_in_threadpool(parse, body, self.served)
        job, shaped = self.worker.submit(question), shape(self.served, question)
        if question.stream:
            return Events(job, shaped)
        return await _whole(request, job, shaped)


async def _body(request: Request, most: int) -> bytes:
    """The whole body is read before it is refused, so that the client reads the answer."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    parts.append(part)
    except TimeoutError:
        raise Refused(f"expected the whole request within {SECONDS} seconds", 408) from None
    if size > most:
        raise Refused(f"expected a request of at most {most:,} bytes, got {size:,}", 413)
    return b"".join(parts)


async def _whole(request: Request, job: Job, shape: Shape) -> Response:
    """The answer, unless the client goes away before."""

    async def collect() -> None:
        async for piece in job:
            shape.note(piece)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, going = asyncio.create_task(collect()), asyncio.create_task(gone())
    try:
        await asyncio.wait({collecting, going}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            raise ClientDisconnect
        collecting.result()
        return response(shape.whole())
    finally:
        job.cancel()
        collecting.cancel()
        going.cancel()


class Events(StreamingResponse):
    """Server-sent events: a chunk each, and [DONE]. After an error there is no [DONE]."""

    def __init__(self, job: Job, shape: Shape):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._events(job, shape), media_type="text/event-stream", headers=headers)
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.cancel()

    @staticmethod
    async def _events(job: Job, shape: Shape) -> AsyncIterator[bytes]:
        try:
            for chunk in shape.opening():
                yield _event(chunk)
            async for piece in job:
                shape.note(piece)
                yield _event(shape.chunk(piece))
            for chunk in shape.closing():
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
        except Refused as error:
            yield _event(error.shape())


class Keyed:
    """Requests without the key are refused. The comparison takes the same time for every wrong key."""

    def __init__(self, app: ASGIApp, key: bytes):
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            kind, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not compare_digest(key.strip(), self.key):
                error = Refused("expected the server's key: Authorization: Bearer KEY", 401, code="invalid_api_key")
                await refusal(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def refusal(error: Refused) -> Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(error.status)
    return response(error.shape(), error.status, headers)


def response(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_json(content), status, headers, "application/json")


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + _json(content) + b"\n\n"


def _json(content: dict[str, Any]) -> bytes:
    """In ASCII: names and texts may have surrogates, which UTF-8 lacks."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _no_path(request: Request, status: int) -> Refused:
    path = f"{request.method} {request.url.path[:200]}"
    has = "GET /health, GET /v1/models, POST /v1/completions and POST /v1/chat/completions"
    return Refused(f"expected a path of this server, which has {has}, not {path}", status, code="unknown_url")


__all__ = ["application"]
