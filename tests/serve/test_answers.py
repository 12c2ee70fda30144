"""The server says what `generate` says here: completions and chats, whole or streamed."""

import pytest

from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.serve import Limits, Served
from solomonic.serve.questions import completion

from ..data.test_tokenizer import byte_bpe
from .helpers import BYTES, HELLO, SEEDED, ask, events, generated, refused, serving, texts


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
