"""Checkpoints with tied embeddings that lack something, or that lie elsewhere than in memory; adapters of any parameter."""

import pytest
import torch
from torch import nn

from solomonic import PRESETS, LanguageModel, preset

from ..laws.cases import assert_close
from ..laws.cases import tokens as draw
from .models import wrapped
from .test_model import saved
from .test_training import adapted

transformers = pytest.importorskip("transformers", minversion="5.23")
from transformers import AutoModelForCausalLM  # noqa: E402


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_missing_or_of_another_shape_is_drawn_where_that_is_asked_for(tmp_path, tied):
    from safetensors.torch import load_file, save_file

    saved(tmp_path, tied=tied)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.zeros(3, 3)
    left_out = tensors.pop("model.blocks.1.mlp.up.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, ignore_mismatched_sizes=True)
    assert info["missing_keys"] == {"model.blocks.1.mlp.up.weight"}
    assert {name for name, *_ in info["mismatched_keys"]} == {"model.norm.weight"}
    assert (model.model.head.weight is model.model.embedding.weight) == tied
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name in tensors.keys() - {"model.norm.weight"}:
        assert torch.equal(weights[name], tensors[name]), name
    assert (weights["model.norm.weight"] == 1).all()
    drawn = weights["model.blocks.1.mlp.up.weight"]
    assert not torch.equal(drawn, left_out) and 0.7 < drawn.std() / left_out.std() < 1.4


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["bmojo", "kda"])
def test_weights_that_stay_on_disk(tmp_path, name, tied):
    """All of them, or those of a block; logits, loss and `generate` are those of the model in memory."""
    pytest.importorskip("accelerate")
    saved(tmp_path / "m", name, tied)
    expected, x = AutoModelForCausalLM.from_pretrained(tmp_path / "m"), draw(2, 9)
    settings = dict(max_new_tokens=3, do_sample=False, attention_mask=torch.ones_like(x))
    parts = {"model.embedding": "cpu", "model.head": "cpu", "model.blocks.0": "cpu", "model.blocks.1": "disk"}
    for places in ({"": "disk"}, parts | {"model.norm": "disk"}):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", device_map=places, offload_folder=tmp_path / "off")
        assert any(parameter.is_meta for parameter in model.parameters())
        with torch.no_grad():
            assert torch.equal(model(x, labels=x).loss, expected(x, labels=x).loss)
        assert torch.equal(model.generate(x, **settings), expected.generate(x, **settings))


WITH_PARAMETERS = [name for name in PRESETS if name not in ("transformer", "sliding_window")]


@torch.no_grad()
@pytest.mark.parametrize("name", [*WITH_PARAMETERS, "bmojo of mamba3"])
def test_lora_on_parameters(name):
    """Of convolutions, and of mixers themselves, whose modules it wraps: it counts, and calls may pass a cache on."""
    pytest.importorskip("peft")
    dials = dict(vocab_size=50, d_model=32, n_layers=2, window=7, capacity=6)
    config = preset("bmojo", fading="mamba3", **dials) if " of " in name else preset(name, **dials)
    torch.manual_seed(0)
    ours = LanguageModel(config)
    base, x = wrapped(ours), draw(2, 9)
    names = {
        f"{n}.{leaf}"
        for n, module in base.model.blocks[0].named_modules()
        if not isinstance(module, nn.Linear)
        for leaf, parameter in module.named_parameters(recurse=False)
        if parameter.dim() in (2, 3)
    }
    before = base(x).logits
    assert names, "no weights outside linear projections: leave the preset out of WITH_PARAMETERS"
    for target in sorted(names):
        model = adapted(wrapped(ours), target_modules=[], target_parameters=[f"blocks.0.{target}"])
        whole = model(x)
        assert not torch.equal(whole.logits, before), target
        head = model(x[:, :4], use_cache=True)
        tail = model(x[:, 4:], past_key_values=head.past_key_values)
        assert_close(torch.cat([head.logits, tail.logits], 1), whole.logits, target)
