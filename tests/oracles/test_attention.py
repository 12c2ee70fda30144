"""Attention against torch's own with the mask written out, and whole Transformers against Hugging Face's."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from solomonic.checkpoints.formats import llama
from solomonic.mixers.attention import Attention, AttentionConfig
from solomonic.ops.rotary import rotary
from solomonic.ops.sequence import Sequences, fresh

from ..laws.cases import assert_close, assert_same_gradients, gradients_of, shake
from .layers import beside

WIDTH, VOCABULARY = 24, 50
CASES = {
    "full": AttentionConfig(4),
    "full, grouped": AttentionConfig(4, n_kv_heads=2, qk_norm=False),
    "full, one pair of keys and values": AttentionConfig(4, n_kv_heads=1, rotary_base=500.0),
    "window": AttentionConfig(4, window=5),
    "window, grouped": AttentionConfig(4, n_kv_heads=2, window=8, qk_norm=False),
    "window, one pair of keys and values": AttentionConfig(2, n_kv_heads=1, window=16, rotary_base=500.0),
    "window of one": AttentionConfig(4, window=1),
    "window longer than the input": AttentionConfig(4, window=100),
}


def mixer_of(config):
    mixer = Attention(WIDTH, config)
    shake(mixer, 0.3)
    return mixer


def rotated(x, position, base):
    """Rotary position by complex numbers: entries d and d + D/2 are one number, rotated by position / base^(2d/D)."""
    half = x.shape[-1] // 2
    speed = torch.tensor([base ** (-2 * d / x.shape[-1]) for d in range(half)], dtype=torch.float64)
    z = torch.complex(x[..., :half].double(), x[..., half:].double())
    z = z * torch.exp(1j * position.double()[:, None, None] * speed)
    return torch.cat([z.real, z.imag], -1)


def direct(mixer, x, position, document):
    """One row x (T, d_model), in float64: token i sees j of its document with i - window < j <= i."""
    config, (T, dim) = mixer.config, (len(x), mixer.project.dim)
    weight = {name: w.detach().double() for name, w in mixer.named_parameters()}

    def heads(name):
        y = (x.double() @ weight[f"project.{name}.weight"].T).view(T, -1, dim)
        if config.qk_norm and name != "v":
            y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight[f"project.{name}_norm.weight"]
        y = y if name == "v" else rotated(y, position, config.rotary_base)
        return torch.stack([y[:, h * y.shape[1] // config.n_heads] for h in range(config.n_heads)])  # (H, T, D)

    window = T if config.window is None else config.window
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        for j in range(max(0, i - window + 1), i + 1):
            mask[i, j] = document[i] == document[j]
    y = scaled_dot_product_attention(heads("q"), heads("k"), heads("v"), attn_mask=mask)
    return y.transpose(0, 1).flatten(1) @ weight["out.weight"].T


@pytest.mark.parametrize("length", [1, 5, 33])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_one_document(case, length):
    mixer, x = mixer_of(CASES[case]), torch.randn(2, length, WIDTH)
    got, _ = mixer(x, None, fresh(2, length))
    for b in range(2):
        expected = direct(mixer, x[b], torch.arange(length), torch.zeros(length))
        assert_close(got[b].double(), expected, "output", 1e-5)


@pytest.mark.parametrize("cut", [1, 6, 20])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_continuation(case, cut):
    """A prefill, a call of 7 tokens, and 6 single tokens."""
    length, calls = cut + 13, [cut, 7] + [1] * 6
    mixer, x = mixer_of(CASES[case]), torch.randn(1, length, WIDTH)
    got, state, at = [], None, 0
    for rows in calls:
        sequences = Sequences(at + torch.arange(rows)[None], torch.tensor([at + rows]), aligned=at == 0)
        y, state = mixer(x[:, at : at + rows], state, sequences)
        got.append(y)
        at += rows
    expected = direct(mixer, x[0], torch.arange(length), torch.zeros(length))
    assert_close(torch.cat(got, 1)[0].double(), expected, "output", 1e-5)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_packed_documents(case):
    lengths = [11, 1, 16, 5]
    mixer, x = mixer_of(CASES[case]), torch.randn(1, sum(lengths), WIDTH)
    position = torch.cat([torch.arange(n) for n in lengths])
    document = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    sequences = Sequences(position[None], torch.tensor([5]), aligned=False, packed=True)
    expected = direct(mixer, x[0], position, document)
    assert_close(mixer(x, None, sequences)[0][0].double(), expected, "output", 1e-5)


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotary_of_llama(base):
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = modeling.LlamaConfig(hidden_size=48, num_attention_heads=4, rope_parameters=rope(base))
    q, k = torch.randn(2, 9, 4, 12), torch.randn(2, 9, 2, 12)
    position = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 700, 2047], [5, 6, 7, 8, 9, 10, 11, 12, 13]])
    cos, sin = modeling.LlamaRotaryEmbedding(config)(q, position)
    expected = modeling.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)
    for x, y in zip((q, k), expected):
        assert_close(rotary(x, position, base), y, "rotated")


def rope(base: float) -> dict:
    return {"rope_type": "default", "rope_theta": base}


def transformer(config: AttentionConfig, tied: bool = True):
    """Llama without norms of queries and keys, Qwen3 with them; ours with the same weights."""
    transformers = pytest.importorskip("transformers")
    family = "Qwen3" if config.qk_norm else "Llama"
    more = {}
    if config.window is not None:
        more = dict(use_sliding_window=True, sliding_window=config.window, layer_types=["sliding_attention"] * 2)
    settings = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.kv_heads,
        head_dim=WIDTH // config.n_heads,
        rms_norm_eps=1e-5,
        rope_parameters=rope(config.rotary_base),
        tie_word_embeddings=tied,
        **more,
    )
    return beside(getattr(transformers, f"{family}ForCausalLM")(settings), llama.translate, settings)


MODELS = {
    "Llama": AttentionConfig(4, qk_norm=False),
    "Llama, grouped": AttentionConfig(4, n_kv_heads=2, qk_norm=False, rotary_base=500.0),
    "Qwen3": AttentionConfig(4, n_kv_heads=2),
    "Qwen3, sliding window": AttentionConfig(4, n_kv_heads=1, window=7),
}


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("case", MODELS)
@torch.no_grad()
def test_model(case, length):
    theirs, ours = transformer(MODELS[case], tied=length != 7)
    tokens = torch.randint(0, VOCABULARY, (2, length))
    expected = theirs(tokens).logits
    assert_close(ours(tokens)[0], expected, "logits")
    steps, state = [], None
    for token in tokens.split(1, 1):
        logits, state = ours(token, state)
        steps.append(logits)
    assert_close(torch.cat(steps, 1), expected, "logits, one token at a time")


@pytest.mark.parametrize("case", MODELS)
@torch.no_grad()
def test_left_padding(case):
    theirs, ours = transformer(MODELS[case])
    tokens = torch.randint(0, VOCABULARY, (3, 20))
    mask = torch.arange(20) >= torch.tensor([0, 7, 19])[:, None]
    position = (mask.cumsum(1) - 1).clamp_min(0)
    expected = theirs(tokens, attention_mask=mask.long(), position_ids=position).logits
    assert_close(ours(tokens, mask=mask)[0][mask], expected[mask], "logits")


@pytest.mark.parametrize("case", MODELS)
def test_gradients(case):
    theirs, ours = transformer(MODELS[case])
    tokens = torch.randint(0, VOCABULARY, (2, 21))
    for model in (theirs, ours):
        logits = model(tokens)
        logits = logits[0] if isinstance(logits, tuple) else logits.logits
        logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).sum().backward()
    _, expected = llama.translate(theirs.config.to_dict(), gradients_of(theirs))
    expected.pop("head.weight")  # tied
    assert_same_gradients(gradients_of(ours), expected)
