"""Peers compute what they are compared with; the command measures all of them, or says in one line why not."""

import json
import shutil

import pytest
import torch
from torch import nn

from solomonic.bench import fla, flex
from solomonic.bench.flex import FlexWindow
from solomonic.bench.measure import Times, operations, peak_bytes, side_by_side
from solomonic.bench.two_calls import TwoCalls
from solomonic.cli import main
from solomonic.mixers import build
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.gated_deltanet import GatedDeltaNetConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.ops.sequence import fresh

CPU = torch.device("cpu")
SMALL = (
    "--lengths 16 --seconds 0.01 --d-model 32 --n-layers 1 --window 8 --capacity 4 --state-size 4 --device cpu".split()
)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("length", [5, 16, 37])
def test_two_calls_equal_one_softmax(tied, length):
    layer = build(
        BMojoConfig(Mamba2Config(head_dim=8), window=16, capacity=0, n_kv_heads=2, tied=tied, readout="softmax"), 32
    )
    x, other = torch.randn(2, length, 32, requires_grad=True), torch.randn(2, length, 32)
    gradients = []
    for module in (layer, TwoCalls(layer)):
        y = module(x, None, fresh(2, length))[0]
        gradients.append((y, *torch.autograd.grad((y * other).sum(), [x, *layer.parameters()])))
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_two_calls_refuse_an_eidetic_memory():
    with pytest.raises(ValueError, match="no capacity"):
        TwoCalls(build(BMojoConfig(Mamba2Config(head_dim=8), window=16, readout="softmax"), 32))


def test_mamba2_of_transformers_has_our_shape():
    huggingface = pytest.importorskip("solomonic.bench.huggingface")
    config = Mamba2Config(state_size=8, head_dim=8)
    ours, theirs = build(config, 32), huggingface.mamba2_layer(config, 32)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert theirs(torch.randn(2, 9, 32)).shape == (2, 9, 32)


def test_works_take_turns():
    order = []
    times = side_by_side({name: lambda name=name: order.append(name) for name in "ab"}, CPU, 0.0, least=4)
    assert order == [*"ab", *"ba", *"ab", *"ba", *"ab"] and len(times["a"].values) == 4
    assert Times((1.0, 3.0, 2.0)).median == 2.0


def test_operations_and_memory_are_counted():
    a, b = torch.randn(4, 5, requires_grad=True), torch.randn(5, 6)
    assert operations(lambda: a @ b) == 2 * 4 * 5 * 6
    assert peak_bytes(lambda: a.exp().sum(), CPU) == a.numel() * 4


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("length", [5, 40])
def test_flex_attention_equals_our_window(length):
    layer = build(AttentionConfig(n_heads=4, n_kv_heads=2, window=7), 32)
    x, sequences = torch.randn(2, length, 32), fresh(2, length)
    with torch.no_grad():
        got, expected = FlexWindow(layer, compiled=False)(x, None, sequences)[0], layer(x, None, sequences)[0]
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_layers_of_flash_linear_attention_are_of_our_shape():
    pytest.importorskip("fla")
    config = GatedDeltaNetConfig(n_heads=2, key_dim=8, value_dim=16)
    with torch.device("meta"):
        theirs, simple = fla.gated_deltanet_layer(config, 32), fla.simple_gla_layer(config, 32)
    ours = build(config, 32)
    assert theirs.layer.head_k_dim == 8 and theirs.layer.head_v_dim == 16 and simple.layer.head_k_dim == 8
    count = sum(p.numel() for p in theirs.parameters()) / sum(p.numel() for p in ours.parameters())
    assert 0.95 < count < 1.05


def test_the_command_measures_everything_and_writes_it(tmp_path, capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(flex, "refusal", lambda work, device: "it would be compiled")
    assert main(["bench", *SMALL, "--json", str(tmp_path / "numbers.json")]) == 0
    rows = json.loads((tmp_path / "numbers.json").read_text())["rows"]
    shown, messages = capsys.readouterr()
    assert "not measured: layer, prefill, sliding_window (FlexAttention): it would be compiled" in messages
    assert "not measured: layer, train, simple_gla (fla): flash-linear-attention's kernels are for CUDA" in messages
    assert {(row["scope"], row["work"]) for row in rows} == {
        (scope, work) for scope in ("layer", "model") for work in ("train", "prefill", "decode")
    }
    assert {"bmojo_f (two calls)", "mamba2 (transformers)", "bmojo"} <= {row["name"] for row in rows}
    assert all(row["name"] in shown and row["seconds"] > 0 and row["floor"] > 0 for row in rows)
    assert all(row["ratio"] == 1 for row in rows if row["name"] in ("attention", "transformer"))


def test_compiled(capsys, monkeypatch):
    """By a compiler that does nothing: what inductor makes of the models is tested elsewhere."""
    modes = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: modes.append(options))
    words = ["bench", *SMALL, "--scope", "model", "--work", "decode", "train", "--only", "transformer", "bmojo"]
    assert main([*words, "--compile"]) == 0
    assert ", compiled\n" in capsys.readouterr().out and modes == [{"dynamic": False, "mode": None}] * 4
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main([*words, "--compile"]) == 2
    assert "expected a C++ compiler" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, says",
    [
        (["--work", "trian"], "did you mean 'train'?"),
        (["--scope", "modle"], "did you mean 'model'?"),
        (["--only", "nobody", *SMALL], "--only: none of nobody"),
        (["--d-model", "0"], "--d-model: expected a whole number >= 1, got 0"),
        (["--dtype", "float3"], "unknown dtype 'float3'"),
    ],
)
def test_a_mistake_is_one_line(words, says, capsys):
    assert main(["bench", *words]) == 2
    messages = capsys.readouterr().err
    assert says in messages and messages.count("\n") == 1
