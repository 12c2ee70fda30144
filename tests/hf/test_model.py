"""The wrapper is the model: same files, same logits, and the conventions of transformers."""

import copy
import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from solomonic import PRESETS, LanguageModel, preset
from solomonic.checkpoints import folder
from solomonic.data.tokenizer import Tokenizer

from ..laws.cases import VOCABULARY, assert_close, assert_same_state, language_model
from ..laws.cases import tokens as draw
from .models import padded, prompts, wrapped, wrapper_of

transformers = pytest.importorskip("transformers", minversion="5.23")
from solomonic.hf import SolomonicCache, SolomonicConfig, SolomonicForCausalLM  # noqa: E402


def saved(path, name="bmojo", tied=False, dtype=torch.float32, **dials):
    torch.manual_seed(0)
    dials = dict(vocab_size=257, d_model=32, window=7, capacity=6, tie_embeddings=tied) | dials
    model = LanguageModel(preset(name, **dials)).to(dtype).eval()
    folder.save(path, model, Tokenizer.for_bytes())
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_folders_go_both_ways(tmp_path, name, tied):
    model = saved(tmp_path / "ours", name, tied)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert isinstance(theirs, SolomonicForCausalLM)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    again, _ = folder.load(tmp_path / "theirs")
    assert again.config == model.config
    assert (again.head.weight is again.embedding.weight) == tied
    x = draw(2, 20)
    expected = model(x)[0]
    assert torch.equal(theirs(x).logits, expected)
    assert torch.equal(again(x)[0], expected)


def test_the_files_are_those_of_folder(tmp_path):
    from safetensors.torch import load_file

    model = saved(tmp_path / "ours", tied=True)
    theirs = SolomonicForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours, written = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert ours.keys() == written.keys() and all(torch.equal(ours[key], written[key]) for key in ours)
    ours, written = (json.loads((tmp_path / side / "config.json").read_text()) for side in ("ours", "theirs"))
    assert {key: written[key] for key in ours} == ours
    assert SolomonicConfig.from_pretrained(tmp_path / "theirs").language_model() == model.config


def test_the_tokenizer_is_that_of_the_folder(tmp_path):
    saved(tmp_path)
    tokenizer, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    for text in ("a line\n", "héllo wörld", "\x00\x7f 漢字 🙂", ""):
        assert tokenizer(text).input_ids == ours.encode(text).tolist()
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == ours.end
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == "user: hi\nassistant: "


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype(tmp_path, dtype):
    model = saved(tmp_path, dtype=dtype)
    assert SolomonicForCausalLM.from_pretrained(tmp_path).dtype == dtype
    theirs = SolomonicForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert all(p.dtype == torch.float32 for p in theirs.parameters())
    assert torch.equal(theirs(draw(1, 9)).logits, folder.load(tmp_path, dtype=torch.float32)[0](draw(1, 9))[0])
    half = SolomonicForCausalLM.from_pretrained(tmp_path, torch_dtype=dtype)
    assert torch.equal(half(draw(1, 9)).logits, model(draw(1, 9))[0])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_padding_changes_no_logits(name, side):
    model, rows = wrapper_of(name), prompts([11, 4, 7])
    tokens, mask = padded(rows, side, garbage=3)
    logits = model(tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0)).logits
    for i, row in enumerate(rows):
        alone = model(row[None]).logits[0]
        assert_close(logits[i, mask[i].bool()], alone, f"row {i}")
        if side == "right":
            assert_close(logits[i, -1], alone[-1], f"padding of row {i}")


