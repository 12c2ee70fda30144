"""A model behind HTTP in this process, and ways to ask it."""

import json
import threading
import time
from contextlib import contextmanager

import torch
from starlette.testclient import TestClient

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import CHAT
from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.generation import generate
from solomonic.inference.sampling import Sampling
from solomonic.serve import Limits, Served, Worker, application

BYTES = Tokenizer.for_bytes()
HUNG = 300  # seconds after which it is no busy machine that keeps a test waiting


class Gated(LanguageModel):
    """Counts its calls, and waits in each while its gate is shut; it shuts that itself before call `shuts_at`."""

    def __init__(self, config):
        super().__init__(config)
        self.calls, self.gate, self.shuts_at = [], threading.Event(), None
        self.gate.set()

    def forward(self, tokens, *args, **options):
        if len(self.calls) == self.shuts_at:
            self.gate.clear()
        self.gate.wait(HUNG)
        self.calls.append(tokens.shape[1])
        return super().forward(tokens, *args, **options)


def a_model():
    torch.manual_seed(0)
    model = Gated(preset("bmojo", vocab_size=257, d_model=32, n_layers=2, window=8, capacity=4)).eval()
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
        assert worker.join(HUNG)


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


def wait(until):
    """Until it is so; what is not so after minutes never will be."""
    end = time.monotonic() + HUNG
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)
