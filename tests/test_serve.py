"""A model behind HTTP: it says what `generate` says here, refuses what it cannot do, and ends when it is told to."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import CHAT, load, save
from solomonic.cli import main
from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.generation import Sampling, generate
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.remember import remember
from solomonic.retrieval.schema import store_schema

from .test_tokenizer import byte_bpe

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
import uvicorn
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from solomonic.serve import Limits, Served, Worker, application, server
from solomonic.serve.answers import Until
from solomonic.serve.questions import completion

BYTES = Tokenizer.for_bytes()


class Slow(LanguageModel):
    """Counts its calls, and waits in each while its gate is shut."""

    def __init__(self, config):
        super().__init__(config)
        self.calls, self.gate = [], threading.Event()
        self.gate.set()

    def forward(self, tokens, *args, **options):
        self.gate.wait(30)
        self.calls.append(tokens.shape[1])
        return super().forward(tokens, *args, **options)


def a_model():
    torch.manual_seed(0)
    model = Slow(preset("bmojo", vocab_size=257, d_model=32, n_layers=2, window=8, capacity=4)).eval()
    with torch.no_grad():
        model.head.weight[128:] = -model.head.weight[:1]  # ASCII alone, so that every answer is whole characters
        model.head.weight *= 30
    return model


@contextmanager
def serving(model, tokenizer=BYTES, template=CHAT, key=None, limits=Limits(), **worker):
    served = Served("m", model, tokenizer, Turns(template, {}, tokenizer) if template else None, limits)
    worker = Worker(model, tokenizer, **worker)
    try:
        with TestClient(application(served, worker, key)) as client:
            client.worker = worker
            yield client
    finally:
        model.gate.set()
        worker.end()
        assert worker.join(30)


@pytest.fixture(scope="module")
def model():
    return a_model()


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def ask(client, path="completions", status=200, **fields):
    answer = client.post(f"/v1/{path}", json={"model": "m"} | fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(client, path="completions", status=400, **fields):
    """(the field that is named, the message)"""
    error = ask(client, path, status, **fields)["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return error["param"], error["message"]


def events(client, path="completions", **fields):
    answer = client.post(f"/v1/{path}", json={"model": "m", "stream": True} | fields)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def generated(model, *prompts, tokens=12, tokenizer=BYTES, ends=(256,), **sampling):
    ids = [tokenizer.encode(one).tolist() if isinstance(one, str) else one for one in prompts]
    texts = generate(model, ids, Sampling(**sampling), max_tokens=tokens, ends=ends)
    return [tokenizer.decode(text) for text in texts]


def texts(answer):
    return [choice["text"] for choice in answer["choices"]]


HELLO = [{"role": "user", "content": "hello"}]
SEEDED = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "seed": 7}


def test_a_completion_is_what_generate_gives(client, model):
    answer = ask(client, prompt="The state ", max_tokens=12, temperature=0)
    assert texts(answer) == generated(model, "The state ") != [""]
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22}
    assert answer["object"] == "text_completion" and answer["model"] == "m" and answer["id"].startswith("cmpl-")
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_completion_with_a_seed_is_too_and_others_differ(client, model):
    one = texts(ask(client, prompt="The state ", max_tokens=12, **SEEDED))
    assert one == generated(model, "The state ", **SEEDED)
    assert one != texts(ask(client, prompt="The state ", max_tokens=12, **SEEDED | {"seed": 8}))
    assert len({completion(b'{"model": "m", "prompt": "x"}', Served("m", model, BYTES)).sampling for _ in "ab"}) == 2


@pytest.mark.parametrize("n", [1, 2])
def test_prompts_of_all_kinds_are_the_rows_of_a_batch(client, model, n):
    prompts = ["one", "two words", "three"]
    rows = [prompt for prompt in prompts for _ in range(n)]
    for given in (prompts, [list(prompt.encode()) for prompt in prompts]):
        answer = ask(client, prompt=given, n=n, max_tokens=8, **SEEDED)
        assert texts(answer) == generated(model, *rows, tokens=8, **SEEDED)
        assert [choice["index"] for choice in answer["choices"]] == list(range(3 * n))
        assert answer["usage"]["prompt_tokens"] == 17 and answer["usage"]["completion_tokens"] == 24 * n
    assert texts(ask(client, prompt=list(b"one"), max_tokens=8, temperature=0)) == generated(model, "one", tokens=8)


def test_a_long_prompt_is_read_in_parts(client, model):
    model.calls.clear()
    prompt = "abcdefgh" * 200
    assert texts(ask(client, prompt=prompt, max_tokens=5, temperature=0, n=2)) == 2 * generated(model, prompt, tokens=5)
    assert model.calls[:4] == [512, 512, 512, 63]


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_is_the_whole_in_pieces(client, path):
    asked = {"prompt": "The state "} if path == "completions" else {"messages": HELLO}
    asked |= SEEDED | {"max_tokens": 12, "n": 2}
    whole = ask(client, path, **asked)
    *chunks, last = events(client, path, stream_options={"include_usage": True}, **asked)
    assert last["usage"] == whole["usage"] and last["choices"] == []
    assert all(chunk["usage"] is None and chunk["id"] == last["id"] for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for i in range(2):
        mine = [choice for choice in choices if choice["index"] == i]
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["length"] and len(mine) > 5
        if path == "completions":
            assert "".join(choice["text"] for choice in mine) == whole["choices"][i]["text"]
        else:
            assert mine[0]["delta"]["role"] == "assistant"
            said = "".join(choice["delta"].get("content", "") for choice in mine)
            assert said == whole["choices"][i]["message"]["content"]
    assert "usage" not in events(client, path, **asked)[0]


def test_a_chat_is_the_template_continued(client, model):
    answer = ask(client, "chat/completions", messages=HELLO, max_tokens=12, temperature=0)
    assert answer["object"] == "chat.completion" and answer["usage"]["prompt_tokens"] == 23
    message = answer["choices"][0]["message"]
    assert message == {"role": "assistant", "content": generated(model, "user: hello\nassistant: ")[0], "refusal": None}


def test_a_chat_of_several_turns(client, model):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        *HELLO,
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []},
        {"role": "user", "content": parts},
    ]
    prompt = "system: Be brief.\nuser: hello\nassistant: yes\nuser: ab\nassistant: "
    answer = ask(client, "chat/completions", messages=messages, max_completion_tokens=9, temperature=0)
    assert answer["choices"][0]["message"]["content"] == generated(model, prompt, tokens=9)[0]


def test_a_chat_may_have_any_length_that_the_server_allows(model):
    with serving(model, limits=Limits(written=6)) as client:
        answer = ask(client, "chat/completions", messages=HELLO, temperature=0, n=2)
        assert answer["usage"]["completion_tokens"] == 6


def test_special_tokens_are_the_templates_alone():
    tokenizer = Tokenizer(byte_bpe())
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    turns = Turns(template + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", {}, tokenizer)
    tokens = turns.conversation([("system", "s"), ("user", "<|im_end|>")])
    assert tokens.count(tokenizer.specials["<|im_end|>"]) == 2
    assert tokens.count(tokenizer.specials["<|im_start|>"]) == 3
    assert tokenizer.decode(tokens) == "system\ns\nuser\n<|im_end|>\nassistant\n"


def test_a_message_that_the_template_has_no_place_for(model):
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with serving(model, template=template) as client:
        field, message = refused(client, "chat/completions", messages=[{"role": "system", "content": "x"}, *HELLO])
        assert field == "messages" and "system" in message
    with serving(model, template=None) as client:
        assert "no chat template" in refused(client, "chat/completions", messages=HELLO)[1]


# Ends


def test_an_answer_ends_at_a_stop(client, model):
    whole = generated(model, "The state ", tokens=30)[0]
    for stop in (whole[5:8], [whole[9:11], whole[5:8], "never"]):
        stops = [stop] if isinstance(stop, str) else stop
        expected = whole[: min(at for one in stops if (at := whole.find(one)) >= 0)]
        answer = ask(client, prompt="The state ", max_tokens=30, temperature=0, stop=stop)
        assert texts(answer) == [expected] and answer["choices"][0]["finish_reason"] == "stop"
        streamed = events(client, prompt="The state ", max_tokens=30, temperature=0, stop=stop)
        assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == expected
    assert texts(ask(client, prompt="The state ", max_tokens=30, temperature=0, stop=whole[-1] + "x")) == [whole]


@pytest.mark.parametrize("pieces", [["abXYc"], ["a", "b", "X", "Y", "c"], ["abX", "Yc"]])
def test_what_may_begin_a_stop_is_held(pieces):
    until, given = Until(("XY", "XZZ")), ""
    for piece in pieces:
        given += until.add(piece)
        assert "X" not in given
        if until.ended:
            break
    assert until.ended and given == "ab" and until.rest() == ""
    until = Until(("XY",))
    assert until.add("aX") == "a" and until.add("X") == "X" and until.add("b") == "Xb" and not until.ended
    assert until.add("X") == "" and until.rest() == "X"


def test_an_answer_ends_at_the_end_of_a_document():
    model = a_model()
    with torch.no_grad():
        model.head.weight[256] = 2 * model.head.weight[:128].mean(0)
        ids = generate(model, [list(b"The state ")], Sampling(), max_tokens=5)[0]
        model.head.weight[256] = 1.01 * model.head.weight[ids[2]]
    with serving(model) as client:
        answer = ask(client, prompt="The state ", max_tokens=40, temperature=0)
        assert texts(answer) == generated(model, "The state ", tokens=40)
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == len(texts(answer)[0]) + 1 < 40


def test_a_chat_ends_where_the_user_would_speak(model):
    class Said(Slow):
        def forward(self, tokens, state=None, **options):
            logits, state = super().forward(tokens, state, **options)
            script = b"fine\nuser: more"
            said = int(state["position"][0]) - len("user: hello\nassistant: ")
            if 0 <= said < len(script):
                logits = torch.full_like(logits, -9.0)
                logits[..., script[said]] = 9.0
            return logits, state

    model = Said(model.config).eval()
    with serving(model) as client:
        answer = ask(client, "chat/completions", messages=HELLO, max_tokens=15, temperature=0)
        assert answer["choices"][0]["message"]["content"] == "fine" and answer["choices"][0]["finish_reason"] == "stop"


# Probabilities


def test_logprobs_are_of_the_model(client, model):
    prompt = "The state "
    answer = ask(client, prompt=prompt, max_tokens=4, temperature=0, logprobs=3)
    found, text = answer["choices"][0]["logprobs"], texts(answer)[0]
    with torch.no_grad():
        log_p = model(torch.tensor([list((prompt + text).encode())]))[0][0].double().log_softmax(-1)
    assert found["tokens"] == list(text) and found["text_offset"] == [10, 11, 12, 13]
    for i, token in enumerate(text.encode()):
        top, ids = log_p[9 + i].topk(3)
        assert found["token_logprobs"][i] == pytest.approx(log_p[9 + i, token].item(), abs=1e-3)
        assert set(found["top_logprobs"][i]) == {chr(j) for j in ids.tolist()}
        assert sorted(found["top_logprobs"][i].values()) == pytest.approx(sorted(top.tolist()), abs=1e-3)
    streamed = events(client, prompt=prompt, max_tokens=4, temperature=0, logprobs=3)
    assert [t for chunk in streamed for t in chunk["choices"][0]["logprobs"]["tokens"]] == found["tokens"]
    assert answer["choices"][0]["logprobs"] is not None
    assert ask(client, prompt=prompt, max_tokens=1)["choices"][0]["logprobs"] is None
    drawn = ask(client, prompt=prompt, max_tokens=2, logprobs=0, seed=1)["choices"][0]["logprobs"]
    assert [list(top) for top in drawn["top_logprobs"]] == [[token] for token in drawn["tokens"]]


def test_logprobs_of_a_chat(client):
    asked = {"messages": HELLO, "max_tokens": 4, "temperature": 0, "logprobs": True}
    answer = ask(client, "chat/completions", top_logprobs=2, **asked)
    found, text = answer["choices"][0]["logprobs"]["content"], answer["choices"][0]["message"]["content"]
    assert "".join(one["token"] for one in found) == text
    assert [one["bytes"] for one in found] == [[byte] for byte in text.encode()]
    assert all(one["top_logprobs"][0]["logprob"] == one["logprob"] and len(one["top_logprobs"]) == 2 for one in found)
    assert ask(client, "chat/completions", **asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_tokens_after_a_stop_have_no_logprobs(client, model):
    whole = generated(model, "The state ", tokens=30)[0]
    at = whole.find(whole[5:8])
    answer = ask(client, prompt="The state ", max_tokens=30, temperature=0, stop=whole[5:8], logprobs=0)
    assert answer["choices"][0]["logprobs"]["tokens"] == list(whole[:at])


def test_improbable_tokens_and_parts_of_characters(model):
    tokens = "é\n".encode()

    class Sure(Slow):
        def forward(self, *args, **options):
            logits, state = super().forward(*args, **options)
            logits = torch.full_like(logits, float("-inf"))
            logits[..., tokens[int(state["position"][0]) % 3]] = 1.0
            return logits, state

    with serving(Sure(model.config).eval()) as client:
        found = ask(client, prompt="abc", max_tokens=3, temperature=0, logprobs=2)["choices"][0]
        assert found["text"] == "é\n" and found["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "\n"]
        assert found["logprobs"]["text_offset"] == [3, 3, 4] and found["logprobs"]["token_logprobs"] == [0, 0, 0]
        assert -9999.0 in found["logprobs"]["top_logprobs"][0].values()
        pieces = events(client, prompt="abc", max_tokens=2, temperature=0)
        assert [chunk["choices"][0]["text"] for chunk in pieces] == ["é", ""]


# Refusals


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


# Side by side


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
    model = a_model()
    with serving(model, limits=Limits(10**7)) as client, ThreadPoolExecutor(1) as pool:
        ended = []
        model.gate.clear()
        long = pool.submit(ask, client, prompt="long", max_tokens=300, temperature=0)
        long.add_done_callback(lambda _: ended.append("long"))
        wait(lambda: client.worker.counts()["running"] == 1)
        model.gate.set()
        ask(client, prompt="short", max_tokens=2)
        assert not ended and len(long.result()["choices"][0]["text"]) == 300


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


def wait(until):
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)


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

        await asyncio.wait_for(app(scope, receive, send), 60)

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
        time.sleep(0.05)
        assert len(model.calls) == calls < 10_000
    finally:
        worker.end()
        assert worker.join(30)


def test_a_worker_that_ends_tells_whoever_waits():
    model = a_model()
    with serving(model, parallel=1) as client, ThreadPoolExecutor(2) as pool:
        model.gate.clear()
        asked = [pool.submit(refused, client, prompt="x", status=503) for _ in range(2)]
        wait(lambda: client.worker.counts() == {"running": 1, "waiting": 1})
        client.worker.end()
        assert all("being stopped" in one.result(30)[1] for one in asked)
        assert "being stopped" in refused(client, prompt="x", status=503)[1]


# A process


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
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
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
        yield openai.OpenAI(base_url=url, api_key="none", timeout=60, max_retries=0)


def health(api):
    with urllib.request.urlopen(str(api.base_url).replace("/v1/", "/health"), timeout=30) as answer:
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


def test_a_connection_without_a_request_is_closed(monkeypatch):
    """Whether it says nothing or half a request, first or later; one whose answer takes longer is not."""
    monkeypatch.setattr(server, "SECONDS", 0.05)

    async def app(scope, receive, send):
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def tried():
        config = uvicorn.Config(app, http=server.Protocol, lifespan="off", log_level="warning", timeout_keep_alive=60)
        config.load()
        loop, state = asyncio.get_running_loop(), ServerState()
        listening = await loop.create_server(lambda: server.Protocol(config, state, {}), "127.0.0.1", 0)
        asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        for content, answers in ((b"", 0), (asked[:9], 0), (asked, 1), (asked + asked[:9], 1)):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(content)
            assert (await asyncio.wait_for(reader.read(), 20)).count(b" 204 ") == answers
            writer.close()
        listening.close()

    asyncio.run(tried())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_writes(folder, number):
    with process(folder, "--max-tokens", 10**8) as (running, url):
        body = json.dumps({"model": str(folder), "prompt": "x", "max_tokens": 10**7, "stream": True}).encode()
        request = urllib.request.Request(url + "/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.readline()
            running.send_signal(number)
            assert b"being stopped" in answer.read().splitlines()[-2]
        out, err = running.communicate(timeout=60)
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
