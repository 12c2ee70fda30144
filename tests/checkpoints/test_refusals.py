"""What is not read: one error each, that names the setting, the tensor or the file."""

import json

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from solomonic.checkpoints.formats import FORMATS, read_folder

from .models import LLAMA3

LLAMA = dict(
    model_type="llama", vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2
)
QWEN3 = LLAMA | dict(model_type="qwen3", num_key_value_heads=1, head_dim=4)
MISTRAL = LLAMA | dict(model_type="mistral", num_key_value_heads=1)
MAMBA2 = dict(
    model_type="mamba2", vocab_size=20, hidden_size=8, num_hidden_layers=2, num_heads=4, head_dim=4, n_groups=1
)
AUTHORS = dict(d_model=8, n_layer=2, vocab_size=20, ssm_cfg={"layer": "Mamba2", "headdim": 4})


def ssm(**changes) -> dict:
    return dict(ssm_cfg=AUTHORS["ssm_cfg"] | changes)


def rope(**parameters) -> dict:
    return dict(rope_parameters=dict(rope_type="default", rope_theta=500.0) | parameters)


SETTINGS = [
    (LLAMA, dict(hidden_act="gelu"), "hidden_act = 'gelu' is not supported here, only 'silu' is"),
    (LLAMA, dict(attention_bias=True), "attention_bias = True is not supported"),
    (QWEN3, dict(attention_bias=True), "attention_bias = True is not supported"),
    (LLAMA, dict(mlp_bias=True), "mlp_bias = True is not supported"),
    (LLAMA, dict(quantization_config={"bits": 4}), r"quantization_config = \{'bits': 4\} is not supported"),
    (LLAMA, dict(partial_rotary_factor=0.5), "partial_rotary_factor = 0.5 is not supported"),
    (QWEN3, dict(is_causal=False), "is_causal = False is not supported"),
    (LLAMA, rope(partial_rotary_factor=0.5), "rope_parameters.partial_rotary_factor = 0.5 is not supported"),
    (LLAMA, rope(rope_type="yarn", factor=4.0), "rope_parameters = .*yarn.* not supported.*default, linear and llama3"),
    (LLAMA, dict(rope_scaling=dict(type="dynamic", factor=2.0)), "rope_scaling = .*dynamic.* not supported"),
    (QWEN3, dict(rope_parameters=dict(full_attention=dict(rope_theta=1.0))), "rope_parameters = .*same for all layers"),
    (LLAMA, dict(rope_parameters=7), "expected rope_parameters to be an object, got 7"),
    (LLAMA, rope(rope_type="linear"), "expected factor; it is not there"),
    (LLAMA, dict(rope_parameters=LLAMA3 | dict(low_freq_factor=4.0)), "0 <= low < high"),
    (LLAMA, dict(rope_theta="1e6"), "expected rope_theta to be a number"),
    (LLAMA, dict(layer_types=["full_attention", "sliding_attention"]), "layer_types = .*only 2 x full_attention is"),
    (QWEN3, dict(layer_types=["full_attention", "sliding_attention"]), "layer_types = .*only 2 x full_attention is"),
    (QWEN3, dict(layer_types=["full_attention"]), "layer_types = .* is not supported"),
    (QWEN3, dict(layer_types=["full_attention", "linear_attention"]), "layer_types = .* is not supported"),
    (MISTRAL, dict(layer_types=["full_attention"] * 2), "layer_types = .*only 2 x sliding_attention is"),
    (MISTRAL, dict(sliding_window=2.5), "expected sliding_window to be a number"),
    (LLAMA, dict(hidden_size=None), "expected hidden_size; it is not there"),
    (LLAMA, dict(num_attention_heads=0), "n_heads to be a whole number >= 1"),
    (LLAMA, dict(tie_word_embeddings="yes"), "expected tie_word_embeddings to be true or false"),
    (MAMBA2, dict(hidden_act="gelu"), "hidden_act = 'gelu' is not supported"),
    (MAMBA2, dict(quantization_config={"bits": 4}), "quantization_config = .* is not supported"),
    (MAMBA2, dict(num_heads=3), "hidden_size x expand = num_heads x head_dim, got 8 x 2 and 3 x 4"),
    (MAMBA2, dict(time_step_limit=[0.1]), "time step limit to be two numbers"),
    (MAMBA2, dict(time_step_limit=[0.1, 0.01]), "0 <= least <= most"),
    (AUTHORS, dict(d_intermediate=16), "d_intermediate = 16 is not supported"),
    (AUTHORS, dict(attn_layer_idx=[1]), r"attn_layer_idx = \[1\] is not supported"),
    (AUTHORS, dict(rms_norm=False), "rms_norm = False is not supported"),
    (AUTHORS, dict(ssm_cfg={}), "ssm_cfg.layer = 'Mamba1' is not supported here, only 'Mamba2' is"),
    (AUTHORS, dict(ssm_cfg="Mamba2"), "expected ssm_cfg to be an object"),
    (AUTHORS, ssm(rmsnorm=False), "ssm_cfg.rmsnorm = False is not supported"),
    (AUTHORS, ssm(D_has_hdim=True), "ssm_cfg.D_has_hdim = True is not supported"),
    (AUTHORS, ssm(d_ssm=4), "ssm_cfg.d_ssm = 4 is not supported"),
    (AUTHORS, ssm(dstate=4), "ssm_cfg.dstate = 4 is not a setting"),
]


