"""An answer ends at a stop, at the end of a document, and where the user would speak."""

import pytest
import torch

from solomonic.inference.generation import generate
from solomonic.inference.sampling import Sampling
from solomonic.serve.answers import Until

from .helpers import HELLO, Gated, a_model, ask, events, generated, serving, texts


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
    class Said(Gated):
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
