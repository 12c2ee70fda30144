"""Probabilities of tokens are those of the model."""

import pytest
import torch

from .helpers import HELLO, Gated, ask, events, generated, serving, texts


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

    class Sure(Gated):
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
