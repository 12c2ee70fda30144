"""A damaged or forged folder of a model is refused in one error, or gives the logits of the sound one."""

import copy
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from solomonic import LanguageModel, ModelConfig, preset
from solomonic.checkpoints.folder import load, save, template
from solomonic.checkpoints.formats.llama import PARTS
from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.mixers.attention import AttentionConfig

from . import cases, command, no_hang

TEXT = "Once upon a time, \N{SNOWMAN}"
LLAMA = dict(
    model_type="llama", vocab_size=257, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2
)
HUGE = (10**9, 2**31, 2**63, 10**400, 1e308, -1, 0, -(2**63))
VALUES = st.one_of(
    st.sampled_from([*HUGE, True, None, "", "x" * 1000, "mamba2", [], {}, [[]] * 9, {"mixer": "bmojo"}, 0.5, 1, 7]),
    st.integers(-5, 300),
    st.just({"mixer": "bmojo", "fading": {"mixer": "bmojo", "fading": {"mixer": "bmojo"}}}),
)


@cache
def sound(kind: str) -> Path:
    """A folder of ours, with every memory in it, or one of Llama's."""
    torch.manual_seed(0)
    path = Path(tempfile.mkdtemp())
    if kind == "ours":
        dials = dict(d_model=16, n_layers=1, window=5, capacity=4, state_size=4, conv=2)
        save(path, LanguageModel(preset("bmojo", vocab_size=257, **dials)), Tokenizer.for_bytes(), "# Card")
        return path
    layer = AttentionConfig(n_heads=2, qk_norm=False, norm_eps=1e-6, head_dim=4)
    model = LanguageModel(ModelConfig(257, 8, [layer] * 2, 12, tie_embeddings=False, norm_eps=1e-6))
    tensors = {}
    for name, tensor in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        number = next((part for part in module.split(".") if part.isdigit()), "*")
        theirs = PARTS[module.replace(f".{number}.", ".*.")].replace("*", number)
        tensors[f"{theirs}.{leaf}"] = tensor.clone()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(LLAMA))
    (path / "tokenizer.json").write_text(Tokenizer.for_bytes().to_json())
    return path


def answer(folder: Path) -> torch.Tensor | None:
    """Logits (T, V) of TEXT; None where the folder is refused."""
    with no_hang():
        try:
            model, tokenizer = load(folder)
        except ValueError as error:
            assert str(folder) in str(error) or "setting" in str(error) or "expected" in str(error)
            return None
        with torch.no_grad():
            logits, _ = model(torch.from_numpy(tokenizer.encode(TEXT))[None])
    return logits[0]


@pytest.fixture
def place(tmp_path):
    """A function that makes a copy of a sound folder, another each time."""
    count = iter(range(10**9))

    def make(kind: str) -> Path:
        path = tmp_path / str(next(count))
        shutil.copytree(sound(kind), path)
        return path

    return make


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_damaged_bytes(name, place):
    expected = answer(sound("ours"))

    @cases(40)
    @given(st.data())
    def tried(data):
        folder = place("ours")
        content = bytearray((folder / name).read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "zeros", "more", "byte"]))
        if how == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del content[at:]
        elif how == "zeros":
            content[at : at + 64] = bytes(len(content[at : at + 64]))
        elif how == "more":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            content[at] = data.draw(st.integers(0, 255))
        (folder / name).write_bytes(content)
        got = answer(folder)
        assert got is None or torch.equal(got, expected)

    tried()


def changed(data, content):
    """The same JSON with one value deleted, replaced or added somewhere."""
    content = copy.deepcopy(content)
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        inner = [key for key in keys if isinstance(node[key], (dict, list)) and node[key]]
        if inner and data.draw(st.booleans()):
            node = node[data.draw(st.sampled_from(inner))]
            continue
        if not keys:
            return content
        key = data.draw(st.sampled_from(keys))
        how = data.draw(st.sampled_from(["value", "delete", "add"]))
        if how == "delete":
            del node[key]
        elif how == "value" or isinstance(node, list):
            node[key] = data.draw(VALUES)
        else:
            node[data.draw(st.text(max_size=5))] = data.draw(VALUES)
        return content


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_changed_settings_of_ours(name, place):
    expected = answer(sound("ours"))

    @cases(50)
    @given(st.data())
    def tried(data):
        folder = place("ours")
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(changed(data, content)))
        got = answer(folder)
        assert got is None or torch.equal(got, expected)

    tried()


