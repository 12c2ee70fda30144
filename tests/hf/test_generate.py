"""`generate` with our cache equals reading everything again at every token, for every preset, padded or not."""

import pytest
import torch

from solomonic import PRESETS
from solomonic.presets import preset

from ..laws.cases import VOCABULARY, assert_close, language_model
from ..laws.cases import tokens as draw
from .models import padded, prompts, wrapped, wrapper_of

transformers = pytest.importorskip("transformers", minversion="5.23")
from solomonic.hf import SolomonicCache  # noqa: E402

NEW = 12
WAYS = {
    "greedy": dict(do_sample=False),
    "sampling": dict(do_sample=True, temperature=0.8, top_k=20, top_p=0.95),
    "beams": dict(do_sample=False, num_beams=3),
    "several": dict(do_sample=True, num_return_sequences=2),
}
LENGTHS = [13, 3, 8]


def generate(model, tokens, mask=None, **settings):
    """Token ids after the prompt, and the logits of each step."""
    torch.manual_seed(0)
    mask = torch.ones_like(tokens) if mask is None else mask
    settings = dict(max_new_tokens=NEW, pad_token_id=0, output_logits=True) | settings
    out = model.generate(tokens, attention_mask=mask, return_dict_in_generate=True, **settings)
    return out.sequences[:, tokens.shape[1] :], torch.stack(out.logits, 1)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PRESETS)
def test_a_cache_is_recomputation(name, way, side):
    model = wrapper_of(name)
    rows = prompts([9, 9, 9] if side == "none" else LENGTHS)
    tokens, mask = padded(rows, "left" if side == "none" else side)
    got, logits = generate(model, tokens, mask, **WAYS[way])
    expected, recomputed = generate(model, tokens, mask, use_cache=False, **WAYS[way])
    assert_close(logits, recomputed, "logits")
    assert torch.equal(got, expected)
    assert len(got.unique()) > 3  # nothing that a model stuck on one token would pass


