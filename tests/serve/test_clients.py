"""What clients of OpenAI's API expect of the server: served, or refused with the reason."""

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.data.tokenizer import Tokenizer

from ..data.test_tokenizer import byte_bpe
from .helpers import ask, events, generated, refused, serving, texts


def log_p(model, tokens):
    """ln p of each token after the first, from one reading of all."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens]))[0][0, :-1].double().log_softmax(-1)
    return logits, logits.gather(1, torch.tensor(tokens)[1:, None])[:, 0].tolist()


@pytest.mark.parametrize("prompt", ["The state of things", [*b"The state"]])
def test_a_prompt_is_echoed_with_what_the_model_foretold(client, model, prompt):
    tokens = [*prompt.encode()] if isinstance(prompt, str) else prompt
    said = ask(client, prompt=prompt, echo=True, logprobs=2, max_tokens=5, temperature=0)
    choice, text = said["choices"][0], bytes(tokens).decode()
    answer = generated(model, text, tokens=5)[0]
    assert choice["text"] == text + answer and choice["finish_reason"] == "length"
    named = choice["logprobs"]
    assert named["tokens"] == list(text + answer) and named["text_offset"] == [*range(len(text + answer))]
    logits, expected = log_p(model, tokens + [*answer.encode()])
    assert named["token_logprobs"][0] is named["top_logprobs"][0] is None
    assert named["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    for top, row in zip(named["top_logprobs"][1:], logits):
        assert max(top.values()) == pytest.approx(row.max().item(), abs=1e-4) and 2 <= len(top) <= 3
    assert said["usage"] == {"prompt_tokens": len(tokens), "completion_tokens": 5, "total_tokens": len(tokens) + 5}


def test_an_echo_of_every_prompt_and_answer_whole_and_streamed(client, model):
    settings = dict(prompt=["ab", "The state "], echo=True, n=2, max_tokens=4, temperature=0)
    alone = [one + generated(model, one, tokens=4)[0] for one in ("ab", "ab", "The state ", "The state ")]
    assert texts(ask(client, **settings)) == alone
    parts = ["", "", "", ""]
    for chunk in events(client, **settings):
        parts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert parts == alone


def test_a_prompt_alone_is_scored(client, model):
    """As lm-evaluation-harness asks: token ids, and nothing written."""
    tokens = [*b"one two three"]
    said = ask(client, prompt=[tokens], echo=True, logprobs=1, max_tokens=0)["choices"][0]
    assert said["text"] == "one two three" and said["finish_reason"] == "length"
    assert said["logprobs"]["token_logprobs"][1:] == pytest.approx(log_p(model, tokens)[1], abs=1e-4)
    long = [*b"a long prompt, which is read in parts. " * 20]
    said = ask(client, prompt=long, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    assert said["token_logprobs"][1:] == pytest.approx(log_p(model, long)[1], abs=1e-3)
    assert said["text_offset"] == [*range(len(long))]
    plain = ask(client, prompt="ab", echo=True, max_tokens=0)["choices"][0]
    assert (plain["text"], plain["logprobs"]) == ("ab", None)


def test_tokens_of_several_characters_say_where_they_begin(model):
    tokenizer = Tokenizer(byte_bpe())
    torch.manual_seed(0)
    wide = LanguageModel(preset("mamba2", vocab_size=tokenizer.vocab_size, d_model=32, n_layers=1)).eval()
    wide.gate = model.gate
    with serving(wide, tokenizer) as client:
        text = "the cat sat, 日本 on the mat"
        said = ask(client, prompt=text, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    assert len(said["text_offset"]) == len(pieces) < len(text.encode())
    for begins, piece in zip(said["text_offset"], pieces):
        assert "\ufffd" in piece or text[begins:].startswith(piece)


def test_a_stop_that_is_a_special_token(model):
    """It ends an answer, though it gives no text; and where it is a part of a text it is refused."""
    with serving(model) as client:
        words = dict(prompt="x", max_tokens=12, temperature=0)
        whole = texts(ask(client, **words))[0]
        assert texts(ask(client, **words, stop=["<|end|>", whole[5:7]])) == [whole[: whole.index(whole[5:7])]]
        assert refused(client, prompt="x", stop="a<|end|>")[0] == "stop"
    tokenizer = Tokenizer.for_bytes()
    tokenizer.specials |= {"<turn>": ord(whole[4])}
    with serving(model, tokenizer) as client:
        choice = ask(client, **words, stop="<turn>")["choices"][0]
        assert choice["text"] == whole[: whole.index(whole[4])] and choice["finish_reason"] == "stop"


def test_a_model_ends_where_it_says(model):
    whole = generated(model, "x", tokens=12)[0]
    tokenizer = Tokenizer(Tokenizer.for_bytes().inner, [256, ord(whole[4])])
    with serving(model, tokenizer) as client:
        choice = ask(client, prompt="x", max_tokens=12, temperature=0)["choices"][0]
        assert choice["text"] == whole[: whole.index(whole[4])] and choice["finish_reason"] == "stop"
        messages = [{"role": "user", "content": "x"}]
        chat = ask(client, "chat/completions", messages=messages, max_tokens=40, temperature=0)["choices"][0]
        assert whole[4] not in chat["message"]["content"]


@pytest.mark.parametrize(
    "path, says",
    [
        ("/v1/embeddings", "no embeddings"),
        ("/v1/responses", "ask /v1/chat/completions"),
        ("/v1/completions/", "ask /v1/completions"),
        ("/chat/completions", "base URL ends in /v1"),
        ("/v1/moderations", "which has GET /health"),
    ],
)
def test_what_is_not_served_is_refused_with_the_reason(client, path, says):
    answer = client.post(path, json={"model": "m", "input": "x"})
    error = answer.json()["error"]
    assert answer.status_code == 404 and error["code"] == "unknown_url" and says in error["message"], error


def test_an_empty_prompt_is_refused(client):
    for prompt in ("", [""], ["a", ""], [[]], [[97], []], []):
        field, message = refused(client, prompt=prompt)
        assert field == "prompt" and "expected" in message
