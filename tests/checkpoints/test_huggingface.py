"""Folders that `transformers` wrote: equal logits, whole and token by token, and what may differ between folders."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from solomonic.checkpoints.formats import FORMATS, llama, read_folder

from ..laws.cases import assert_close
from .models import CASES, LLAMA3, assert_same_logits, edit, ours_of, theirs_of, tokens


@pytest.mark.parametrize("case", CASES)
def test_logits(case, tmp_path):
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(ours_of(tmp_path), theirs)


@pytest.mark.parametrize("case", ["Llama 3", "Mistral", "Qwen2, windows", "Qwen3", "Mamba-2, groups, tied"])
@torch.no_grad()
def test_greedy_generation(case, tmp_path):
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    ours, prompt = ours_of(tmp_path), tokens(9)
    expected = theirs.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)
    got, state, new = [prompt], None, prompt
    for _ in range(20):
        logits, state = ours(new, state)
        new = logits[:, -1:].argmax(-1)
        got.append(new)
    assert torch.equal(torch.cat(got, 1), expected)


def same_reading(got, expected):
    assert got[0] == expected[0] and got[1].keys() == expected[1].keys()
    assert all(torch.equal(got[1][name], tensor) for name, tensor in expected[1].items())


@pytest.mark.parametrize("case", ["Llama", "Llama 3", "Qwen3", "Mistral"])
def test_names_of_transformers_4(case, tmp_path):
    theirs_of(case).save_pretrained(tmp_path)
    expected = read_folder(tmp_path)
    rope = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    base = rope.pop("rope_theta")
    scaling = rope if case == "Llama 3" else None
    edit(tmp_path, ["rope_parameters", "dtype"], rope_theta=base, rope_scaling=scaling, torch_dtype="float32")
    same_reading(read_folder(tmp_path), expected)


def test_windows_of_qwen_without_a_list_of_layers(tmp_path):
    theirs_of("Qwen2, windows").save_pretrained(tmp_path)
    config, _ = expected = read_folder(tmp_path)
    assert [layer.window for layer in config.layers] == [None, 7, 7]
    edit(tmp_path, ["layer_types"])
    same_reading(read_folder(tmp_path), expected)


def test_infinity_as_transformers_4_writes_it(tmp_path):
    theirs_of("Mamba-2").save_pretrained(tmp_path)
    expected = read_folder(tmp_path)
    assert expected[0].layers[0].time_step_limit is None
    edit(tmp_path, time_step_limit=[0.0, float("inf")])
    assert "Infinity]" in (tmp_path / "config.json").read_text()
    same_reading(read_folder(tmp_path), expected)


def test_what_a_config_may_leave_out(tmp_path):
    """Llama-2's first files say nothing of rotary positions, biases or the size of heads."""
    theirs = theirs_of("Llama")
    theirs.save_pretrained(tmp_path)
    expected = read_folder(tmp_path)
    edit(tmp_path, ["rope_parameters", "attention_bias", "mlp_bias", "head_dim", "tie_word_embeddings", "hidden_act"])
    same_reading(read_folder(tmp_path), expected)


@pytest.mark.parametrize("family", llama.FAMILIES)
def test_what_stands_for_an_absent_setting(family):
    transformers = pytest.importorskip("transformers", minversion="5.23")
    fields = type(transformers.AutoConfig.for_model(family)).__dataclass_fields__
    read = fields.keys() & {"num_key_value_heads", "head_dim", "sliding_window", "max_window_layers"}
    defaults = {name: fields[name].default for name in read}
    assert {name: value for name, value in defaults.items() if value is not None} == llama.FAMILIES[family]


