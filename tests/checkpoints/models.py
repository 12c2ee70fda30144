"""Small models of `transformers` with random weights, and their folders."""

import json

import pytest
import torch

from solomonic import LanguageModel
from solomonic.checkpoints.formats import read_folder

from ..laws.cases import assert_close, shake

VOCABULARY = 50
COMMON = dict(vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None)
SIZES = COMMON | dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=6
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
SLIDING = dict(use_sliding_window=True, sliding_window=7)
MAMBA2 = COMMON | dict(hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8, state_size=8, n_groups=1)

CASES = {
    "Llama": ("Llama", SIZES),
    "Llama, tied, eps": ("Llama", SIZES | dict(tie_word_embeddings=True, rms_norm_eps=0.1)),
    "Llama, wide heads": ("Llama", SIZES | dict(head_dim=16, num_key_value_heads=None)),
    "Llama 3": ("Llama", SIZES | dict(rope_parameters=LLAMA3)),
    "Llama, linear": (
        "Llama",
        SIZES | dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=100.0)),
    ),
    "Mistral": ("Mistral", SIZES | dict(sliding_window=7)),
    "Mistral, no window": ("Mistral", SIZES | dict(sliding_window=None)),
    "Qwen2": ("Qwen2", SIZES),
    "Qwen2, windows": ("Qwen2", SIZES | SLIDING | dict(max_window_layers=1, tie_word_embeddings=True)),
    "Qwen3": ("Qwen3", SIZES | dict(head_dim=16, tie_word_embeddings=True, rms_norm_eps=0.1)),
    "Qwen3, windows": (
        "Qwen3",
        SIZES | SLIDING | dict(layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    ),
    "Qwen3, windows, scaled": ("Qwen3", SIZES | SLIDING | dict(max_window_layers=1, rope_parameters=LLAMA3)),
    "Mamba-2": ("Mamba2", MAMBA2),
    "Mamba-2, groups, tied": ("Mamba2", MAMBA2 | dict(n_groups=2, tie_word_embeddings=True)),
    "Mamba-2, all settings": (
        "Mamba2",
        MAMBA2
        | dict(
            hidden_size=24,
            num_heads=3,
            expand=1,
            conv_kernel=3,
            chunk_size=5,
            use_bias=True,
            use_conv_bias=False,
            layer_norm_epsilon=0.1,
            time_step_limit=(0.02, 0.1),
            residual_in_fp32=False,
        ),
    ),
}


def theirs_of(case: str):
    """The model of a case, every parameter away from its initial value."""
    transformers = pytest.importorskip("transformers", minversion="5.23")
    family, settings = CASES[case]
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**settings)).eval()
    shake(model, 0.2)
    return model


def ours_of(folder) -> LanguageModel:
    config, tensors = read_folder(folder)
    model = LanguageModel(config)
    model.load_state_dict(tensors, strict=True)
    return model


def tokens(length: int = 40):
    return torch.randint(0, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same_logits(ours, theirs, what: str = "logits", bound: float = 1e-4) -> None:
    """Over 40 tokens at once, and one at a time."""
    expected = theirs(tokens(), use_cache=False).logits
    assert_close(ours(tokens())[0], expected, what, bound)
    steps, state = [], None
    for token in tokens().split(1, 1):
        logits, state = ours(token, state)
        steps.append(logits)
    assert_close(torch.cat(steps, 1), expected, f"{what}, one token at a time", bound)


def edit(folder, remove=(), **changes) -> None:
    """Change config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in remove}))
