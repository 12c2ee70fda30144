"""What is taken away, held still and seen: against layers built without it, by hand, and on the state itself."""

from dataclasses import replace

import pytest
import torch

from solomonic import LanguageModel, ModelConfig, preset
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.base import Observer
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.gated_deltanet import GatedDeltaNetConfig
from solomonic.mixers.gated_kalmanet import GatedKalmaNetConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.ops.memory_attention import reference
from solomonic.ops.selection.reference import select
from solomonic.ops.sequence import fresh
from solomonic.probe.watch import MEMORIES, clamp, memories, watch

FADING = Mamba2Config(state_size=8, head_dim=8, expand=1)
LAYER = BMojoConfig(fading=FADING, window=5, capacity=6, n_heads=2, n_kv_heads=1, readout="softmax")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def model(*layers):
    made = LanguageModel(ModelConfig(20, 32, layers or (LAYER, LAYER), d_ff=16)).eval()
    for block in made.blocks:
        if getattr(block.mixer, "learns", False):
            torch.nn.init.normal_(block.mixer.admit.weight)
    return made


def tokens(rows=2, length=40):
    return torch.randint(0, 20, (rows, length))


@pytest.mark.parametrize(
    "name", ["bmojo", "bmojo_f", "sliding_window", "mamba2", "gated_deltanet", "samba", "transformer"]
)
@torch.no_grad()
def test_watching_changes_nothing(name):
    made = LanguageModel(preset(name, vocab_size=20, d_model=32, n_layers=2, window=5, capacity=6, state_size=8)).eval()
    x = tokens()
    logits, state = made(x)
    with watch(made) as seen:
        watched, watched_state = made(x)
        torch.testing.assert_close(made(x[:, 30:], made(x[:, :30])[1])[0], logits[:, 30:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(watched, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made(x), (watched, watched_state), rtol=1e-5, atol=1e-5)
    assert not any(getattr(module, "observer", None) for module in made.modules())
    assert set(seen.mass) == set(memories(made))


@pytest.mark.parametrize("kv_heads", [1, 2])
@torch.no_grad()
def test_a_layer_without_a_memory_is_the_layer_built_without_it(kv_heads):
    layer = replace(LAYER, n_kv_heads=kv_heads)
    whole, x = model(layer, layer), tokens()
    for gone, other in [
        ({"fading"}, replace(layer, span=0)),
        ({"eidetic"}, replace(layer, capacity=0)),
        ({"fading", "eidetic"}, AttentionConfig(window=5, n_heads=2, n_kv_heads=kv_heads)),
    ]:
        for at in (0, 1):
            layers = [layer, layer]
            layers[at] = other
            built = model(*layers)
            built.load_state_dict({k: v for k, v in whole.state_dict().items() if k in built.state_dict()})
            with watch(whole, {at: gone}):
                logits, state = whole(x[:, :25])
                rest, _ = whole(x[:, 25:], state)
            torch.testing.assert_close(torch.cat([logits, rest], 1), built(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_mass_and_a_missing_window_by_the_definition():
    """One layer's attention by hand: a mask for every group, and a softmax over the groups that are left."""
    made, x = model(LAYER), tokens(1, 30)
    caught = []

    mixer, inputs = made.blocks[0].mixer, made.blocks[0].mixer_norm(made.embed(x))

    class Catch(Observer):
        def attend(self, backend, call):
            caught.append(call)
            return reference.attend(call)

    mixer.observer = Catch()
    mixer(inputs, None, fresh(1, 30))
    del mixer.observer
    (call,) = caught
    coordinate, bias, v = call.coordinate, call.bias, call.values
    q, k = reference.rotated(call.queries, call.keys, call.rotation)
    candidates = select(call.score, coordinate, call.sequences, call.block, call.capacity)[0][0]
    rows, lost = torch.arange(30), call.lost[0]
    extra = bias[0] - (lost - lost[-30:, None]).float()  # of a row and a candidate: what fades in between

    def lag(keys):
        return rows[:, None] - torch.arange(30 - keys.shape[1], 30)

    kept = torch.zeros(30, k[2].shape[1], dtype=torch.bool)
    for t in range(30):
        kept[t, candidates[t][candidates[t] >= 0]] = True
    visible = [
        (lag(k[0]) >= 0) & (lag(k[0]) < 5) & (lag(k[0]) <= rows[:, None]),
        (lag(k[1]) >= 5) & (lag(k[1]) < 10) & (lag(k[1]) <= rows[:, None]),
        kept & (rows[:, None] - coordinate >= 5),
    ]
    logits = []
    for i in range(3):
        logit = torch.einsum("thd,sd->ths", q[i][0], k[i][0, :, 0]) * 16**-0.5
        logit = logit + (extra[:, None] if i == 2 else 0)
        logits.append(logit.masked_fill(~visible[i][:, None], -torch.inf))
    weight = torch.cat(logits, -1).softmax(-1).split([x.shape[-1] for x in logits], -1)
    mass = torch.stack([w.sum(-1) for w in weight], -1)
    assert mass[20:, :, 2].min() > 0
    with watch(made) as seen:
        mixer(inputs, None, fresh(1, 30))
    torch.testing.assert_close(seen.mass[0][0][0], mass, rtol=1e-4, atol=1e-5)
    left = torch.cat(logits[1:], -1).softmax(-1).nan_to_num(0)
    expected = torch.einsum("ths,sd->thd", left, torch.cat([v[1][0, :, 0], v[2][0, :, 0]]))
    with watch(made, {0: {"window"}}):
        y = mixer(inputs, None, fresh(1, 30))[0]
    torch.testing.assert_close(y[0], mixer.out(expected.flatten(1)), rtol=1e-4, atol=1e-5)
    assert not y[0, :5].any()  # nothing but the window is there at first


@pytest.mark.parametrize(
    "fading", [FADING, GatedDeltaNetConfig(2, 8, 8), GatedKalmaNetConfig(2, 8, 8)], ids=lambda config: config.name
)
@torch.no_grad()
def test_scans_are_what_makes_the_state(fading):
    """The recorded keys, values and decays, scanned by hand, end in the state that the layer returns."""
    made = model(fading)
    with watch(made) as seen:
        _, state = made(tokens(1, 23))
    (scan,) = seen.scans[0]
    name = made.blocks[0].mixer.fades[-1]
    S = torch.zeros(state["layers"][0][name].shape[1:])
    for k, v, g, beta in zip(scan.k, scan.v, scan.log_decay, scan.beta if scan.beta is not None else scan.log_decay):
        S = g.exp()[:, None, None] * S
        error = v if scan.beta is None else beta[:, None] * (v - torch.einsum("hvk,hk->hv", S, k))
        S = S + error[..., None] * k[:, None]
    torch.testing.assert_close(S, state["layers"][0][name][0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_held_still_a_memory_keeps_what_it_had():
    made, x = model(), tokens(2, 60)
    _, before = made(x[:, :30])
    _, after = made(x[:, 30:31], before)
    for memory in MEMORIES:
        held = clamp(before, after, 1, memory)
        made(x[:, 31:], held)  # still a state of the model
        old, new, plain = (s["layers"][1] for s in (before, held, after))
        same = {"window": ("k", "v"), "fading": (), "eidetic": ("slot_k", "slot_v", "slot_score")}[memory]
        for name, tensor in new["attention"].items():
            if name == "slot_age" and memory == "eidetic":
                empty = old["attention"]["slot_score"] == -torch.inf
                assert torch.equal(tensor, torch.where(empty, 0, old["attention"][name] + 1))
            elif name == "slot_lost" and memory == "eidetic":
                passed = (after["layers"][1]["attention"]["time"] - old["attention"]["time"])[:, None]
                assert (passed > 0).all()
                assert torch.equal(tensor, torch.where(empty, 0, old["attention"][name] + passed))
            else:
                assert torch.equal(tensor, (old if name in same else plain)["attention"][name])
        for name, tensor in new["fading"].items():
            assert torch.equal(tensor, (old if memory == "fading" else plain)["fading"][name])
        assert held["layers"][0] is after["layers"][0] and torch.equal(held["position"], after["position"])


@torch.no_grad()
def test_a_memory_that_is_not_there_is_refused():
    made = model(LAYER, FADING, AttentionConfig(n_heads=2), AttentionConfig(n_heads=2, window=4))
    assert memories(made) == {0: MEMORIES, 3: ("window",)}
    for layer, name in [(0, "windw"), (1, "window"), (2, "window"), (3, "eidetic"), (9, "fading")]:
        with pytest.raises(ValueError, match=f"no memory '{name}' in layer {layer}: expected one"):
            with watch(made, {layer: {name}}):
                pass
    _, state = made(tokens())
    for layer, name in [(0, "windw"), (1, "eidetic"), (3, "fading"), (2, "eidetic")]:
        with pytest.raises(ValueError, match="to hold still"):
            clamp(state, state, layer, name)
    assert clamp(state, state, 1, "fading")["layers"][1] is state["layers"][1]


@torch.no_grad()
def test_after_an_error_inside_the_block_all_is_as_before():
    made = model()
    with pytest.raises(ValueError, match="tokens"), watch(made):
        made(torch.zeros(1, 0, dtype=torch.int64))
    assert not any(getattr(module, "observer", None) for module in made.modules())
