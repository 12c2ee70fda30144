"""What cannot be done is refused, with the name of the field, and the next request is answered."""

import json

import pytest
import torch

from solomonic.serve import Limits

from .helpers import HELLO, a_model, ask, generated, refused, serving, texts

WRONG = [
    ("completions", {"prompt": ""}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": [""]}, "prompt"),
    ("completions", {"prompt": ["a", [1]]}, "prompt"),
    ("completions", {"prompt": [257]}, "prompt"),
    ("completions", {"prompt": [-1]}, "prompt"),
    ("completions", {"prompt": [True]}, "prompt"),
    ("completions", {"prompt": [[]]}, "prompt"),
    ("completions", {"prompt": None}, "prompt"),
    ("completions", {"prompt": {"a": 1}}, "prompt"),
    ("completions", {}, "prompt"),
    ("completions", {"prompt": ["a"] * 129}, "prompt"),
    ("completions", {"prompt": ["a"] * 2, "n": 65}, "prompt"),
    ("completions", {"prompt": "x" * 200_000}, "prompt"),
    ("completions", {"prompt": "x", "echo": 1}, "echo"),
    ("completions", {"prompt": "x" * 50_000, "echo": True, "logprobs": 2}, "echo"),
    ("completions", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
    ("completions", {"prompt": "x", "suffix": "y"}, "suffix"),
    ("completions", {"prompt": "x", "best_of": 2}, "best_of"),
    ("completions", {"prompt": "x", "messages": HELLO}, "messages"),
    ("completions", {"prompt": "x", "logprobs": True}, "logprobs"),
    ("completions", {"prompt": "x", "logprobs": 21}, "logprobs"),
    ("completions", {"prompt": "x", "max_tokens": 2000, "n": 3}, "max_tokens"),
    ("chat/completions", {}, "messages"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": "hello"}, "messages"),
    ("chat/completions", {"messages": HELLO * 1025}, "messages"),
    ("chat/completions", {"messages": ["hello"]}, "messages[0]"),
    ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [HELLO[0] | {"name": "Ann"}]}, "messages[0]"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
    ("chat/completions", {"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
    ("chat/completions", {"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
    ("chat/completions", {"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
    ("chat/completions", {"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    *[
        (path, need | wrong, *wrong)
        for path, need in (("completions", {"prompt": "x"}), ("chat/completions", {"messages": HELLO}))
        for wrong in (
            {"max_tokens": 0},
            {"max_tokens": -1},
            {"max_tokens": 1.0},
            {"max_tokens": "3"},
            {"max_tokens": True},
            {"max_tokens": 10**7},
            {"max_tokens": 10**400},
            {"max_completion_tokens": 0},
            {"n": 0},
            {"n": 129},
            {"temperature": -0.1},
            {"temperature": 10**400},
            {"temperature": "hot"},
            {"top_p": 0},
            {"top_p": 1.1},
            {"top_k": 0},
            {"seed": 2**63},
            {"seed": 1.5},
            {"stop": ""},
            {"stop": [1]},
            {"stop": ["x"] * 17},
            {"stop": "x" * 1001},
            {"stop": {"a": 1}},
            {"stream": 1},
            {"stream_options": {"include_usage": True}},
            {"frequency_penalty": 0.5},
            {"presence_penalty": -1},
            {"logit_bias": {"1": 2}},
            {"max_token": 3},
            {"user": 5},
        )
    ],
]


@pytest.mark.parametrize("path,fields,named", WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named(client, path, fields, named):
    field, message = refused(client, path, **fields)
    assert field == named and message.startswith((named, f"unknown field {named!r}")) and len(message) < 900


def test_what_changes_nothing_is_taken(client, model):
    idle = {"echo": False, "best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}
    idle |= {"user": "me", "stream": False, "stop": None, "suffix": None, "seed": None, "n": None, "logprobs": None}
    assert texts(ask(client, prompt="x", temperature=0, max_tokens=5, **idle)) == generated(model, "x", tokens=5)
    idle = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "store": False, "logprobs": False}
    ask(client, "chat/completions", messages=HELLO, max_tokens=2, **idle)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b'{"model": NaN}', b"[" * 100_000, b'{"a":' * 100_000]
    + [b'{"model": "m", "prompt": "x", "temperature": %s}' % value for value in (b"NaN", b"Infinity", b"1e999")]
    + [b'{"model": "m", "prompt": "x", "seed": %s}' % (b"1" * 5000), b'{"model": "m", "model": "m", "prompt": "x"}']
    + [b'{"model": "m", "prompt": %s}' % (b"[" * 90 + b"]" * 90), b"{}", b'{"\\ud800": 1}', b'{"model": "\\ud800"}'],
    ids=lambda body: body[:40].decode("latin-1"),
)
@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_what_is_no_request(client, path, body):
    answer = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404) and answer.json()["error"]["message"], answer.text


def test_other_types_and_sizes(client, model):
    answer = client.post("/v1/completions", content=b'{"model": "m", "prompt": "x"}')
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]
    with serving(model, limits=Limits(read=10)) as client:
        assert "at most 10 tokens" in refused(client, prompt="x" * 11)[1]
        assert "at most 10 tokens" in refused(client, prompt=["x" * 6] * 2)[1]
        assert "65,856 bytes" in refused(client, prompt="x" * 70_000, status=413)[1]


def test_paths_that_are_not_there(client):
    for method, path, status in [
        ("POST", "/load_model", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/v1/completions", 405),
        ("GET", "/", 404),
        ("DELETE", "/v1/models/m", 405),
        ("POST", "/v1/completions/", 404),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status and path in answer.json()["error"]["message"], path


def test_models(client):
    (entry,) = client.get("/v1/models").json()["data"]
    assert entry["id"] == "m" and entry["object"] == "model" and client.get("/v1/models/m").json() == entry
    answer = client.get("/v1/models/other")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    assert refused(client, prompt="x", model="other", status=404)[0] == "model"
    assert refused(client, prompt="x", model=None)[0] == refused(client, prompt="x", model=["m"])[0] == "model"


def test_a_key(model):
    with serving(model, key="secret") as client:
        assert client.get("/health").status_code == 200
        for came in (None, "Bearer wrong", "secret", "Bearer ", "Basic secret"):
            for path in ("/v1/models", "/nothing"):
                answer = client.get(path, headers={"Authorization": came} if came else {})
                assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        client.headers["Authorization"] = "Bearer secret"
        assert client.get("/v1/models").status_code == 200
        ask(client, prompt="x", max_tokens=1)


def test_a_model_that_fails_says_so_and_the_next_request_is_answered():
    model = a_model()
    before = model.head.weight.detach().clone()
    with serving(model) as client:
        with torch.no_grad():
            model.head.weight.fill_(float("nan"))
        assert "finite logits" in refused(client, prompt="x", status=500)[1]
        answer = client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True})
        (event,) = [line for line in answer.text.split("\n\n") if line]
        assert "finite logits" in json.loads(event.removeprefix("data: "))["error"]["message"]
        with torch.no_grad():
            model.head.weight.copy_(before)
        assert texts(ask(client, prompt="x", temperature=0, max_tokens=5)) == generated(model, "x", tokens=5)
