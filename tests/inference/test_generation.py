"""Generation on every preset: what is read in parts, in a batch or after a night on disk is what it is at once."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from solomonic import PRESETS
from solomonic.inference.generation import generate, read, stream
from solomonic.inference.sampling import Sampling
from solomonic.inference.sessions import Session, SessionFile

from ..laws.cases import VOCABULARY, language_model, leaves, tokens

presets = pytest.mark.parametrize("name", PRESETS)
WAYS = {"greedy": Sampling(), "sampled": Sampling(1.3, top_k=30, top_p=0.95, seed=5)}
ways = pytest.mark.parametrize("sampling", WAYS.values(), ids=WAYS)


def prompt(length: int, seed: int = 1) -> list[int]:
    return tokens(1, length, seed)[0].tolist()


def text(model, session, sampling, max_tokens=24, **options):
    return [token for token, _, _ in stream(model, session, sampling, max_tokens=max_tokens, **options)]


@presets
@ways
def test_streaming_equals_reading_the_whole_text_for_each_token(name, sampling):
    model, given = language_model(name=name).eval(), prompt(19)
    got = text(model, Session().then(given), sampling)
    expected = list(given)
    with torch.no_grad():
        for _ in got:
            expected.append(sampling.choose(model(torch.tensor([expected]))[0][0, -1], len(expected)))
    assert got == expected[len(given) :] and len(set(got)) > 1


@presets
@ways
def test_a_prompt_in_chunks_is_the_prompt_at_once(name, sampling):
    model, session = language_model(name=name).eval(), Session().then(prompt(40))
    expected = text(model, session, sampling)
    for chunk in (1, 7, 39):
        seen = [s.tokens_read for s in read(model, session, chunk)]
        assert seen == [*range(chunk, 39, chunk), 39]  # the last token is left for `stream`
        assert text(model, session, sampling, chunk=chunk) == expected


@presets
@ways
def test_a_text_in_a_batch_is_the_text_alone(name, sampling):
    model = language_model(name=name).eval()
    prompts = [prompt(n, seed=n) for n in (1, 30, 13, 2, 30)]
    alone = [
        text(model, Session().then(given), replace(sampling, seed=sampling.seed + row))
        for row, given in enumerate(prompts)
    ]
    end = Counter(token for row in alone for token in row).most_common(1)[0][0]
    cut = [row[: row.index(end) + 1] if end in row else row for row in alone]
    assert len({len(row) for row in cut}) > 1  # rows end at different steps
    for chunk in (8, 2048):
        assert generate(model, prompts, sampling, max_tokens=24, chunk=chunk) == alone
        assert generate(model, prompts, sampling, max_tokens=24, ends=(end,), chunk=chunk) == cut


@presets
def test_a_saved_session_goes_on_bit_by_bit(name, tmp_path):
    model, sampling = language_model(name=name).eval(), Sampling(1.0, seed=3)
    file = SessionFile(tmp_path / "session", model)
    session, whole = Session().then(prompt(25)), []
    for token, _, session in stream(model, session, sampling, max_tokens=30):
        whole.append(token)
        if len(whole) == 11:
            file.save(session)
    loaded = SessionFile(tmp_path / "session", model).load()
    assert (loaded.tokens_read, loaded.pending) == (25 + 10, (whole[10],))
    rest = list(stream(model, loaded, sampling, max_tokens=19))
    assert [token for token, *_ in rest] == whole[11:]
    for (what, got), (_, expected) in zip(leaves(rest[-1][2].state), leaves(session.state), strict=True):
        assert torch.equal(got, expected), what
    assert session.state_bytes == model.state_bytes(session.tokens_read)


@presets
def test_an_earlier_session_is_a_place_to_go_back_to(name):
    model = language_model(name=name).eval()
    sessions = [s for *_, s in stream(model, Session().then(prompt(9)), Sampling(), max_tokens=8)]
    first = text(model, sessions[2], Sampling(), max_tokens=5)
    assert first == [s.pending[0] for s in sessions[3:]]
    list(stream(model, sessions[2].then(prompt(12)), Sampling(), max_tokens=5))
    assert text(model, sessions[2], Sampling(), max_tokens=5) == first


def test_the_end_stops_the_text_and_is_its_last_token():
    model, session = language_model(name="bmojo").eval(), Session().then(prompt(9))
    whole = text(model, session, Sampling(1.0))
    end = whole[10]
    assert text(model, session, Sampling(1.0), ends=(end,)) == whole[: whole.index(end) + 1]
    assert text(model, session, Sampling(1.0), max_tokens=0) == []
    assert generate(model, [prompt(3)], max_tokens=0) == [[]] and generate(model, [], max_tokens=5) == []


def test_each_token_is_read_once(monkeypatch):
    model, seen = language_model(name="bmojo").eval(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    (*_, (_, _, session)) = stream(model, Session().then(prompt(50)), Sampling(), max_tokens=10, chunk=20)
    assert seen == [20, 20, 9, *[1] * 10]
    seen.clear()
    text(model, session.then(prompt(5)), Sampling(), max_tokens=3)
    assert seen == [5, 1, 1, 1]


def test_logits_of_a_chunk_stay_small(monkeypatch):
    monkeypatch.setattr("solomonic.inference.generation.LOGITS", 10 * VOCABULARY)
    model, seen = language_model(name="mamba2").eval(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    expected = text(model, Session().then(prompt(21)), Sampling(), max_tokens=1)
    assert [shape[1] for shape in seen] == [10, 10, 1]
    seen.clear()
    assert generate(model, [prompt(21)] * 4, max_tokens=1) == [expected] * 4
    assert max(shape[0] * shape[1] for shape in seen) <= 10


def draws(sampling: Sampling, logits, count: int = 4000) -> Counter:
    return Counter(sampling.choose(logits, position) for position in range(count))


def test_temperature_zero_is_the_likeliest():
    logits = torch.tensor([0.1, 2.0, 1.9, -4.0])
    assert draws(Sampling(0.0, seed=3), logits, 50) == {1: 50}
    assert draws(Sampling(1e-300, seed=3), logits, 50) == {1: 50}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_the_probabilities(temperature):
    logits = torch.tensor([1.0, -0.5, 0.3, 2.0, -9.0])
    got = draws(Sampling(temperature, seed=1), logits)
    for token, probability in enumerate((logits / temperature).softmax(0).tolist()):
        assert abs(got[token] / 4000 - probability) < 5 * (probability * (1 - probability) / 4000) ** 0.5 + 1e-9


def test_top_k_and_top_p_leave_the_tail_out():
    logits = torch.log(torch.tensor([0.05, 0.4, 0.25, 0.2, 0.1]))
    assert set(draws(Sampling(1.0), logits)) == {0, 1, 2, 3, 4}
    assert set(draws(Sampling(1.0, top_k=3), logits)) == {1, 2, 3}
    assert set(draws(Sampling(1.0, top_k=1), logits)) == {1}
    assert set(draws(Sampling(1.0, top_k=99), logits)) == {0, 1, 2, 3, 4}
    assert set(draws(Sampling(1.0, top_p=0.39), logits)) == {1}
    assert set(draws(Sampling(1.0, top_p=0.66), logits)) == {1, 2, 3}  # the one that crosses is in
    assert set(draws(Sampling(1.0, top_k=3, top_p=0.75), logits)) == {1, 2}  # of what top_k leaves: 0.47 + 0.29
    got = draws(Sampling(1.0, top_k=2), logits)
    assert abs(got[1] / 4000 - 0.4 / 0.65) < 0.04


def test_the_seed_decides():
    model, session = language_model(name="mamba2").eval(), Session().then(prompt(9))
    drawn = [tuple(text(model, session, Sampling(1.0, seed=seed))) for seed in (0, 0, 1, 2, 1 << 70)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4


@pytest.mark.parametrize(
    "settings, says",
    [
        (dict(temperature=-1.0), "temperature: expected a number >= 0, got -1.0"),
        (dict(temperature=float("nan")), "temperature: expected a number >= 0, got nan"),
        (dict(top_k=0), "top_k: expected a whole number >= 1, got 0"),
        (dict(top_p=0.0), "top_p: expected 0 < top_p <= 1, got 0.0"),
        (dict(top_p=1.1), "top_p: expected 0 < top_p <= 1, got 1.1"),
    ],
)
def test_settings_of_sampling_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        Sampling(**settings)


def test_nothing_to_go_on_from():
    model = language_model(name="mamba2")
    with pytest.raises(ValueError, match="at least one token"):
        text(model, Session(), Sampling())
    with pytest.raises(ValueError, match="at least one token"):
        generate(model, [[1], []], max_tokens=3)
    with pytest.raises(ValueError, match=r"values in \[0, 50\)"):
        text(model, Session().then([1, 2, 50, 3]), Sampling())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_overflows_is_named(value):
    model = language_model(name="mamba2").eval()
    with torch.no_grad():
        model.head.weight[3] = value
    with pytest.raises(ValueError, match="expected finite logits"):
        text(model, Session().then(prompt(4)), Sampling(0.7))
