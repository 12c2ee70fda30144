"""Requests of any JSON, and of what is none: never a failure of the server, and it still answers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic import LanguageModel, preset
from solomonic.cli._turns import Turns
from solomonic.folder import CHAT
from solomonic.generate import Sampling, generate
from solomonic.tokenizer import Tokenizer

from . import cases, no_hang

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from starlette.testclient import TestClient  # noqa: E402

from solomonic.serve import Limits, Served, Worker, application  # noqa: E402
from solomonic.serve.questions import CHAT as OF_CHAT  # noqa: E402
from solomonic.serve.questions import COMPLETION, SAME_CHAT, SAME_COMPLETION  # noqa: E402

TEXT = st.text(st.characters(codec=None), max_size=8)
NUMBERS = st.integers(-(10**20), 10**20) | st.integers(-2, 9) | st.floats() | st.just(10**400)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PROMPTS = TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(-1, 258), max_size=5)
ROLES = st.sampled_from(["user", "assistant", "system"])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES | VALUES, "content": TEXT | VALUES}), max_size=3)
SOUND = {
    "model": st.just("m"),
    "prompt": PROMPTS | VALUES,
    "messages": MESSAGES | VALUES,
    "max_tokens": st.integers(0, 5),
    "stop": TEXT | st.lists(TEXT, max_size=3),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "x"]), st.booleans()),
    "logprobs": st.booleans() | st.integers(0, 3),
    "seed": st.integers(),
}
REQUESTS = [
    ("completions", COMPLETION | SAME_COMPLETION.keys(), "prompt"),
    ("chat/completions", OF_CHAT | SAME_CHAT.keys(), "messages"),
]


@st.composite
def bodies(draw):
    path, names, need = draw(st.sampled_from(REQUESTS))
    some = draw(st.lists(st.sampled_from(sorted(names)), max_size=4))
    body = {name: draw(SOUND.get(name, VALUES)) for name in {"model", need, *some}}
    for name in draw(st.lists(st.sampled_from(sorted(names)) | TEXT, max_size=1)):
        body[name] = draw(VALUES)
    content = json.dumps(body).encode()
    kind = draw(st.integers(0, 9))
    if kind == 0:
        content = content[: draw(st.integers(0, len(content)))]
    if kind == 1:
        content = draw(st.binary(max_size=40)) or json.dumps(draw(VALUES)).encode()
    return path, content


@pytest.fixture(scope="module")
def client():
    torch.manual_seed(0)
    tokenizer = Tokenizer.for_bytes()
    model = LanguageModel(preset("bmojo", vocab_size=257, d_model=16, n_layers=1, window=8, capacity=4)).eval()
    served = Served("m", model, tokenizer, Turns(CHAT, {}, tokenizer), Limits(written=8, read=500))
    worker = Worker(model, tokenizer)
    with TestClient(application(served, worker)) as client:
        client.sound = tokenizer.decode(generate(model, [list(b"sound")], Sampling(), max_tokens=4, ends=[256])[0])
        yield client
    worker.end()
    assert worker.join(30)


@cases(100)
@given(asked=bodies())
def test_any_request_is_answered_or_refused(client, asked):
    path, body = asked
    with no_hang():
        answer = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        if answer.status_code == 200 and answer.headers["content-type"] != "application/json":
            events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
            assert events.pop() == "[DONE]" and not any("error" in json.loads(event) for event in events)
        elif answer.status_code == 200:
            assert answer.json()["choices"]
        else:
            assert 400 <= answer.status_code < 500, answer.text
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"] and "\n" not in error["message"] and len(error["message"]) < 2000
        asked = {"model": "m", "prompt": "sound", "max_tokens": 4, "temperature": 0}
        sound = client.post("/v1/completions", json=asked)
        assert sound.json()["choices"][0]["text"] == client.sound