@pytest.mark.parametrize("config, changes, says", SETTINGS)
def test_settings(config, changes, says):
    config = config | changes
    form = next(form for form in FORMATS if form.matches(config))
    with pytest.raises(ValueError, match=says):
        form.translate(config, {})


@pytest.mark.parametrize("config", [LLAMA, QWEN3, MISTRAL, MAMBA2, AUTHORS])
def test_without_the_changes_only_tensors_are_missing(config):
    form = next(form for form in FORMATS if form.matches(config))
    with pytest.raises(ValueError, match="expected the tensor .*embed.*, .*; the checkpoint does not have it"):
        form.translate(config, {})


@pytest.fixture
def folder(tmp_path):
    """A Llama, written by hand."""
    shapes = {"model.embed_tokens": (20, 8), "model.norm": (8,), "lm_head": (20, 8)}
    for i in range(2):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.input_layernorm": (8,), f"{layer}.post_attention_layernorm": (8,)}
        shapes |= {f"{layer}.self_attn.{x}_proj": (8, 8) for x in "qkvo"}
        shapes |= {
            f"{layer}.mlp.gate_proj": (12, 8),
            f"{layer}.mlp.up_proj": (12, 8),
            f"{layer}.mlp.down_proj": (8, 12),
        }
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    save_file({f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    return tmp_path


def test_the_folder_itself_is_read(folder):
    config, tensors = read_folder(str(folder))
    assert config.d_model == 8 and len(tensors) == 21


@pytest.mark.parametrize(
    "name, tensor, says",
    [
        (
            "model.layers.1.mlp.up_proj.weight",
            None,
            r"expected the tensor model.layers.1.mlp.up_proj.weight, \(12, 8\)",
        ),
        ("lm_head.weight", None, "expected the tensor lm_head.weight"),
        ("model.norm.weight", torch.ones(9), r"model.norm.weight: expected \(8,\) floats.*got \(9,\) torch.float32"),
        ("model.norm.weight", torch.ones(8).int(), r"model.norm.weight: expected .* got \(8,\) torch.int32"),
        ("model.norm.weight", torch.ones(8, dtype=torch.float8_e4m3fn), "model.norm.weight: expected .* got .*float8"),
        ("model.norm.bias", torch.ones(8), r"model.norm.bias: a tensor that config.json has no place for \(1 such"),
        ("model.layers.2.mlp.up_proj.weight", torch.ones(12, 8), "model.layers.2.mlp.up_proj.weight: a tensor that"),
    ],
)
def test_tensors(folder, name, tensor, says):
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name: tensor}
    save_file({name: x for name, x in tensors.items() if x is not None}, path)
    with pytest.raises(ValueError, match=says):
        read_folder(folder)


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles(folder, name):
    (folder / "model.safetensors").unlink()
    torch.save(Trap(folder / "ran"), folder / name)
    with pytest.raises(ValueError, match=f"got {name}, a pickle, which can run code.*convert it with safetensors"):
        read_folder(folder)
    assert not (folder / "ran").exists()


def test_the_advice_for_pickles_works(folder, monkeypatch):
    expected = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(expected, folder / "pytorch_model.bin")
    with pytest.raises(ValueError) as error:
        read_folder(folder)
    monkeypatch.chdir(folder)
    eval(str(error.value).split("convert it with ")[1], {"torch": torch, "safetensors": safetensors})
    assert len(read_folder(folder)[1]) == len(expected)


@pytest.mark.parametrize(
    "shards, says",
    [
        ({"a": "../outside.safetensors"}, "in the folder, got '../outside.safetensors'"),
        ({"a": "/tmp/outside.safetensors"}, "in the folder, got '/tmp/outside.safetensors'"),
        ({"a": "pytorch_model.bin"}, "in the folder, got 'pytorch_model.bin'"),
        ({"a": ".."}, "in the folder, got '..'"),
        ({"a": "missing.safetensors"}, "missing.safetensors: expected a file of tensors; it is not there"),
        ({"a": "part.safetensors"}, "part.safetensors: expected the tensor a, which .* promises"),
        ({"a": 3}, "expected weight_map"),
        (None, "expected weight_map"),
    ],
)
def test_indices(folder, shards, says):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ValueError, match=says):
        read_folder(folder)


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("config.json", None, "config.json: expected a JSON file; it is not there"),
        ("config.json", "{", "config.json: expected a JSON object, got what is no JSON"),
        ("config.json", "[1]", "config.json: expected a JSON object, got list"),
        (
            "config.json",
            '{"model_type": "gpt2"}',
            "model_type to be one of solomonic, llama, .*mamba2, or .* 'gpt2'",
        ),
        ("config.json", "{}", "got model_type None"),
        ("model.safetensors", None, "expected model.safetensors or model.safetensors.index.json; neither is there"),
        ("model.safetensors", "garbage", "model.safetensors: expected a safetensors file"),
        ("model.safetensors", "", "model.safetensors: expected a safetensors file"),
    ],
)
def test_files(folder, name, content, says):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match=says):
        read_folder(folder)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with config.json and model.safetensors"):
        read_folder(tmp_path / "nowhere")
