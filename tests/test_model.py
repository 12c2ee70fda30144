"""What the model refuses, and what a configuration is."""

import json

import pytest
import torch

from solomonic import PRESETS, LanguageModel, ModelConfig, preset
from solomonic.mixers import MIXERS, config_from_dict
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.gated_deltanet import GatedDeltaNetConfig
from solomonic.mixers.mamba2 import Mamba2Config


def small(name="bmojo", **dials):
    return LanguageModel(preset(name, **{"vocab_size": 20, "d_model": 32, "window": 4, "capacity": 6} | dials))


def test_the_interface_of_the_readme():
    config = preset("bmojo", vocab_size=256, d_model=64, n_layers=2, window=16, capacity=32)
    model = LanguageModel(config)
    tokens, more = torch.randint(0, 256, (2, 50)), torch.randint(0, 256, (2, 3))
    logits, state = model(tokens)
    assert logits.shape == (2, 50, 256)
    logits, state = model(more, state)
    logits, state = model(tokens, mask=torch.ones(2, 50, dtype=torch.bool))
    logits, state = model(tokens, segments=torch.zeros(2, 50, dtype=torch.int64))
    assert isinstance(model.state_bytes(50, batch=1), int) and model.state_bytes(50) * 2 == model.state_bytes(
        9, batch=2
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (dict(tokens=torch.zeros(3, dtype=torch.int64)), r"tokens: expected \(B, T\) int64"),
        (dict(tokens=torch.zeros(1, 3)), "tokens: expected"),
        (dict(tokens=torch.zeros(1, 0, dtype=torch.int64)), "tokens: expected"),
        (dict(tokens=torch.full((1, 3), 20)), r"values in \[0, 20\), got 20 to 20"),
        (dict(tokens=torch.full((1, 3), -1)), "got -1 to -1"),
        (dict(mask=torch.ones(1, 4, dtype=torch.bool)), r"mask: expected \(1, 3\) torch.bool"),
        (dict(mask=torch.ones(1, 3)), "mask: expected"),
        (dict(segments=torch.zeros(1, 3)), "segments: expected"),
        (dict(segments=torch.tensor([[1, 0, 0]])), "never decrease"),
        (dict(tokens=[[1, 2, 3]]), "tokens: expected.*got list"),
        (dict(tokens=torch.zeros(0, 3, dtype=torch.int64)), "B >= 1"),
        (dict(mask=[[True, True, True]]), "mask: expected.*got list"),
        (dict(state=7), "state: expected what a call returned"),
        (dict(state="abc"), "state: expected what a call returned"),
        (dict(state={}), "state"),
    ],
)
def test_arguments_that_cannot_be(arguments, says):
    with pytest.raises(ValueError, match=says):
        small()(**{"tokens": torch.zeros(1, 3, dtype=torch.int64)} | arguments)


def test_padding_may_hold_anything_and_segments_of_padding_do_not_count():
    tokens = torch.tensor([[3, 4, -100, 10**6]])
    mask = torch.tensor([[True, True, False, False]])
    small()(tokens, mask=mask, segments=torch.tensor([[1, 2, 0, 0]]))


@pytest.mark.parametrize(
    "other",
    [
        dict(window=5),
        dict(capacity=7),
        dict(d_model=64),
        dict(n_layers=3),
        dict(fading="gated_deltanet"),
        dict(state_size=4),
        dict(name="bmojo_f"),
        dict(name="transformer"),
    ],
    ids=str,
)
def test_a_state_of_another_configuration(other):
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    _, state = small(**other)(tokens)
    with pytest.raises(ValueError, match="state: .*use the state of a model with this configuration"):
        small()(tokens, state)


def test_a_state_whose_leaves_are_of_another_kind():
    model = small("transformer")
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    _, state = model(tokens)
    with pytest.raises(ValueError, match="position of shape .*torch.int64, got"):
        model(tokens, state | {"position": state["position"].float()})
    layers = [layer | {"v": layer["v"][:, :2]} for layer in state["layers"]]
    with pytest.raises(ValueError, match="state: expected state.layers.0.v"):
        model(tokens, state | {"layers": layers})


def test_a_state_of_another_batch_size():
    _, state = small()(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="state: "):
        small()(torch.zeros(1, 3, dtype=torch.int64), state)


@pytest.mark.parametrize(
    "name, dials, says",
    [
        ("bmojoo", {}, "did you mean 'bmojo'"),
        ("bmojo", dict(window=0), "window >= 1"),
        ("bmojo", dict(capacity=-1), "capacity >= 0"),
        ("bmojo", dict(block=5), "1 <= block <= window"),
        ("bmojo", dict(block=0), "block to be a whole number >= 1"),
        ("bmojo", dict(score="learnt"), "did you mean 'learned'"),
        ("bmojo", dict(fading="mamba"), "did you mean 'mamba"),
        ("bmojo", dict(score="delta"), "delta-rule fading memory"),
        ("sliding_window", dict(window=0), "window >= 1"),
        ("transformer", dict(d_model=30), "d_model a multiple of"),
        ("transformer", dict(n_layers=0), "n_layers >= 1"),
        ("transformer", dict(d_model=0), "d_model >= 1"),
        ("transformer", dict(n_heads=0), "n_heads >= 1"),
        ("bmojo", dict(window="3"), "window >= 1, a whole number, got '3'"),
    ],
)
def test_dials_below_their_bounds(name, dials, says):
    with pytest.raises(ValueError, match=says):
        small(name, **dials)


