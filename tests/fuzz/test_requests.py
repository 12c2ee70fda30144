"""Requests of any JSON, and of what is none: never a failure of the server, and it still answers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import CHAT
from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.generation import generate
from solomonic.inference.sampling import Sampling

from . import cases, no_hang

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from starlette.testclient import TestClient

from solomonic.serve import Limits, Served, Worker, application
from solomonic.serve.questions import CHAT as OF_CHAT
from solomonic.serve.questions import COMPLETION, SAME_CHAT, SAME_COMPLETION

TEXT = st.text(st.characters(codec=None), max_size=8)
NUMBERS = st.integers(-(10**20), 10**20) | st.integers(-2, 9) | st.floats() | st.just(10**400)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
PROMPTS = TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(-1, 258), max_size=5)
ROLES = st.sampled_from(["user", "assistant", "system"])
SOUND = {  # most are, so that a request is not refused for another field than the one that is nonsense
    "model": st.just("m"),
    "prompt": PROMPTS,
    "messages": st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXT}), min_size=1, max_size=3),
    "n": st.integers(1, 3),
    "max_tokens": st.integers(1, 2),
    "max_completion_tokens": st.none(),
    "stop": TEXT.filter(bool) | st.lists(TEXT.filter(bool), max_size=3),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1, exclude_min=True),
    "top_k": st.integers(1, 300),
    "stream": st.booleans(),
    "stream_options": st.none(),
    "logprobs": st.none() | st.booleans() | st.integers(0, 3),
    "top_logprobs": st.none(),
    "seed": st.integers(-(2**63), 2**63 - 1),
}
REQUESTS = [
    ("completions", COMPLETION, SAME_COMPLETION, "prompt"),
    ("chat/completions", OF_CHAT, SAME_CHAT, "messages"),
]


@st.composite
def bodies(draw):
    path, own, same, need = draw(st.sampled_from(REQUESTS))
    names = sorted({*own, *same})
    body = {}
    for name in {"model", need, *draw(st.lists(st.sampled_from(names), max_size=4))}:
        body[name] = draw(SOUND[name] if name in SOUND else st.sampled_from([None, *same.get(name, [])]))
    how = draw(st.sampled_from(["sound", "a field", "a field", "a field", "a message", "cut", "noise", "deep"]))
    if how == "a field":
        some = [name for name in names if name in SOUND]
        body[draw(st.sampled_from(some * 3 + names) | TEXT)] = draw(VALUES)
    if how == "a message":
        body["messages"] = [{"role": draw(ROLES | VALUES), "content": draw(TEXT | VALUES)}]
    content = json.dumps(body).encode()
    if how == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    if how == "noise":
        content = draw(st.binary(max_size=40)) or json.dumps(draw(VALUES)).encode()
    if how == "deep":
        content = draw(st.sampled_from([b"[" * 50_000, b'{"model":' * 50_000, b'{"seed": ' + b"9" * 5000 + b"}"]))
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


@cases(150)
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
