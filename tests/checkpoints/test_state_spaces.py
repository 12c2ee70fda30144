"""state-spaces' own format, made by renaming the tensors of Hugging Face's Mamba-2: the authors' code needs a GPU."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import silu

from solomonic.checkpoints.formats import read_folder, state_spaces

from .models import CASES, VOCABULARY, assert_same_logits, edit, ours_of, theirs_of


def write(folder, theirs, **changes) -> None:
    """The folder of a model, in the authors' words."""
    settings = theirs.config
    ssm = dict(layer="Mamba2", d_state=settings.state_size, headdim=settings.head_dim, ngroups=settings.n_groups)
    ssm |= dict(expand=settings.expand, d_conv=settings.conv_kernel, chunk_size=64, dt_min=0.01)
    ssm |= dict(bias=settings.use_bias, conv_bias=settings.use_conv_bias)
    if settings.time_step_limit[0]:
        ssm["dt_limit"] = list(settings.time_step_limit)
    config = dict(
        d_model=settings.hidden_size,
        d_intermediate=0,
        n_layer=settings.num_hidden_layers,
        vocab_size=VOCABULARY,
        ssm_cfg=ssm,
        attn_layer_idx=[],
        attn_cfg={},
        rms_norm=True,
        residual_in_fp32=True,
        fused_add_norm=True,
        pad_vocab_size_multiple=1,
        tie_embeddings=settings.tie_word_embeddings,
    )
    (folder / "config.json").write_text(json.dumps(config | changes))
    renamed = {
        name.replace("embeddings", "embedding"): x.contiguous().clone() for name, x in theirs.state_dict().items()
    }
    save_file(renamed, folder / "model.safetensors")


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("Mamba-2") and "settings" not in case])
def test_logits(case, tmp_path):
    theirs = theirs_of(case)
    write(tmp_path, theirs)
    assert_same_logits(ours_of(tmp_path), theirs)


def test_biases_and_limits(tmp_path, monkeypatch):
    """All settings but the eps of the norms, which the authors do not set."""
    family, settings = CASES["Mamba-2, all settings"]
    monkeypatch.setitem(CASES, "theirs", (family, settings | dict(layer_norm_epsilon=1e-5)))
    theirs = theirs_of("theirs")
    write(tmp_path, theirs)
    assert read_folder(tmp_path)[0].layers[0].time_step_limit == (0.02, 0.1)
    assert_same_logits(ours_of(tmp_path), theirs)


class NormFirst(nn.Module):
    """weight * rms-normed groups of x, then gated: the other order of the gated norm."""

    def __init__(self, norm, groups):
        super().__init__()
        self.weight, self.groups = norm.weight, groups

    def forward(self, x, gate):
        parts = x.view(*x.shape[:-1], self.groups, -1)
        return (parts / (parts.square().mean(-1, keepdim=True) + 1e-5).sqrt()).view(x.shape) * self.weight * silu(gate)


@pytest.mark.parametrize("case", ["Mamba-2", "Mamba-2, groups, tied"])
def test_norm_before_gate(case, tmp_path):
    theirs = theirs_of(case)
    write(tmp_path, theirs)
    ssm = json.loads((tmp_path / "config.json").read_text())["ssm_cfg"]
    edit(tmp_path, ssm_cfg=ssm | dict(norm_before_gate=True))
    for layer in theirs.backbone.layers:
        layer.mixer.norm = NormFirst(layer.mixer.norm, theirs.config.n_groups)
    assert_same_logits(ours_of(tmp_path), theirs)


def test_the_vocabulary_is_padded(tmp_path):
    """41 words of 50 rows in the file do not fit; padded to a multiple of 25 they do."""
    theirs = theirs_of("Mamba-2, groups, tied")
    write(tmp_path, theirs, vocab_size=41, pad_vocab_size_multiple=25)
    assert read_folder(tmp_path)[0].vocab_size == 50
    assert_same_logits(ours_of(tmp_path), theirs)
    edit(tmp_path, pad_vocab_size_multiple=16)
    with pytest.raises(ValueError, match=r"backbone.embedding.weight: expected \(48, 16\) floats.* got \(50, 16\)"):
        read_folder(tmp_path)


PUBLIC = {  # width and layers
    "mamba2-130m": (768, 24),
    "mamba2-370m": (1024, 48),
    "mamba2-780m": (1536, 48),
    "mamba2-1.3b": (2048, 48),
    "mamba2-2.7b": (2560, 64),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configurations(name):
    """Their config.json, at full size, without memory; the shapes of `transformers` are the authors'."""
    modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    d_model, n_layer = PUBLIC[name]
    config = dict(d_model=d_model, d_intermediate=0, n_layer=n_layer, vocab_size=50277, ssm_cfg={"layer": "Mamba2"})
    config |= dict(attn_layer_idx=[], attn_cfg={}, rms_norm=True, residual_in_fp32=True, fused_add_norm=True)
    config |= dict(pad_vocab_size_multiple=16, tie_embeddings=True)
    sizes = dict(hidden_size=d_model, num_heads=2 * d_model // 64, num_hidden_layers=n_layer, vocab_size=50288)
    with torch.device("meta"):
        theirs = modeling.Mamba2ForCausalLM(modeling.Mamba2Config(n_groups=1, tie_word_embeddings=True, **sizes))
    tensors = {name.replace("embeddings", "embedding"): tensor for name, tensor in theirs.named_parameters()}
    _, placed = state_spaces.translate(config, tensors)
    assert {id(tensor) for tensor in placed.values()} == {id(tensor) for tensor in tensors.values()}
