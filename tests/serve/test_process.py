"""The server as a process: it is asked by OpenAI's client, and ends when it is told to."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
import uvicorn
from uvicorn.server import ServerState

from solomonic.checkpoints.folder import load, save
from solomonic.cli import main
from solomonic.serve import server

from .helpers import BYTES, HELLO, HUNG, generated, wait


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "model"
    save(path, model, BYTES)
    return path


@contextmanager
def process(folder, *options, **environment):
    """(the process, URL of the API); it is killed at the end, where it has not ended."""
    running = subprocess.Popen(
        [sys.executable, "-m", "solomonic", "serve", str(folder), "--port", "0", "--device", "cpu", *map(str, options)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = running.stdout.readline()
        assert line.startswith(f"serving {folder.name} at http://127.0.0.1:"), line + running.stderr.read()
        yield running, line.split(" at ")[1].split(";")[0]
    finally:
        running.kill()
        running.communicate()


@pytest.fixture(scope="module")
def api(folder):
    openai = pytest.importorskip("openai")
    with process(folder, "--max-tokens", 10**8, SOLOMONIC_API_KEY="none") as (running, url):
        yield openai.OpenAI(base_url=url, api_key="none", timeout=HUNG, max_retries=0)


def health(api):
    with urllib.request.urlopen(str(api.base_url).replace("/v1/", "/health"), timeout=HUNG) as answer:
        return json.load(answer)


def test_openais_client_speaks_to_it(api, folder):
    import openai

    name = folder.name  # and the path that the command was given
    model, _ = load(folder)
    assert [one.id for one in api.models.list()] == [name] == [api.models.retrieve(str(folder)).id]
    answer = api.completions.create(model=name, prompt="The state ", max_tokens=12, temperature=0, logprobs=2)
    assert answer.choices[0].text == generated(model, "The state ")[0] != ""
    assert answer.choices[0].logprobs.tokens == list(answer.choices[0].text)
    settings = dict(model=name, messages=HELLO, max_tokens=12, temperature=0)
    whole = api.chat.completions.create(**settings).choices[0].message.content
    pieces = [part.choices[0].delta.content or "" for part in api.chat.completions.create(stream=True, **settings)]
    assert whole == "".join(pieces) == generated(model, "user: hello\nassistant: ")[0]
    assert len([piece for piece in pieces if piece]) > 1
    with pytest.raises(openai.NotFoundError):
        api.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="suffix") as error:
        api.completions.create(model=name, prompt="x", suffix="y")
    assert error.value.param == "suffix"
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings: not served here"):
        api.embeddings.create(model=name, input="x")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=api.base_url, api_key="other", max_retries=0).models.list()


def test_whoever_asks_for_ten_million_tokens_and_goes_keeps_nobody(api, folder):
    import openai

    stream = api.completions.create(model=str(folder), prompt="x", max_tokens=10**7, stream=True)
    next(iter(stream))
    short = api.completions.create(model=str(folder), prompt="The state ", max_tokens=3, temperature=0)
    assert short.choices[0].text == generated(load(folder)[0], "The state ", tokens=3)[0]
    assert health(api)["running"] == 1
    stream.close()
    wait(lambda: health(api) == {"status": "ok", "running": 0, "waiting": 0})
    with pytest.raises(openai.APITimeoutError):
        api.with_options(timeout=1).completions.create(model=str(folder), prompt="x", max_tokens=10**7)
    wait(lambda: health(api)["running"] == 0)


def test_a_connection_without_a_request_is_closed():
    """Whether it says nothing or half a request, first or later; one whose answer takes longer is not.

    The time of the event loop passes when it is told to.
    """

    async def tried():
        loop, passed = asyncio.get_running_loop(), 0.0
        real = loop.time
        loop.time = lambda: real() + passed
        asked, answers = asyncio.Event(), asyncio.Event()

        async def app(scope, receive, send):
            asked.set()
            await answers.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async def look():
            nonlocal passed
            passed += server.SECONDS + 1
            await asyncio.sleep(0.01)

        config = uvicorn.Config(
            app, http=server.Protocol, lifespan="off", log_level="warning", timeout_keep_alive=10**9
        )
        config.load()
        listening = await loop.create_server(lambda: server.Protocol(config, ServerState(), {}), "127.0.0.1", 0)
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        for content, count in ((b"", 0), (request[:9], 0), (request, 1), (request + request[:9], 1)):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(content)
            if count:
                await asked.wait()
                for _ in range(5):
                    await look()
                answers.set()
            said = asyncio.create_task(reader.read())
            for _ in range(1000):
                if said.done():
                    break
                await look()
            assert said.done() and (await said).count(b" 204 ") == count
            writer.close()
            asked.clear(), answers.clear()
        listening.close()

    asyncio.run(tried())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_writes(folder, number):
    with process(folder, "--max-tokens", 10**8) as (running, url):
        body = json.dumps({"model": str(folder), "prompt": "x", "max_tokens": 10**7, "stream": True}).encode()
        request = urllib.request.Request(url + "/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=HUNG) as answer:
            answer.readline()
            running.send_signal(number)
            assert b"being stopped" in answer.read().splitlines()[-2]
        out, err = running.communicate(timeout=HUNG)
        assert (running.returncode, out, err) == (0, "", "")


def test_what_cannot_be_served_is_one_line(folder, tmp_path, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, says in [
            ([tmp_path / "nothing", "--port", 0], "nothing"),
            ([folder, "--port", port], str(port)),
            ([folder, "--port", 65536], "65536"),
            ([folder, "--port", -1], "-1"),
            ([folder, "--host", "no.such.host.invalid"], "no.such.host.invalid"),
            ([folder, "--host", ""], "--host"),
            ([folder, "--queue", -1], "--queue"),
            ([folder, "--parallel", 0], "--parallel"),
            ([folder, "--max-tokens", 0], "--max-tokens"),
            ([folder, "--max-prompt", 0], "--max-prompt"),
            ([folder, "--api-key", ""], "--api-key"),
            ([folder, "--api-key", "two words"], "--api-key"),
            ([folder, "--port", 0, "--device", "warp"], "warp"),
            ([folder, "--port", 0, "--dtype", "int3"], "int3"),
            ([folder, "--port", 0, "--memory", tmp_path / "none"], "none"),
        ]:
            assert main(["serve", *map(str, words)]) == 2
            said = capsys.readouterr().err
            assert says in said and said.count("\n") == 1, said
    monkeypatch.setenv("SOLOMONIC_API_KEY", "é")
    assert main(["serve", str(folder)]) == 2 and "SOLOMONIC_API_KEY" in capsys.readouterr().err
