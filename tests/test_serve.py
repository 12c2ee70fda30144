"""A model behind HTTP, asked by a client that knows nothing of us: it says what `generate` says here."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.cli import main
from solomonic.folder import save
from solomonic.generate import Sampling, generate
from solomonic.tokenizer import Tokenizer

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "model"
    torch.manual_seed(0)
    model = LanguageModel(preset("bmojo", vocab_size=257, d_model=32, n_layers=2, window=8, capacity=4))
    with torch.no_grad():
        model.head.weight[128:] = -model.head.weight[:1]  # ASCII alone, so that every answer is whole characters
        model.head.weight *= 30
    save(path, model, Tokenizer.for_bytes())
    return path


@pytest.fixture(scope="module")
def client(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "solomonic", "serve", str(folder), "--port", str(port), "--device", "cpu"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(f"http://localhost:{port}/health", process)
        yield openai.OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", timeout=60, max_retries=0)
    finally:
        process.terminate()
        process.wait(30)


def _wait(url, process):
    end = time.monotonic() + 150
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[0]
        try:
            return urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def expected(folder, prompt, tokens):
    from solomonic.folder import load

    model, tokenizer = load(folder)
    ids = generate(model, [tokenizer.encode(prompt).tolist()], Sampling(), max_tokens=tokens, ends=(tokenizer.end,))
    return tokenizer.decode(ids[0])


def test_a_completion_is_what_generate_gives(client, folder):
    answer = client.completions.create(model=str(folder), prompt="The state ", max_tokens=12, temperature=0)
    assert answer.choices[0].text == expected(folder, "The state ", 12) != ""


def test_a_chat_is_the_template_continued_and_streams(client, folder):
    messages = [{"role": "user", "content": "hello"}]
    settings = dict(model=str(folder), messages=messages, max_tokens=12, temperature=0)
    whole = client.chat.completions.create(**settings).choices[0].message.content
    pieces = [part.choices[0].delta.content or "" for part in client.chat.completions.create(stream=True, **settings)]
    assert whole == "".join(pieces) == expected(folder, "user: hello\nassistant: ", 12)
    assert len([piece for piece in pieces if piece]) > 1


def test_two_requests_at_once_do_not_meet(client, folder):
    from concurrent.futures import ThreadPoolExecutor

    def ask(prompt):
        return client.completions.create(model=str(folder), prompt=prompt, max_tokens=8, temperature=0).choices[0].text

    prompts = ["one", "two words", "three of them"]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, prompts)) == [expected(folder, prompt, 8) for prompt in prompts]


def test_a_folder_that_is_none_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr().err
    assert "nothing" in said and said.count("\n") == 1
