"""Every mixer and preset under the laws, and helpers that compare nested structures.

A new mixer needs one line here at most: `MIXER_CASES` begins with the default configuration of every mixer there is.
"""

import torch
from torch import Tensor

from solomonic import PRESETS, LanguageModel, ModelConfig, preset
from solomonic.mixers import MIXERS
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import COMBINE, READOUTS, SCORES, BMojoConfig
from solomonic.mixers.gated_deltanet import GatedDeltaNetConfig
from solomonic.mixers.gated_deltanet2 import GatedDeltaNet2Config
from solomonic.mixers.gated_kalmanet import GatedKalmaNetConfig
from solomonic.mixers.kda import KDAConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.mixers.mamba3 import Mamba3Config

WIDTH, VOCABULARY = 32, 50
MAMBA = Mamba2Config(state_size=8, head_dim=8, expand=1)
DELTA = GatedDeltaNetConfig(n_heads=2, key_dim=8, value_dim=8)
KALMAN = GatedKalmaNetConfig(n_heads=2, key_dim=8, value_dim=8)
KDA = KDAConfig(n_heads=2, key_dim=8, value_dim=8)

MIXER_CASES = {f"{name}-default": mixer.Config() for name, mixer in MIXERS.items()} | {
    "attention-grouped": AttentionConfig(n_heads=4, n_kv_heads=2),
    "attention-window": AttentionConfig(n_heads=4, n_kv_heads=1, window=5),
    **{
        f"attention-all-settings-{window}": AttentionConfig(
            n_heads=4,
            n_kv_heads=2,
            window=window,
            rotary_base=500.0,
            norm_eps=0.1,
            head_dim=6,
            qkv_bias=True,
            rotary_scaling=(8.0, 1.0, 4.0, 16.0),
        )
        for window in (None, 5)
    },
    "mamba2-groups": Mamba2Config(state_size=4, head_dim=8, n_groups=2),
    "mamba2-all-settings": Mamba2Config(
        state_size=4,
        head_dim=8,
        n_groups=2,
        bias=True,
        conv_bias=False,
        time_step_limit=(0.02, 0.1),
        norm_before_gate=True,
        norm_eps=0.1,
    ),
    "mamba3-rank": Mamba3Config(state_size=6, head_dim=8, rank=2, rotary_fraction=0.7, norm_eps=0.1),
    "bmojo-mamba3": BMojoConfig(fading=Mamba3Config(state_size=8, head_dim=8, expand=1), window=7, capacity=6, block=5),
    "gated_deltanet-wide": GatedDeltaNetConfig(n_heads=2, key_dim=4, value_dim=16),
    "gated_deltanet2-wide": GatedDeltaNet2Config(n_heads=2, key_dim=4, value_dim=16),
    "kda-wide": KDAConfig(n_heads=2, key_dim=4, value_dim=16),
    "gated_kalmanet-wide": GatedKalmaNetConfig(n_heads=2, key_dim=4, value_dim=16, iterations=7),
    "bmojo-f-tied": BMojoConfig(fading=MAMBA, window=6, capacity=0, readout="softmax"),
    "bmojo-f-untied": BMojoConfig(fading=DELTA, window=6, capacity=0, tied=False, n_kv_heads=2, readout="softmax"),
    "bmojo-kalman": BMojoConfig(fading=KALMAN, window=7, capacity=6, block=5, n_kv_heads=2),
    "bmojo-kalman-delta": BMojoConfig(fading=KALMAN, window=7, capacity=6, block=5, score="delta", n_kv_heads=2),
    "bmojo-kda-delta": BMojoConfig(fading=KDA, window=7, capacity=6, block=5, score="delta", n_kv_heads=2),
    "bmojo-no-fading": BMojoConfig(window=6, capacity=5, block=4),
    "bmojo-block-of-one": BMojoConfig(fading=MAMBA, window=3, capacity=4, block=1),
    "bmojo-conv": BMojoConfig(fading=MAMBA, window=7, capacity=6, block=5, conv=3, n_kv_heads=2),
    "bmojo-span": BMojoConfig(fading=MAMBA, window=4, span=9, capacity=7, n_kv_heads=2, readout="both"),
    "bmojo-ssm": BMojoConfig(fading=MAMBA, window=0, capacity=0),
    "bmojo-slots-that-decay": BMojoConfig(fading=MAMBA, window=7, capacity=6, block=5, slot_decay=0.7),
    "bmojo-decay-of-scores-alone": BMojoConfig(
        fading=MAMBA, window=7, capacity=6, block=5, slot_decay=0.7, learned_decay=False
    ),
    **{
        f"bmojo-{readout}": BMojoConfig(fading=MAMBA, window=7, capacity=6, block=5, readout=readout)
        for readout in READOUTS
    },
    **{
        f"bmojo-by-{combine}": BMojoConfig(fading=DELTA, window=7, capacity=6, block=5, combine=combine)
        for combine in COMBINE
    },
    **{
        f"bmojo-{score}": BMojoConfig(fading=DELTA, window=7, capacity=6, block=5, score=score, n_kv_heads=2)
        for score in SCORES
    },
}


def shake(model: torch.nn.Module, size: float) -> None:
    """Move every parameter away from its initial value, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn_like(parameter)


def language_model(layers=None, name: str | None = None) -> LanguageModel:
    """A small model with every parameter away from its initial value, so that no law holds by a zero."""
    torch.manual_seed(0)
    if name is not None:
        config = preset(name, vocab_size=VOCABULARY, d_model=WIDTH, n_layers=2, window=7, capacity=6, state_size=8)
    else:
        config = ModelConfig(VOCABULARY, WIDTH, layers, d_ff=40)
    model = LanguageModel(config)
    shake(model, 0.1)
    return model


MODEL_CASES = [*MIXER_CASES, *PRESETS]


def model_of(case: str) -> LanguageModel:
    return language_model(name=case) if case in PRESETS else language_model([MIXER_CASES[case]] * 2)


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def leaves(state, name="state"):
    if isinstance(state, Tensor):
        yield name, state
    else:
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from leaves(value, f"{name}.{key}")


def assert_close(got: Tensor, expected: Tensor, label: str, bound: float = 1e-4, floor: float = 1e-3) -> None:
    """Relative to the largest expected value, or to `floor` where that is less; equal infinities are equal."""
    assert got.shape == expected.shape, f"{label}: {tuple(got.shape)} against {tuple(expected.shape)}"
    if not got.is_floating_point():
        assert torch.equal(got, expected), label
        return
    infinite = expected.isinf()
    assert torch.equal(got[infinite], expected[infinite]), label
    got, expected = got[~infinite], expected[~infinite]
    assert not got.isnan().any(), f"{label}: NaN"
    if got.numel():
        error = (got - expected).abs().max() / expected.abs().max().clamp_min(floor)
        assert error <= bound, f"{label}: relative error {error:.2e}"


def assert_same_state(got, expected, label: str, row: slice = slice(None)) -> None:
    got, expected = dict(leaves(got)), dict(leaves(expected))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(got[name][row], tensor[row], f"{label}: {name}")


def gradients_of(model) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Relative to each parameter's largest gradient, but not below 1% of the model's largest.

    A gradient is a sum over positions; where its terms cancel, it is small beside the rounding of those terms.
    """
    assert got.keys() == expected.keys()
    floor = 1e-2 * max(g.abs().max().item() for g in expected.values())
    for name, gradient in expected.items():
        assert_close(got[name], gradient, f"gradient of {name}", floor=floor)
