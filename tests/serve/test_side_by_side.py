"""Requests take turns, wait, are refused where too many wait, and are forgotten where the client goes away."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from solomonic import LanguageModel
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.remember import remember
from solomonic.retrieval.schema import store_schema
from solomonic.serve import Limits, Served, Worker, application

from .helpers import BYTES, HUNG, SEEDED, TestClient, a_model, ask, generated, refused, serving, texts, wait


def test_requests_side_by_side_do_not_meet(client, model):
    prompts = ["one", "two words", "three of them", "four", "five", "six"]

    def one(prompt):
        return texts(ask(client, prompt=prompt, max_tokens=8, temperature=0))

    expected = [generated(model, prompt, tokens=8) for prompt in prompts]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, prompts)) == expected


def test_a_store_is_attended_to(model):
    model = LanguageModel(model.config).eval()
    with open_store("ram:serve", store_schema(model), write=True) as store:
        remember(Attached(model, store), BYTES, "a", b"The door is green. Who opened the door? " * 4)
        attached = Attached(model, store)
        attached.gate = threading.Event()
        with serving(attached) as client, ThreadPoolExecutor(3) as pool:
            prompts = ["The door is green. Who", "opened", "the door?"]
            asked = [pool.submit(ask, client, prompt=prompt, max_tokens=12, **SEEDED) for prompt in prompts]
            found = [texts(one.result())[0] for one in asked]
        assert found == [generated(attached, prompt, **SEEDED)[0] for prompt in prompts]
        assert found != [generated(model, prompt, **SEEDED)[0] for prompt in prompts]


def test_a_short_request_does_not_wait_for_a_long_one():
    """Thirty steps of the model are enough for the short one, whichever comes first; the long one takes 300."""
    model = a_model()
    with serving(model, limits=Limits(10**7)) as client, ThreadPoolExecutor(2) as pool:
        model.gate.clear()
        long = pool.submit(ask, client, prompt="long", max_tokens=300, temperature=0)
        wait(lambda: client.worker.counts()["running"] == 1)
        short = pool.submit(ask, client, prompt="short", max_tokens=2)
        wait(lambda: client.worker.counts()["waiting"] == 1)
        model.shuts_at = 30
        model.gate.set()
        wait(lambda: not model.gate.is_set())
        assert short.result(HUNG)["usage"]["completion_tokens"] == 2 and not long.done()
        model.gate.set()
        assert len(long.result(HUNG)["choices"][0]["text"]) == 300


def test_more_than_may_wait_are_refused():
    model = a_model()
    with serving(model, parallel=1, waiting=2) as client, ThreadPoolExecutor(3) as pool:
        model.gate.clear()
        asked = [pool.submit(ask, client, prompt=prompt, max_tokens=3, temperature=0) for prompt in ("a", "b", "c")]
        wait(lambda: client.worker.counts() == {"running": 1, "waiting": 2})
        assert "2 requests wait already" in refused(client, prompt="d", status=429)[1]
        assert client.get("/health").json() == {"status": "ok", "running": 1, "waiting": 2}
        model.gate.set()
        assert sorted(texts(one.result())[0] for one in asked) == sorted(generated(model, "a", "b", "c", tokens=3))
        ask(client, prompt="d", max_tokens=1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("goes", ["while the prompt is read", "while text is written", "while it waits"])
def test_a_client_that_goes_away_is_forgotten(stream, goes):
    model = a_model()
    served = Served("m", model, BYTES, limits=Limits(10**7, 10**6))
    worker = Worker(model, BYTES, parallel=1)
    app = application(served, worker)
    prompt = "x" * (100_000 if goes == "while the prompt is read" else 5)
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 10**7, "stream": stream}).encode()
    calls_before = 3 if goes == "while the prompt is read" else 10
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def talk(begun):
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            while not messages:
                await asyncio.sleep(0.002)
                if begun():
                    return {"type": "http.disconnect"}
            return messages.pop()

        async def send(message):
            pass

        await asyncio.wait_for(app(scope, receive, send), HUNG)

    async def both():
        if goes != "while it waits":
            return await talk(lambda: len(model.calls) >= calls_before)
        model.gate.clear()
        first = asyncio.create_task(talk(lambda: model.gate.is_set() and len(model.calls) > 3))
        while worker.counts()["running"] == 0:
            await asyncio.sleep(0.002)
        await talk(lambda: worker.counts()["waiting"] == 1)
        assert worker.counts() == {"running": 1, "waiting": 0}
        model.gate.set()
        await first
        return None

    try:
        asyncio.run(both())
        wait(lambda: worker.counts() == {"running": 0, "waiting": 0})
        calls = len(model.calls)
        with TestClient(app) as client:  # whose steps would take turns with those of one that goes on
            ask(client, prompt="x", max_tokens=5, temperature=0)
        assert calls < 10_000 and len(model.calls) <= calls + 5
    finally:
        worker.end()
        assert worker.join(HUNG)


def test_a_worker_that_ends_tells_whoever_waits():
    model = a_model()
    with serving(model, parallel=1) as client, ThreadPoolExecutor(2) as pool:
        model.gate.clear()
        asked = [pool.submit(refused, client, prompt="x", status=503) for _ in range(2)]
        wait(lambda: client.worker.counts() == {"running": 1, "waiting": 1})
        client.worker.end()
        assert all("being stopped" in one.result(HUNG)[1] for one in asked)
        assert "being stopped" in refused(client, prompt="x", status=503)[1]