@pytest.mark.parametrize("name", PRESETS)
def test_a_cache_passed_on_changes_no_logits(name):
    """In chunks, padded ones among them, where a row may have ended in a chunk before."""
    model, rows = wrapper_of(name), prompts([11, 3, 7])
    for side in ("left", "right"):
        tokens, mask = padded(rows, side)
        cache, logits = SolomonicCache(), []
        for begin, end in ((0, 4), (4, 8), (8, 11)):
            if side == "left":  # the mask of all columns so far, as `generate` passes it
                out = model(tokens[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache)
            else:
                out = model(tokens[:, begin:end], attention_mask=mask[:, begin:end], past_key_values=cache)
            logits.append(out.logits)
            assert out.past_key_values is cache
        logits = torch.cat(logits, 1)
        whole = model(tokens, attention_mask=mask)
        assert_close(logits[mask.bool()], whole.logits[mask.bool()], f"logits, {side}")
        assert_close(logits[:, -1], whole.logits[:, -1], f"last logits, {side}")
        assert_same_state(cache.state, whole.past_key_values.state, side)
        assert cache.get_seq_length() == 11


@pytest.mark.parametrize("name", PRESETS)
def test_packed_documents(name):
    """Positions that restart, or numbers of documents: what each gives alone."""
    model, rows = wrapper_of(name), prompts([6, 1, 9])
    tokens = torch.cat(rows)[None]
    position_ids = torch.cat([torch.arange(len(row)) for row in rows])[None]
    seq_idx = torch.cat([torch.full((len(row),), i) for i, row in enumerate(rows)])[None].int()
    alone = torch.cat([model(row[None]).logits[0] for row in rows])
    assert_close(model(tokens, position_ids=position_ids).logits[0], alone, "position_ids")
    assert_close(model(tokens, seq_idx=seq_idx).logits[0], alone, "seq_idx")
    head = model(tokens[:, :8], position_ids=position_ids[:, :8], use_cache=True)
    tail = model(tokens[:, 8:], position_ids=position_ids[:, 8:], past_key_values=head.past_key_values)
    assert_close(torch.cat([head.logits, tail.logits], 1)[0], alone, "with a cache")
    again = model(tokens[:, 7:], position_ids=position_ids[:, 7:], past_key_values=head.past_key_values)
    assert_close(again.logits[0], alone[7:], "a document begun by the first token of a call")


def test_packing_with_padding():
    model, rows = wrapper_of("bmojo"), prompts([6, 5, 4])
    tokens = torch.stack([torch.cat([rows[0], rows[1]]), torch.cat([rows[2], torch.zeros(7, dtype=torch.int64)])])
    mask = torch.tensor([[1] * 11, [1] * 4 + [0] * 7])
    positions = torch.stack([torch.tensor([*range(6), *range(5)]), torch.tensor([*range(4)] + [0] * 7)])
    logits = model(tokens, attention_mask=mask, position_ids=positions).logits
    for got, row in ((logits[0, :6], rows[0]), (logits[0, 6:], rows[1]), (logits[1, :4], rows[2])):
        assert_close(got, model(row[None]).logits[0], "logits")


def test_the_collator_for_packing():
    model = wrapper_of("bmojo")
    rows = prompts([6, 4, 9])
    collate = transformers.DataCollatorWithFlattening(return_tensors="pt", return_seq_idx=True)
    batch = collate([{"input_ids": row.tolist()} for row in rows])
    alone = [model(row[None], labels=row[None]).loss * (len(row) - 1) for row in rows]
    expected = sum(alone) / sum(len(row) - 1 for row in rows)
    assert_close(model(**batch).loss, expected, "loss")
    batch.pop("seq_idx")
    assert_close(model(**batch).loss, expected, "loss without seq_idx")


def test_loss():
    model, x = wrapper_of("bmojo"), draw(2, 9)
    labels = x.clone()
    labels[:, :4] = -100
    logits = model(x).logits
    expected = cross_entropy(logits[:, 3:-1].flatten(0, 1), x[:, 4:].flatten())
    assert_close(model(x, labels=labels).loss, expected, "loss")
    counted = model(x, labels=labels, num_items_in_batch=torch.tensor(40)).loss
    assert_close(counted, expected * 10 / 40, "loss of a part of a batch")
    assert_close(model(x, labels=labels, shift_labels=x).loss, cross_entropy(logits.mT, x), "labels already shifted")
    assert_close(model(x, shift_labels=x).loss, cross_entropy(logits.mT, x), "shifted labels alone")
    assert model(x).loss is None


def test_logits_to_keep_and_hidden_states():
    model = wrapper_of("samba")
    tokens, mask = padded(prompts([7, 4]), "left")
    out = model(tokens, attention_mask=mask, output_hidden_states=True)
    assert_close(model(tokens, attention_mask=mask, logits_to_keep=1).logits, out.logits[:, -1:], "the last logits")
    assert len(out.hidden_states) == 3 and all(x.shape == (2, 7, 32) for x in out.hidden_states)
    assert_close(model.model.head(out.hidden_states[-1]), out.logits, "logits")
    scale = model.model.config.embedding_scale
    assert_close(out.hidden_states[0][1, 3:], model.get_input_embeddings()(tokens[1, 3:]) * scale, "embeddings")
    alone = model(tokens[1:, 3:], output_hidden_states=True).hidden_states
    for got, expected in zip(out.hidden_states, alone):
        assert_close(got[1, 3:], expected[0], "hidden states of a padded row")


@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_gradients_reach_the_hidden_states(side):
    model = wrapper_of("samba")
    tokens, mask = padded(prompts([7, 4]), side)
    out = model(tokens, attention_mask=mask, output_hidden_states=True)
    for x in out.hidden_states:
        x.retain_grad()
    assert_close(out.logits, model(tokens, attention_mask=mask).logits, "logits")
    out.logits[mask.bool()].square().sum().backward()
    for x in out.hidden_states:
        assert (x.grad[mask.bool()].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("name", ["bmojo", "transformer"])
def test_embeddings_instead_of_tokens(name):
    model = wrapper_of(name)
    tokens, mask = padded(prompts([7, 4]), "left")
    embeddings = model.get_input_embeddings()(tokens)
    embeddings[mask == 0] = torch.nan
    got = model(inputs_embeds=embeddings, attention_mask=mask).logits
    expected = model(tokens, attention_mask=mask).logits
    assert torch.equal(got[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("tied", [True, False])
def test_resize_token_embeddings(tmp_path, tied):
    torch.manual_seed(0)
    model = wrapped(LanguageModel(preset("bmojo", vocab_size=50, d_model=32, window=7, tie_embeddings=tied)))
    x = draw(2, 9)
    before = model(x).logits
    for size in (57, 64, 50):
        model.resize_token_embeddings(size)
        assert model.config.vocab_size == model.config.model["vocab_size"] == model.model.config.vocab_size == size
        assert (model.model.head.weight is model.model.embedding.weight) == tied
        assert model.model.head.weight.shape == (size, 32)
        assert_close(model(x).logits[..., :50], before, "logits")
    model.resize_token_embeddings(60, mean_resizing=False)
    assert model.model.embedding.weight[50:].std() < 2 * 32**-0.5
    model(torch.tensor([[59]]))
    with pytest.raises(ValueError, match=r"\[0, 60\)"):
        model(torch.tensor([[60]]))
    model.save_pretrained(tmp_path)
    assert torch.equal(SolomonicForCausalLM.from_pretrained(tmp_path)(x).logits, model(x).logits)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_gradient_checkpointing(name, reentrant):
    model = wrapper_of(name).train()
    tokens, mask = padded(prompts([12, 7]), "left")
    labels = tokens.masked_fill(mask == 0, -100)

    def gradients():
        model.zero_grad()
        model(tokens, attention_mask=mask, labels=labels).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected, calls = gradients(), []
    for block in model.model.blocks:
        block.mixer_norm.register_forward_hook(lambda *_: calls.append(1))
    gradients()
    assert len(calls) == 2
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    calls.clear()
    got = gradients()
    assert len(calls) == 4  # each block once more, backward
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(got[name], gradient, name)
    model.activation_checkpointing_disable()
    calls.clear()
    gradients()
    assert len(calls) == 2


@torch.no_grad()
def test_cache_is_the_state():
    ours = language_model(name="bmojo")
    model = wrapped(ours)
    x = draw(2, 9)
    cache = model(x, use_cache=True).past_key_values
    _, state = ours(x)
    assert_same_state(cache.state, state, "state")
    assert cache.batch_size == 2 and len(cache) == 2 and cache.is_initialized and not cache.is_croppable
    for length in (9, 200):
        cache = model(draw(2, length), use_cache=True).past_key_values
        assert cache.nbytes == model.model.state_bytes(length, batch=2) + 2 * 32 * 4
    kept = copy.deepcopy(cache)
    model(x, past_key_values=cache)
    assert cache.get_seq_length() == 209 and kept.get_seq_length() == 200
    kept.reset()
    assert kept.get_seq_length() == kept.nbytes == 0 and kept.batch_size == -1 and not kept.is_initialized


@pytest.mark.parametrize("name", ["transformer", "bmojo", "gated_kalmanet"])
def test_rows_of_a_cache(name):
    """Chosen, repeated and reordered rows go on as they would alone."""
    model, x, more = wrapper_of(name), draw(3, 9), draw(4, 3, seed=5)
    changes = {
        "reorder_cache": (torch.tensor([2, 0, 0, 1]), [2, 0, 0, 1]),
        "batch_select_indices": (torch.tensor([1, 1, 0, 2]), [1, 1, 0, 2]),
    }
    for method, (argument, rows) in changes.items():
        cache = model(x, use_cache=True).past_key_values
        getattr(cache, method)(argument)
        got = model(more, past_key_values=cache).logits
        assert_close(got, model(torch.cat([x[rows], more], 1)).logits[:, 9:], method)
    cache = model(x[:2], use_cache=True).past_key_values
    cache.batch_repeat_interleave(2)
    got = model(more, past_key_values=cache).logits
    assert_close(got, model(torch.cat([x[[0, 0, 1, 1]], more], 1)).logits[:, 9:], "batch_repeat_interleave")
    cache.crop(0)
    with pytest.raises(ValueError, match="crop: expected 0 tokens"):
        cache.crop(-1)


def test_a_model_in_training_keeps_no_state_unless_asked():
    model = wrapper_of("mamba2")
    x = draw(1, 5)
    assert model(x).past_key_values is not None
    assert model(x, use_cache=False).past_key_values is None
    model.train()
    assert model(x).past_key_values is None
    state = model(x, use_cache=True).past_key_values.state
    assert state["layers"][0]["ssm"].requires_grad


def test_initial_values_are_those_of_the_model():
    """Also where a checkpoint lacks them: then they are drawn by `_init_weights` alone."""
    config = preset("bmojo", vocab_size=50, d_model=32, score="learned")
    ours = LanguageModel(config).state_dict()
    fresh = SolomonicForCausalLM.from_pretrained(None, config=SolomonicConfig(config), state_dict={})
    for wrapper in (SolomonicForCausalLM(SolomonicConfig(config)), fresh):
        for name, got in wrapper.model.state_dict().items():
            assert got.device.type == "cpu" and got.isfinite().all(), name
            if ours[name].numel() > 99:
                assert ours[name].std() / 2 <= got.std() <= 2 * ours[name].std(), name
    wrapper = SolomonicForCausalLM(SolomonicConfig(config))
    torch.manual_seed(3)
    wrapper._init_weights(wrapper.model)
    torch.manual_seed(3)
    expected = LanguageModel(config).state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in wrapper.model.state_dict().items())


def test_configuration():
    model = preset("bmojo", vocab_size=50, d_model=32)
    config = SolomonicConfig(model, eos_token_id=3)
    assert config.language_model() == model
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (50, 32, 2)
    assert SolomonicConfig(**config.to_dict()).to_dict() == config.to_dict()
    assert SolomonicConfig(model.to_dict()).language_model() == model
    config.tie_word_embeddings = True
    assert config.language_model().tie_embeddings
    for wrong, says in (
        (SolomonicConfig, "model: expected a ModelConfig"),
        (lambda: SolomonicConfig({"vocab": 3}), "vocab_size"),
        (lambda: SolomonicConfig(model, vocab_size=7), "vocab_size: expected 50"),
        (lambda: setattr(config, "num_hidden_layers", 5), "num_hidden_layers: expected 2"),
    ):
        with pytest.raises(ValueError, match=says):
            wrong()


def test_what_it_refuses():
    model, x = wrapper_of("bmojo"), draw(2, 5)
    for arguments, says in (
        (dict(), "input_ids or inputs_embeds"),
        (dict(input_ids=x, inputs_embeds=model.model.embed(x)), "input_ids or inputs_embeds"),
        (dict(input_ids=x[:, :0]), "at least one of them"),
        (dict(inputs_embeds=model.model.embed(x)[:, :0]), "at least one of them"),
        (dict(input_ids=x, attention_mask=torch.ones(2, 7)), "attention_mask: expected"),
        (dict(input_ids=x, attention_mask=torch.ones(2, 1, 5, 5)), "attention_mask: expected"),
        (dict(input_ids=x, past_key_values=transformers.DynamicCache()), "expected a SolomonicCache"),
        (dict(input_ids=x, output_attentions=True), "output_attentions"),
        (dict(input_ids=x, atention_mask=x), "attention_mask|atention_mask"),
        (dict(input_ids=x + 50), "tokens: expected values"),
        (dict(input_ids=x, seq_idx=torch.tensor([[1, 0, 0, 0, 0]])), "never decrease"),
        (dict(inputs_embeds=torch.zeros(2, 5, 31)), "embeddings: expected"),
    ):
        with pytest.raises(ValueError, match=says):
            model(**arguments)
    assert VOCABULARY == 50 and model(x, token_type_ids=None).logits.shape == (2, 5, 50)  # asks for nothing


def test_importing_again_changes_nothing():
    import importlib

    import solomonic.hf

    importlib.reload(solomonic.hf)
    assert transformers.AutoConfig.for_model("solomonic", model=language_model(name="mamba2").config).vocab_size == 50


def broken(kind, path, tensors):
    """Break the folder in one way; what the error says of it."""
    from safetensors.torch import save_file

    weights, config = path / "model.safetensors", path / "config.json"
    settings = json.loads(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
        return "cannot be read"
    if kind == "a tensor too few":
        save_file({name: x for name, x in tensors.items() if "mlp.up" not in name}, weights)
        return r"model.blocks.0.mlp.up.weight is not there \(2 such"
    if kind == "a tensor too many":
        save_file(tensors | {"model.extra": torch.zeros(3)}, weights)
        return "model.extra has no place"
    if kind == "another size":
        save_file(tensors | {"model.embedding.weight": torch.zeros(9, 32)}, weights)
        return "ignore_mismatched_sizes"
    if kind == "a pickle":
        weights.unlink()
        torch.save(tensors, path / "pytorch_model.bin")
        return "no file named model.safetensors"
    if kind == "no model":
        config.write_text(json.dumps({key: value for key, value in settings.items() if key != "model"}))
        return "model: expected"
    if kind == "another vocabulary":
        config.write_text(json.dumps(settings | {"vocab_size": 9}))
        return "vocab_size: expected 257"
    config.write_text(config.read_text()[:20])
    return "not a valid JSON"


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "a tensor too few",
        "a tensor too many",
        "another size",
        "a pickle",
        "no model",
        "another vocabulary",
        "half a configuration",
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_that_is_not_whole(tmp_path, kind, tied):
    from safetensors.torch import load_file

    saved(tmp_path, tied=tied)
    says = broken(kind, tmp_path, load_file(tmp_path / "model.safetensors"))
    with pytest.raises((ValueError, OSError, RuntimeError), match=says):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
