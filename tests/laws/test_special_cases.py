"""Special cases of B'MOJO: with the other memories off and the weights copied, the layer is attention, or an SSM."""

import pytest
import torch

from solomonic import LanguageModel, ModelConfig, preset
from solomonic.mixers import build
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.gated_deltanet import GatedDeltaNetConfig
from solomonic.mixers.gated_kalmanet import GatedKalmaNetConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.ops.sequence import fresh

from .cases import assert_close

WIDTH, LENGTH = 32, 50
FADING = [
    Mamba2Config(state_size=8, head_dim=8, expand=1),
    GatedDeltaNetConfig(n_heads=2, key_dim=8, value_dim=8),
    GatedKalmaNetConfig(n_heads=2, key_dim=8, value_dim=8),
]


def output(mixer, x):
    return mixer(x, None, fresh(x.shape[0], x.shape[1]))[0]


@pytest.mark.parametrize("window", [1, 7, LENGTH, None])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_attention_is_bmojo_without_fading_and_eidetic_memory(window, kv_heads):
    attention = build(AttentionConfig(n_heads=4, n_kv_heads=kv_heads, window=window), WIDTH)
    bmojo = build(BMojoConfig(fading=None, window=window or LENGTH, capacity=0, n_kv_heads=kv_heads), WIDTH)
    bmojo.load_state_dict(attention.state_dict())
    x = torch.randn(2, LENGTH, WIDTH)
    assert_close(output(bmojo, x), output(attention, x), "attention")


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_attention_is_bmojo_whose_window_holds_everything(fading):
    """The fading and the eidetic memory begin where the window ends: nothing is left for them."""
    attention = build(AttentionConfig(), WIDTH)
    bmojo = build(BMojoConfig(fading=fading, window=LENGTH, block=8, capacity=9, readout="softmax"), WIDTH)
    bmojo.load_state_dict(attention.state_dict(), strict=False)
    x = torch.randn(2, LENGTH, WIDTH)
    assert_close(output(bmojo, x), output(attention, x), "attention")


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_an_ssm_is_bmojo_without_attention(fading):
    """To the bit, gradients and state included."""
    ssm = build(fading, WIDTH)
    bmojo = build(BMojoConfig(fading=fading, window=0, capacity=0), WIDTH)
    assert sum(p.numel() for p in bmojo.parameters()) == sum(p.numel() for p in ssm.parameters())
    bmojo.fading.load_state_dict(ssm.state_dict())
    x = torch.randn(2, LENGTH, WIDTH)
    for mixer in (ssm, bmojo):
        output(mixer, x).square().sum().backward()
    assert torch.equal(output(bmojo, x), output(ssm, x))
    for name, parameter in ssm.named_parameters():
        assert torch.equal(bmojo.fading.get_parameter(name).grad, parameter.grad), name


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_without_eidetic_memory_the_layer_is_the_sum_of_attention_and_ssm(fading):
    """The canonical form: y = C_e x_e + C_f x_f."""
    attention, ssm = build(AttentionConfig(window=7), WIDTH), build(fading, WIDTH)
    bmojo = build(BMojoConfig(fading=fading, window=7, capacity=0, combine="sum"), WIDTH)
    bmojo.load_state_dict(attention.state_dict(), strict=False)
    bmojo.fading.load_state_dict(ssm.state_dict())
    x = torch.randn(2, LENGTH, WIDTH)
    assert_close(output(bmojo, x), output(attention, x) + output(ssm, x), "sum")


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_the_softmax_alone_can_read_out_the_ssm(fading):
    """The published layer, without window and eidetic memory: query i sees f_i alone, whose weight is 1 whatever the logits: y_i = Wo Wv f_i = f_i."""
    ssm = build(fading, WIDTH)
    bmojo = build(BMojoConfig(fading=fading, window=0, span=1, capacity=0, readout="softmax"), WIDTH)
    bmojo.fading.load_state_dict(ssm.state_dict())
    with torch.no_grad():
        bmojo.project.v.weight.copy_(torch.eye(WIDTH))
        bmojo.out.weight.copy_(torch.eye(WIDTH))
    x = torch.randn(2, LENGTH, WIDTH)
    assert_close(output(bmojo, x), output(ssm, x), "readout")