def test_bmojo_without_capacity_is_bmojo_f():
    assert preset("bmojo_published", vocab_size=20, capacity=0) == preset("bmojo_f", vocab_size=20)


def test_a_misspelt_dial_is_an_error():
    with pytest.raises(TypeError, match="windw"):
        preset("bmojo", vocab_size=20, windw=3)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_matched(name):
    for width, layers in ((64, 2), (128, 4), (256, 4)):
        with torch.device("meta"):
            models = [
                LanguageModel(preset(n, vocab_size=256, d_model=width, n_layers=layers)) for n in ("transformer", name)
            ]
        sizes = [sum(p.numel() for p in model.parameters()) for model in models]
        assert abs(sizes[1] / sizes[0] - 1) < 0.02, (width, layers, sizes)


@pytest.mark.parametrize("name", PRESETS)
def test_configurations_survive_json(name):
    config = preset(name, vocab_size=20, fading="gated_deltanet", tied=False)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_that_are_pairs_survive_json():
    layers = [AttentionConfig(rotary_scaling=(8.0, 1.0, 4.0, 8192.0)), Mamba2Config(time_step_limit=(0.01, None))]
    config = ModelConfig(20, 32, layers, d_ff=8, norm_eps=1e-6)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_settings_name_the_near_one():
    settings = preset("bmojo", vocab_size=20).to_dict()
    with pytest.raises(ValueError, match="setting of the model 'd_modle': did you mean 'd_model'"):
        ModelConfig.from_dict(settings | {"d_modle": 3})
    with pytest.raises(ValueError, match="setting of bmojo 'capcity': did you mean 'capacity'"):
        config_from_dict(BMojoConfig().to_dict() | {"capcity": 3})
    with pytest.raises(ValueError, match="unknown mixer 'attenton': did you mean 'attention'"):
        config_from_dict({"mixer": "attenton"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: AttentionConfig(n_heads=4, n_kv_heads=3),
        lambda: AttentionConfig(window=0),
        lambda: Mamba2Config(state_size=0),
        lambda: GatedDeltaNetConfig(conv_width=1),
        lambda: BMojoConfig(capacity=-1),
        lambda: BMojoConfig(window=0),
        lambda: BMojoConfig(score="norm"),
        lambda: BMojoConfig(span=-1),
        lambda: BMojoConfig(fading="mamba2"),
        lambda: BMojoConfig(window="3"),
        lambda: BMojoConfig(rotary_base=0.0),
        lambda: AttentionConfig(n_kv_heads=0),
        lambda: AttentionConfig(window=2.5),
        lambda: AttentionConfig(head_dim=5),
        lambda: AttentionConfig(norm_eps=-1.0),
        lambda: AttentionConfig(rotary_scaling=(8.0, 1.0, 4.0)),
        lambda: AttentionConfig(rotary_scaling=(8.0, 4.0, 4.0, 8192.0)),
        lambda: Mamba2Config(expand=0),
        lambda: Mamba2Config(norm_eps=-1.0),
        lambda: Mamba2Config(time_step_limit=(0.1, 0.01)),
        lambda: Mamba2Config(time_step_limit=(0.1,)),
        lambda: ModelConfig(8, 8, AttentionConfig(), 8),
        lambda: ModelConfig(8, 8, ["mamba2"], 8),
        lambda: ModelConfig(8.5, 8, [AttentionConfig()], 8),
        lambda: ModelConfig.from_dict({"vocab_size": 3}),
        lambda: ModelConfig.from_dict({"vocab_size": 3, "d_model": 8, "d_ff": 0, "layers": ["mamba2"]}),
        lambda: ModelConfig(0, 8, [AttentionConfig()], 8),
        lambda: ModelConfig(8, 8, [], 8),
    ],
)
def test_configurations_that_cannot_be(make):
    with pytest.raises(ValueError, match="expected"):
        make()


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"fading": None, "readout": "direct"}, "readout None without a fading memory, got readout 'direct'"),
        ({"fading": None, "combine": "gate"}, "two branches.*got combine 'gate'"),
        ({"readout": "softmax", "combine": "sum"}, "two branches.*got combine 'sum', readout 'softmax'"),
        ({"window": 0, "capacity": 0, "combine": "sum"}, "two branches.*window 0"),
        ({"readout": "direkt"}, "unknown readout 'direkt': did you mean 'direct'"),
        ({"combine": "gat"}, "unknown combine 'gat': did you mean 'gate'"),
        ({"span": 4}, "span 0 or None unless the softmax reads it, got span 4"),
        ({"slot_decay": -1}, "slot_decay a number >= 0, got slot_decay -1"),
        ({"slot_decay": float("inf")}, "slot_decay a number >= 0"),
        ({"slot_decay": 0.1, "score": "recent"}, "slot_decay 0 or None without.*score 'recent'"),
        ({"slot_decay": 0.1, "capacity": 0}, "slot_decay 0 or None without.*capacity 0"),
        ({"learned_decay": True, "capacity": 0}, "learned_decay False or None without.*capacity 0"),
        ({"learned_decay": True, "slot_decay": 0}, "learned_decay False or None without.*slot_decay 0"),
        ({"learned_decay": True, "score": "norm"}, "learned_decay False or None.*not learned.*score 'norm'"),
        ({"learned_decay": "yes"}, "learned_decay True, False or None, got learned_decay 'yes'"),
    ],
)
def test_settings_of_a_layer_that_do_not_go_together(settings, says):
    with pytest.raises(ValueError, match=says) as error:
        BMojoConfig(**{"fading": Mamba2Config()} | settings)
    assert "\n" not in str(error.value)