@pytest.mark.parametrize("side", ["left", "right", "inside"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_padded_row_is_that_row_alone(name, side):
    model, rows = wrapper_of(name), prompts(LENGTHS)
    tokens, mask = padded(rows, side, garbage=7)
    for way in ("greedy", "beams"):
        got, _ = generate(model, tokens, mask, **WAYS[way])
        for i, row in enumerate(rows):
            alone, _ = generate(model, row[None], **WAYS[way])
            assert torch.equal(got[i, : alone.shape[1]], alone[0]), f"{way}, row {i}"


@pytest.mark.parametrize("name", PRESETS)
def test_greedy_is_the_model_token_by_token(name):
    """Against `LanguageModel` itself, without anything of transformers in between."""
    ours = language_model(name=name)
    model = wrapped(ours)
    prompt = draw(1, 9)
    expected = prompt
    with torch.no_grad():
        for _ in range(NEW):
            expected = torch.cat([expected, ours(expected)[0][:, -1:].argmax(-1)], 1)
    got, _ = generate(model, prompt)
    assert torch.equal(got, expected[:, 9:])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bmojo", "transformer", "mamba2"])
def test_the_prompt_in_chunks(name, side):
    """A short row that ends before the last chunk begins goes on from its own last token."""
    model = wrapper_of(name)
    tokens, mask = padded(prompts(LENGTHS), side)
    expected, _ = generate(model, tokens, mask)
    for size in (1, 4, 5, 100):
        got, _ = generate(model, tokens, mask, prefill_chunk_size=size)
        assert torch.equal(got, expected), size


@pytest.mark.parametrize("name", ["bmojo", "transformer"])
def test_going_on_with_a_cache(name):
    """From what a call of `generate` returned, with the whole sequence or the new tokens alone."""
    model, prompt = wrapper_of(name), draw(2, 9)
    settings = dict(do_sample=False, pad_token_id=0, return_dict_in_generate=True)
    whole = model.generate(prompt, max_new_tokens=12, **settings).sequences
    first = model.generate(prompt, max_new_tokens=5, **settings)
    assert isinstance(first.past_key_values, SolomonicCache)
    assert first.past_key_values.get_seq_length() == 9 + 4  # the last token is yet to be read
    rest = model.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=7, **settings)
    assert torch.equal(rest.sequences, whole)
    cache = SolomonicCache()
    model(prompt[:, :6], past_key_values=cache)
    mask = torch.ones(2, 9, dtype=torch.int64)
    got = model.generate(prompt[:, 6:], attention_mask=mask, past_key_values=cache, max_new_tokens=12, **settings)
    assert torch.equal(got.sequences[:, 3:], whole[:, 9:])


def test_the_cache_of_a_bounded_model_does_not_grow():
    model = wrapper_of("bmojo")
    sizes = []
    for new in (2, 60):
        out = model.generate(draw(1, 30), max_new_tokens=new, pad_token_id=0, return_dict_in_generate=True)
        sizes.append(out.past_key_values.nbytes)
    assert sizes[0] == sizes[1] == model.model.state_bytes(1) + 32 * 4 + 2 * 8  # and where the positions are


@pytest.mark.parametrize("name", ["bmojo", "jamba"])
def test_from_embeddings(name):
    model = wrapper_of(name)
    tokens, mask = padded(prompts(LENGTHS), "left")
    expected, _ = generate(model, tokens, mask)
    embeddings = model.get_input_embeddings()(tokens)
    settings = dict(max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(inputs_embeds=embeddings, attention_mask=mask, **settings), expected)


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_what_generate_can_return(way):
    """Scores, hidden states and the cache of each step; beams are rows."""
    model, prompt = wrapper_of("bmojo"), draw(2, 9)
    beams = WAYS[way].get("num_beams", 1)
    flags = dict(output_scores=True, output_hidden_states=True, return_dict_in_generate=True)
    out = model.generate(prompt, max_new_tokens=4, pad_token_id=0, **flags, **WAYS[way])
    assert out.sequences.shape == (2, 13) and len(out.scores) == len(out.hidden_states) == 4
    for step, layers in enumerate(out.hidden_states):
        assert [tuple(x.shape) for x in layers] == [(2 * beams, 1 if step else 9, 32)] * 3
    assert out.past_key_values.batch_size == 2 * beams and out.past_key_values.get_seq_length() == 12


def test_positions_and_a_prompt_of_nothing():
    model = wrapper_of("bmojo")
    tokens, mask = padded(prompts(LENGTHS), "left")
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)
    settings = dict(attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    expected = model.generate(tokens, **settings)
    assert torch.equal(model.generate(tokens, position_ids=positions, **settings), expected)
    alone = model.generate(bos_token_id=5, max_new_tokens=4, do_sample=False, pad_token_id=0)
    given = model.generate(torch.tensor([[5]]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(alone, given)


def test_a_row_that_has_ended_does_not_disturb_the_others():
    model, rows = wrapper_of("bmojo"), prompts(LENGTHS)
    tokens, mask = padded(rows, "left")
    free, _ = generate(model, tokens, mask)
    end = free[1, 4].item()
    ended, _ = generate(model, tokens, mask, eos_token_id=end)
    assert 0 in ended[1]
    for i in range(3):
        stop = (free[i] == end).nonzero()[:1].flatten()
        n = NEW if not len(stop) else stop.item() + 1
        n = min(n, ended.shape[1])
        assert torch.equal(ended[i, :n], free[i, :n])
        assert (ended[i, n:] == 0).all()


def test_streaming():
    class Collect:
        def __init__(self):
            self.tokens = []

        def put(self, value):
            self.tokens.append(value.flatten())

        def end(self):
            self.tokens = torch.cat(self.tokens)

    model, prompt, stream = wrapper_of("samba"), draw(1, 9), Collect()
    out = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0, streamer=stream)
    assert torch.equal(stream.tokens, out[0])


def test_an_empty_prompt_is_refused():
    model, prompt = wrapper_of("mamba2"), draw(2, 4)
    with pytest.raises(ValueError, match="at least one of them"):
        model.generate(prompt[:, :0], max_new_tokens=2)
    with pytest.raises(ValueError, match="got a row of padding; give a prompt"):
        model.generate(prompt, attention_mask=torch.tensor([[1] * 4, [0] * 4]), max_new_tokens=2)


def test_what_takes_back_tokens_is_refused():
    """It takes back what it guessed wrong, which a fading memory cannot: an error, not other tokens."""
    model, prompt = wrapper_of("mamba2"), draw(1, 9)
    with pytest.raises(ValueError, match="assisted generation"):
        model.generate(prompt.repeat(1, 3), max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=3)
    with pytest.raises(ValueError, match="cache_implementation"):
        model.generate(prompt, max_new_tokens=8, cache_implementation="static")


def test_pipeline(tmp_path):
    from solomonic import LanguageModel
    from solomonic.checkpoints import folder
    from solomonic.data.tokenizer import Tokenizer

    torch.manual_seed(0)
    model = LanguageModel(preset("bmojo", vocab_size=257, d_model=32, window=7, capacity=6)).eval()
    folder.save(tmp_path, model, Tokenizer.for_bytes())
    pipe = transformers.pipeline("text-generation", model=str(tmp_path))
    texts = ["abc", "a longer text"]
    together = pipe(texts, max_new_tokens=6, do_sample=False, batch_size=2)
    for text, got in zip(texts, together):
        alone = pipe(text, max_new_tokens=6, do_sample=False)
        assert alone == got and alone[0]["generated_text"].startswith(text)
    assert VOCABULARY < 257