def test_embeddings_named_as_the_authors_name_them(tmp_path):
    theirs_of("Mamba-2").save_pretrained(tmp_path)
    expected, path = read_folder(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({name.replace("embeddings", "embedding"): tensor for name, tensor in tensors.items()}, path)
    same_reading(read_folder(tmp_path), expected)


@pytest.mark.parametrize("case", ["Qwen3", "Mamba-2"])
def test_bfloat16(case, tmp_path):
    """Tensors keep their type; a float32 model takes them exactly, a bfloat16 one computes as theirs does, nearly."""
    theirs = theirs_of(case).bfloat16()
    theirs.save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in read_folder(tmp_path)[1].values()} == {torch.bfloat16}
    ours = ours_of(tmp_path)
    assert_same_logits(ours, type(theirs).from_pretrained(tmp_path, dtype=torch.float32))
    theirs = type(theirs).from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        got, expected = ours.bfloat16()(tokens())[0], theirs(tokens(), use_cache=False).logits
    assert got.dtype == torch.bfloat16
    assert_close(got.float(), expected.float(), "logits in bfloat16", 0.05)


@pytest.mark.parametrize("case", ["Qwen2", "Mamba-2"])
def test_shards(case, tmp_path):
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "cut", max_shard_size="8KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    same_reading(read_folder(tmp_path / "cut"), read_folder(tmp_path / "whole"))


def test_a_tied_head_may_be_there(tmp_path):
    theirs_of("Qwen3").save_pretrained(tmp_path)
    expected, path = read_folder(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(path)
    assert "lm_head.weight" not in tensors
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    same_reading(read_folder(tmp_path), expected)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, path)
    with pytest.raises(ValueError, match="lm_head.weight: expected the embeddings"):
        read_folder(tmp_path)


def test_old_tensors_of_rotary_frequencies(tmp_path):
    theirs_of("Llama").save_pretrained(tmp_path)
    expected, path = read_folder(tmp_path), tmp_path / "model.safetensors"
    save_file(load_file(path) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}, path)
    same_reading(read_folder(tmp_path), expected)


LLAMA = dict(model_type="llama", vocab_size=32000, hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=False)
QWEN = dict(vocab_size=151936, hidden_act="silu", rms_norm_eps=1e-6, rope_theta=1e6, use_sliding_window=False)
PUBLIC = {  # what these config.json say, and the parameters that the models have
    "Llama-2-7b": (
        LLAMA | dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
        6738415616,
    ),
    "Llama-3.2-1B": (
        LLAMA
        | dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16)
        | dict(num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True)
        | dict(rope_theta=500000.0, rope_scaling=LLAMA3 | dict(factor=32.0, original_max_position_embeddings=8192)),
        1235814400,
    ),
    "Mistral-7B-v0.1": (
        LLAMA
        | dict(model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)
        | dict(num_attention_heads=32, num_key_value_heads=8, sliding_window=4096, rope_theta=10000.0),
        7241732096,
    ),
    "Qwen2.5-0.5B": (
        QWEN
        | dict(model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24)
        | dict(num_attention_heads=14, num_key_value_heads=2, sliding_window=32768, max_window_layers=24)
        | dict(tie_word_embeddings=True),
        494032768,
    ),
    "Qwen3-0.6B": (
        QWEN
        | dict(model_type="qwen3", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, head_dim=128)
        | dict(num_attention_heads=16, num_key_value_heads=8, sliding_window=None, max_window_layers=28)
        | dict(attention_bias=False, rope_scaling=None, tie_word_embeddings=True),
        596049920,
    ),
    "Mamba-Codestral-7B-v0.1": (
        dict(model_type="mamba2", vocab_size=32768, hidden_size=4096, num_hidden_layers=64, num_heads=128, head_dim=64)
        | dict(state_size=128, n_groups=8, conv_kernel=4, expand=2, chunk_size=256, norm_before_gate=True)
        | dict(use_bias=False, use_conv_bias=True, time_step_limit=[0.0, float("inf")], layer_norm_epsilon=1e-5),
        7285403648,
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configurations(name):
    """At full size, without memory: tensors of the names and shapes that `transformers` has find their place."""
    transformers = pytest.importorskip("transformers", minversion="5.23")
    config, count = PUBLIC[name]
    with torch.device("meta"):
        settings = transformers.AutoConfig.for_model(**json.loads(json.dumps(config)))
        theirs = transformers.AutoModelForCausalLM.from_config(settings)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count
    tensors = dict(theirs.named_parameters())
    form = next(form for form in FORMATS if form.matches(config))
    _, placed = form.translate(config, tensors)
    assert {id(tensor) for tensor in placed.values()} == {id(tensor) for tensor in tensors.values()}