def test_bmojo_f_is_bmojo_without_capacity_and_as_published():
    """Window and fading keys in one softmax, written out for one query at a time from the published definition."""
    config = BMojoConfig(fading=FADING[0], window=5, capacity=0, n_heads=2, n_kv_heads=1, readout="softmax")
    mixer = build(config, WIDTH)
    x = torch.randn(1, LENGTH, WIDTH)
    with torch.no_grad():
        f = output(mixer.fading, x)
        D = WIDTH // 2

        def rotate(vector, position):
            angle = position * 10000.0 ** (-torch.arange(D // 2) / (D // 2))
            pairs = torch.complex(vector[: D // 2], vector[D // 2 :]) * torch.polar(torch.ones(D // 2), angle)
            return torch.cat([pairs.real, pairs.imag])

        def normed(vector):
            return vector / (vector.square().mean() + 1e-5).sqrt()

        rows = []
        for i in range(LENGTH):
            heads = []
            for head in range(2):
                q = rotate(normed((mixer.project.q.weight @ x[0, i])[head * D : (head + 1) * D]), i)
                seen = [(x[0, j], j) for j in range(max(0, i - 4), i + 1)]
                seen += [(f[0, j], j) for j in range(max(0, i - 9), max(0, i - 4))]
                keys = torch.stack([rotate(normed(mixer.project.k.weight @ u), j) for u, j in seen])
                values = torch.stack([mixer.project.v.weight @ u for u, _ in seen])
                heads.append((keys @ q / D**0.5).softmax(0) @ values)
            rows.append(mixer.out.weight @ torch.cat(heads))
        assert_close(output(mixer, x)[0], torch.stack(rows), "B'MOJO-F")


def test_eidetic_memory_of_everything_is_attention_without_positions_beyond_the_window():
    """With room for all, block 1 and no learned bias, a query sees every older token by content alone."""
    config = BMojoConfig(fading=None, window=4, block=1, capacity=LENGTH, score="recent", n_heads=1)
    mixer = build(config, WIDTH)
    x = torch.randn(1, LENGTH, WIDTH)
    with torch.no_grad():
        from solomonic.ops.rotary import rotary

        q, (k, v) = mixer.project.query(x), mixer.project.key_value(x)
        row = torch.arange(LENGTH)[None]
        near = (rotary(q, row)[0, :, 0] @ rotary(k, row)[0, :, 0].T) / WIDTH**0.5
        far = (q[0, :, 0] @ k[0, :, 0].T) / WIDTH**0.5
        lag = row.T - row
        logits = torch.where(lag < 4, near, far).masked_fill(lag < 0, -torch.inf)
        assert_close(output(mixer, x)[0], mixer.out(logits.softmax(-1) @ v[0, :, 0]), "attention to everything")


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_every_fading_memory_is_sized_by_the_presets(fading):
    """Its heads are together twice as wide as the model, as those of the SSM alone, and once where that is asked for."""
    for expand, times in ((None, 2), (1, 1)):
        made = preset("bmojo", vocab_size=30, d_model=WIDTH, state_size=8, fading=fading.name, expand=expand)
        config = made.layers[0].fading
        assert type(config) is type(fading)
        assert build(config, WIDTH).out.in_features == times * WIDTH
    assert (config.state_size if fading.name == "mamba2" else config.key_dim) == 8


def test_hybrids_are_lists():
    layers = [FADING[0], AttentionConfig(window=4), BMojoConfig(fading=FADING[1], window=4, capacity=3), FADING[1]]
    model = LanguageModel(ModelConfig(30, WIDTH, layers, d_ff=0))
    assert [type(b.mixer).Config.name for b in model.blocks] == ["mamba2", "attention", "bmojo", "gated_deltanet"]
    assert ModelConfig.from_dict(model.config.to_dict()) == model.config


@pytest.mark.parametrize("fading", FADING, ids=lambda config: config.name)
def test_a_fading_memory_beside_attention_starts_small(fading):
    beside = build(BMojoConfig(fading=fading, window=7, capacity=0), WIDTH).fading
    alone = build(BMojoConfig(fading=fading, window=0, capacity=0), WIDTH).fading
    assert 0.05 < beside.out.weight.std() / alone.out.weight.std() < 0.2