def test_settings_without_a_readout_are_the_published_layer():
    """Folders of versions that had no other."""
    old = BMojoConfig(fading=Mamba2Config()).to_dict()
    for name in ("readout", "combine", "slot_decay"):
        del old[name]
    config = config_from_dict(old)
    assert config.reads_softmax and not config.reads_direct and config.fading_span == config.window
    assert config.decay == 0 and config.combination is None
    bare = config_from_dict({k: None if k == "fading" else v for k, v in old.items()})
    assert bare.readout is None and not bare.reads_direct


def test_settings_without_a_learned_decay_have_a_fixed_one():
    """Folders of versions whose scores alone decayed."""
    old = BMojoConfig(fading=Mamba2Config()).to_dict()
    del old["learned_decay"]
    config = config_from_dict(old)
    assert config.decay == 0.002 and not config.learns_decay
    assert BMojoConfig(fading=Mamba2Config()).learns_decay


def test_a_mixer_that_does_not_fade_is_no_fading_memory():
    with pytest.raises(ValueError, match="a fading memory, one of"):
        LanguageModel(ModelConfig(20, 32, [BMojoConfig(fading=AttentionConfig())], 8))


def test_every_mixer_says_what_it_is():
    for name, mixer in MIXERS.items():
        assert mixer.summary and mixer.Config.name == name


def test_bfloat16_runs_and_keeps_scans_in_float32():
    for name in PRESETS:
        model = small(name).bfloat16()
        tokens = torch.randint(0, 20, (2, 30))
        logits, state = model(tokens)
        more, _ = model(tokens, state)
        assert logits.dtype == more.dtype == torch.bfloat16 and logits.isfinite().all() and more.isfinite().all()


def test_autocast_leaves_scans_in_float32():
    tokens = torch.randint(0, 20, (1, 40))
    for name in ("mamba2", "gated_deltanet", "bmojo"):
        with torch.autocast("cpu", torch.bfloat16):
            _, state = small(name)(tokens)
        fading = state["layers"][0].get("fading", state["layers"][0])
        assert fading["ssm"].dtype == torch.float32


@pytest.mark.parametrize("name", ["bmojo", "transformer"])
def test_logits_at_padding_are_those_of_the_token_before(name):
    model = small(name)
    tokens = torch.randint(0, 20, (1, 9))
    mask = torch.tensor([[False, True, True, False, False, True, True, True, False]])
    logits = model(tokens, mask=mask)[0][0]
    for padding, before in ((3, 2), (4, 2), (8, 7)):
        assert torch.equal(logits[padding], logits[before])


def test_embeddings_and_what_enters_the_blocks():
    """`embed`, `hidden` and the head are `forward`; the trace is in the order of the tokens, padding or not."""
    model = small("bmojo", n_layers=2)
    tokens, mask = torch.randint(0, 20, (2, 9)), torch.arange(9) >= torch.tensor([[0], [4]])
    logits, state = model(tokens, mask=mask)
    trace = []
    x, after = model.hidden(model.embed(tokens, mask), mask=mask, trace=trace)
    assert torch.equal(model.head(x), logits) and torch.equal(after["position"], state["position"])
    scaled = model.embedding(tokens) * model.config.embedding_scale
    assert len(trace) == 2 and torch.equal(trace[0][mask], scaled[mask])
    alone = []
    model.hidden(model.embed(tokens[1:, 4:]), trace=alone)
    assert torch.allclose(trace[1][1, 4:], alone[1][0], atol=1e-5)
    with pytest.raises(ValueError, match=r"embeddings: expected \(B, T, 32\)"):
        model.hidden(tokens)
