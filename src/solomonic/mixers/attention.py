"""Softmax attention with grouped queries and rotary positions: over everything, or a sliding window."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.types import Device

from ..layers import RMSNorm
from ..ops.memory_attention import memory_attention
from ..ops.memory_attention.state import init_state
from ..ops.rotary import Scaling, rotary
from ..ops.sequence import Sequences, advance
from .base import Mixer, MixerConfig, State, is_number


@dataclass(frozen=True)
class AttentionConfig(MixerConfig):
    """`window` None attends to the whole document; else to the last `window` tokens, the present one included.

    `rotary_scaling` is what `ops.rotary.Scaling` says; `norm_eps` is of the norms of queries and keys.
    """

    name = "attention"
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: as many as n_heads
    window: int | None = None
    rotary_base: float = 10000.0
    qk_norm: bool = True
    norm_eps: float = 1e-5
    head_dim: int | None = None  # None: d_model / n_heads
    qkv_bias: bool = False
    rotary_scaling: Scaling | None = None

    def __post_init__(self) -> None:
        self.require_whole(n_heads=1, n_kv_heads=1, window=1, head_dim=2)
        self.require(self.n_heads % self.kv_heads == 0, "n_heads a multiple of n_kv_heads")
        self.require(is_number(self.rotary_base) and self.rotary_base > 0, "rotary_base > 0")
        self.require(is_number(self.norm_eps) and self.norm_eps >= 0, "norm_eps >= 0")
        self.require((self.head_dim or 2) % 2 == 0, "an even head_dim")
        if self.rotary_scaling is not None:
            object.__setattr__(self, "rotary_scaling", tuple(self.rotary_scaling))
            valid = len(self.rotary_scaling) == 4 and all(map(is_number, self.rotary_scaling))
            factor, low, high, length = self.rotary_scaling if valid else (0, 0, 0, 0)
            self.require(
                factor > 0 and 0 <= low < high and length >= 0,
                "rotary_scaling: factor > 0, 0 <= low < high, length >= 0",
            )

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads


class Projections(nn.Module):
    """Queries, keys and values of a layer: (B, T, d_model) -> (B, T, heads, head_dim) each, queries and keys normed."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        kv_heads: int,
        qk_norm: bool = True,
        norm_eps: float = 1e-5,
        head_dim: int | None = None,
        bias: bool = False,
    ):
        super().__init__()
        if head_dim is None and (d_model % n_heads or (d_model // n_heads) % 2):
            raise ValueError(f"expected d_model = n_heads x an even number, got d_model={d_model}, n_heads={n_heads}")
        self.dim = d_model // n_heads if head_dim is None else head_dim
        self.q = nn.Linear(d_model, n_heads * self.dim, bias)
        self.k = nn.Linear(d_model, kv_heads * self.dim, bias)
        self.v = nn.Linear(d_model, kv_heads * self.dim, bias)
        self.q_norm = RMSNorm(self.dim, norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.dim, norm_eps) if qk_norm else nn.Identity()

    def query(self, x: Tensor) -> Tensor:
        query: Tensor = self.q_norm(self.q(x).unflatten(-1, (-1, self.dim)))
        return query

    def key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.k_norm(self.k(x).unflatten(-1, (-1, self.dim))), self.v(x).unflatten(-1, (-1, self.dim))


class Attention(Mixer):
    Config = AttentionConfig
    config: AttentionConfig
    summary = "softmax attention, full or over a sliding window"

    def __init__(self, d_model: int, config: AttentionConfig):
        super().__init__(d_model, config)
        self.bounded = config.window is not None
        self.project = Projections(
            d_model,
            config.n_heads,
            config.kv_heads,
            config.qk_norm,
            config.norm_eps,
            config.head_dim,
            config.qkv_bias,
        )
        self.out = nn.Linear(config.n_heads * self.project.dim, d_model, bias=False)

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        rows = length if self.config.window is None else self.config.window
        heads, dim = self.config.kv_heads, self.project.dim
        return init_state(batch, heads, dim, window=rows, span=0, capacity=0, device=device, dtype=dtype) or {
            name: torch.zeros(batch, 0, heads, dim, device=device, dtype=dtype) for name in ("k", "v")
        }

    def forward(self, x: Tensor, state: State | None, sequences: Sequences) -> tuple[Tensor, State]:
        config = self.config
        q, (k, v) = self.project.query(x), self.project.key_value(x)
        if config.window is None:
            y, state = self._full(q, k, v, state, sequences)
        else:
            y, state = memory_attention(
                q,
                k,
                v,
                state,
                sequences,
                window=config.window,
                block=config.window,
                base=config.rotary_base,
                scaling=config.rotary_scaling,
                observe=None if self.observer is None else self.observer.attend,
            )
        return self.out(y.flatten(2)), state

    def _full(self, q: Tensor, k: Tensor, v: Tensor, state: State | None, sequences: Sequences) -> tuple[Tensor, State]:
        """All of the document is a ring that grows; keys are kept rotated by their position in the document."""
        T = q.shape[1]
        q, k = (rotary(x, sequences.position, self.config.rotary_base, self.config.rotary_scaling) for x in (q, k))
        if state is not None:
            k, v = torch.cat([state["k"].to(k.dtype), k], 1), torch.cat([state["v"].to(v.dtype), v], 1)
        visible = None
        if not sequences.aligned:
            S = k.shape[1]
            lag = torch.arange(S - T, S, device=q.device)[:, None] - torch.arange(S, device=q.device)
            visible = ((lag >= 0) & (lag <= sequences.position[..., None]))[:, None]
        y = scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=visible,
            is_causal=sequences.aligned,
            enable_gqa=self.config.kv_heads != self.config.n_heads,
        )
        size = k.shape[1] if sequences.longest is None else sequences.longest
        return y.transpose(1, 2), {"k": advance(k, sequences, size), "v": advance(v, sequences, size)}
