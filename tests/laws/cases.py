"""Every mixer and preset under the laws.

A new mixer needs one line here at most: `MIXER_CASES` begins with the default configuration of every mixer there is.
"""

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
from solomonic.model import state_tensors as leaves
from solomonic.testing.compare import (
    VOCABULARY,
    assert_close,
    assert_same_gradients,
    assert_same_state,
    gradients_of,
    shake,
    tokens,
)
from solomonic.testing.mixers import build_model

WIDTH = 32
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


def language_model(layers=None, name: str | None = None) -> LanguageModel:
    """A small model with every parameter away from its initial value, so that no law holds by a zero."""
    if name is not None:
        config = preset(name, vocab_size=VOCABULARY, d_model=WIDTH, n_layers=2, window=7, capacity=6, state_size=8)
    else:
        config = ModelConfig(VOCABULARY, WIDTH, layers, d_ff=40)
    return build_model(config)


MODEL_CASES = [*MIXER_CASES, *PRESETS]


def model_of(case: str) -> LanguageModel:
    return language_model(name=case) if case in PRESETS else language_model([MIXER_CASES[case]] * 2)


__all__ = [
    "MAMBA", "MIXER_CASES", "MODEL_CASES", "VOCABULARY", "WIDTH", "assert_close", "assert_same_gradients",
    "assert_same_state", "gradients_of", "language_model", "leaves", "model_of", "shake", "tokens",
]  # fmt: skip