def test_changed_settings_without_digests(place):
    """As of a folder that another tool wrote: what cannot be told is at least no traceback, and takes no memory."""
    tensors = load_file(sound("ours") / "model.safetensors")

    @cases(50)
    @given(st.data(), st.sampled_from(["ours", "llama"]))
    def tried(data, kind):
        folder = place(kind)
        if kind == "ours":
            save_file(tensors, folder / "model.safetensors")
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(changed(data, content)))
        answer(folder)

    tried()


def test_changed_tensors(place):
    @cases(40)
    @given(st.data(), st.sampled_from(["ours", "llama"]))
    def tried(data, kind):
        folder = place(kind)
        tensors = load_file(folder / "model.safetensors")
        name = data.draw(st.sampled_from(sorted(tensors)))
        how = data.draw(st.sampled_from(["missing", "type", "whole", "shape", "nan", "infinity", "large", "other"]))
        if how == "missing":
            del tensors[name]
        elif how == "type":
            tensors[name] = tensors[name].to(data.draw(st.sampled_from([torch.float64, torch.bfloat16, torch.float16])))
        elif how == "whole":
            tensors[name] = tensors[name].to(data.draw(st.sampled_from([torch.int64, torch.bool, torch.uint8])))
        elif how == "shape":
            tensors[name] = tensors[name][None].clone()
        elif how == "other":
            tensors[name + "x"] = tensors[name].clone()
        else:
            tensors[name].view(-1)[-1] = {"nan": torch.nan, "infinity": -torch.inf, "large": 1e38}[how]
        save_file(tensors, folder / "model.safetensors")
        got = answer(folder)
        assert (got is None) == (how not in ("type", "large"))
        if how == "type":
            assert torch.allclose(got, answer(sound(kind)).to(got), atol=0.1)

    tried()


@pytest.mark.parametrize("settings", [dict(num_hidden_layers=10**9), dict(num_hidden_layers=100_000)])
def test_layers_are_bounded_by_the_tensors(settings, place):
    folder = place("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA | settings))
    code, _, said = command("generate", folder, "a")
    assert code == 2 and "num_hidden_layers of at most" in said


def test_layers_of_ours_are_bounded_by_the_tensors(place):
    folder = place("ours")
    content = json.loads((folder / "config.json").read_text())
    content["model"]["layers"] *= 5000
    (folder / "config.json").write_text(json.dumps(content))
    code, _, said = command("generate", folder, "a")
    assert code == 2 and "model.layers of at most" in said


@pytest.mark.parametrize("name, says", [("window", "at most 2,147,483,647"), ("capacity", "at most 2,147,483,647")])
def test_a_size_that_no_tensor_has(name, says, place):
    folder = place("ours")
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    for value, answer in ((2**63, says), (2**31 - 1, "the state of a text")):
        content = json.loads((folder / "config.json").read_text())
        content["model"]["layers"][0][name] = value
        content["model"]["layers"][0]["block"] = 1
        (folder / "config.json").write_text(json.dumps(content))
        code, _, said = command("generate", folder, "a")
        assert code == 2 and answer in said


@pytest.mark.parametrize("how", ["nan", "large"])
def test_weights_that_are_no_numbers(how, place, tmp_path):
    folder = place("ours")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.head.weight"][:] = torch.nan if how == "nan" else 3e38
    save_file(tensors, folder / "model.safetensors")
    (tmp_path / "text.txt").write_text("some words, over and over. " * 40)
    for words in (
        [
            "eval",
            folder,
            "--data",
            tmp_path / "text.txt",
            "--lengths",
            32,
            "--samples",
            1,
            "--json",
            tmp_path / "n.json",
        ],
        ["generate", folder, "a", "--max-tokens", 1],
    ):
        code, _, said = command(*words)
        assert code == 2 and "finite" in said and not (tmp_path / "n.json").exists()


BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "doubling": "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a long text": "{{ 'x' * 10**12 }}",
    "a power": "{{ 10 ** 10 ** 10 }}",
    "a wide text": "{{ 'x' | center(10**12) }}",
    "much text": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "nested": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "brackets": "{{ " + "(" * 100_000 + " }}",
    "attributes": "{{ ''.__class__.__mro__ }}",
    "no text": "\ud800",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_chat_templates_are_bounded(bomb):
    with no_hang(60), pytest.raises(ValueError) as error:
        Turns(BOMBS[bomb], {}, Tokenizer.for_bytes())
    assert str(error.value).startswith("chat_template: ") and "\n" not in str(error.value).strip()


def test_changed_settings_of_the_tokenizer(place):
    @cases(40)
    @given(st.data())
    def tried(data):
        folder = place("ours")
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(changed(data, json.loads(path.read_text()))))
        try:
            text, tokens = template(folder)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert isinstance(text, str) and all(isinstance(token, str) for token in tokens.values())

    tried()
