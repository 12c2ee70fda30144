"""The language model: embedding, pre-norm blocks of a mixer and a SwiGLU, tied or untied head.

Any hybrid is a list: `ModelConfig.layers` names the mixer of each block. Shapes: B rows, T tokens, V vocabulary.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.types import Device

from ._utils.spelling import unknown
from .layers import RMSNorm, SwiGLU
from .mixers import MixerConfig, State, build, config_from_dict
from .mixers.base import LARGEST, is_number
from .ops.composition import METHODS
from .ops.sequence import Sequences, Store


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int
    d_model: int
    layers: tuple[MixerConfig, ...]
    d_ff: int  # width of the SwiGLU, 0 for none
    tie_embeddings: bool = True
    embedding_scale: float = 1.0  # what embeddings are multiplied by on their way in
    norm_eps: float = 1e-5  # of the norms before mixers, MLPs and head

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)) or not all(isinstance(x, MixerConfig) for x in self.layers):
            raise ValueError(f"layers: expected a list of mixer configurations, got {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        if not all(type(n) is int for n in (self.vocab_size, self.d_model, self.d_ff)):
            raise ValueError(f"expected vocab_size, d_model and d_ff to be whole numbers, got {self}")
        if type(self.tie_embeddings) is not bool or not all(
            is_number(x) for x in (self.embedding_scale, self.norm_eps)
        ):
            raise ValueError(
                f"expected tie_embeddings to be true or false, embedding_scale and norm_eps numbers, got {self}"
            )
        if self.vocab_size < 1 or self.d_model < 1 or self.d_ff < 0 or not self.layers:
            raise ValueError(f"expected vocab_size >= 1, d_model >= 1, d_ff >= 0 and at least one layer, got {self}")
        if max(self.vocab_size, self.d_model, self.d_ff) > LARGEST:
            raise ValueError(
                f"expected vocab_size, d_model and d_ff of at most {LARGEST:,}, got {self.vocab_size}, {self.d_model} and "
                f"{self.d_ff}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` is the inverse."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {"layers": [layer.to_dict() for layer in self.layers]}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "ModelConfig":
        allowed = [f.name for f in fields(cls)]
        for key in settings:
            if key not in allowed:
                raise unknown("setting of the model", key, allowed)
        missing = {"vocab_size", "d_model", "layers", "d_ff"} - settings.keys()
        layers = settings.get("layers")
        if missing or not isinstance(layers, (list, tuple)) or not all(isinstance(layer, dict) for layer in layers):
            lacks = f"{', '.join(sorted(missing))} missing" if missing else f"layers {layers!r}"
            raise ValueError(f"model configuration: expected what `to_dict` gives, got one with {lacks}")
        return cls(**settings | {"layers": [config_from_dict(layer) for layer in settings["layers"]]})


class Block(nn.Module):
    """x + mixer(norm(x)), and then x + mlp(norm(x)) where there is an MLP."""

    __call__: Callable[..., tuple[Tensor, State]]  # of `forward`

    def __init__(self, config: ModelConfig, mixer: MixerConfig):
        super().__init__()
        self.mixer_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = build(mixer, config.d_model)
        if config.d_ff:
            self.mlp_norm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config.d_model, config.d_ff) if config.d_ff else None

    def forward(self, x: Tensor, state: State | None, sequences: Sequences) -> tuple[Tensor, State]:
        y, state = self.mixer(self.mixer_norm(x), state, sequences)
        x = x + y
        return x if self.mlp is None else x + self.mlp(self.mlp_norm(x)), state


class CausalModel(Protocol):
    """What is called as a language model is: `LanguageModel` itself, one with a store, several that are mixed.

    `logits, state = model(tokens, state)`: tokens (B, T) int64, mask (B, T) bool with False at padding, logits (B, T, V).
    The laws of `LanguageModel` hold, but for packed documents, which only that takes.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> torch.device:
        """Where its tokens and states are."""

    def __call__(
        self, tokens: Tensor, state: State | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, State]: ...


class LanguageModel(nn.Module):
    """`logits, state = model(tokens, state)`: training, prefill and decoding are this one call.

    Any cut of the tokens into calls that pass the state on gives the same logits, state and gradients. The state is a
    nested structure of tensors whose first axis is the batch: detach it, move it, save it. Padding (`mask` False)
    and other documents (`segments`) change nothing of a real token's logits, nor the state.
    """

    Block: ClassVar[type[Block]] = Block
    __call__: Callable[..., tuple[Tensor, State]]  # of `forward`

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        blocks = nn.ModuleList(self.Block(config, mixer) for mixer in config.layers)
        self.blocks = cast(Sequence[Block], blocks)  # a ModuleList does not say of what
        self.bounded = all(block.mixer.bounded for block in self.blocks)
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        with torch.no_grad():
            for block in self.blocks:
                for output in block.mixer.outputs + ([block.mlp.down] if block.mlp else []):
                    output.weight /= (2 * len(self.blocks)) ** 0.5
        # Of every tensor of a state the shape but for the batch, and the type. Taken here, as wrappers hide a module's methods.
        state = self.init_state(1, 0, "meta")
        self._expected = {name: (x.shape[1:], x.dtype) for name, x in state_tensors(state)}

    @property
    def device(self) -> torch.device:
        """Where tokens and states have to be: the device of the embeddings."""
        return self.embedding.weight.device

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        stores: Sequence[Store | None] | None = None,
        dropped: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """tokens (B, T) int64, state of the tokens before, mask (B, T) bool, segments (B, T) int64 non-decreasing.

        Returns logits (B, T, V) and the state after the last real token. Without `segments` the tokens continue the
        state's document; with them, a row whose id differs from the one before begins a document. Logits at padding
        are those of the real token before it, and mean nothing where there is none. `stores` are the blocks'
        `Sequences.store`. `dropped` (B,) bool are rows in which layers that attend do not read their fading memory beside
        the softmax, whose gate is open there (`TrainConfig.fading_dropout`). Raises ValueError for arguments of another shape or type, or a state
        of another configuration.
        """
        x = self.embed(tokens, mask)
        x, state = self.hidden(x, state, mask=mask, segments=segments, stores=stores, dropped=dropped)
        return self.head(x), state

    def embed(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (B, T) int64 -> (B, T, d_model). ValueError for another shape or type, or a real token out of range."""
        self._check_tokens(tokens, mask)
        embeddings: Tensor = self.embedding(tokens if mask is None else tokens.masked_fill(~mask, 0))
        return embeddings

    def hidden(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        trace: list[Tensor] | None = None,
        stores: Sequence[Store | None] | None = None,
        dropped: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """x (B, T, d_model), as `embed` returns it -> the input of the head (B, T, d_model), and the state.

        The input of each block (B, T, d_model) is appended to `trace`. Other arguments and errors are those of `forward`.
        """
        self._check(x, state, mask, segments)
        _check_beside("dropped", dropped, x.shape[:1], torch.bool)
        length = order = rank = None
        if mask is not None:
            length, padding = mask.sum(1), ~mask
            # where each row goes: real tokens first, in their order
            target = torch.where(mask, mask.cumsum(1), length[:, None] + padding.cumsum(1)) - 1
            row = torch.arange(target.shape[1], device=target.device).expand_as(target)
            order = torch.zeros_like(target).scatter(1, target, row)
            rank = (mask.cumsum(1) - 1).clamp_min(0)
            x = _rows(x.masked_fill(~mask[..., None], 0), order)
            segments = None if segments is None else segments.gather(1, order)
        sequences, segment = self._sequences(x, state, length, segments)
        sequences = sequences if dropped is None else replace(sequences, dropped=dropped)
        x = x * self.config.embedding_scale
        layers = []
        before = state["layers"] if state else [None] * len(self.blocks)
        for i, block in enumerate(self.blocks):
            if trace is not None:
                trace.append(_rows(x, rank))
                x = _rows(trace[-1], order)
            here = sequences if stores is None or stores[i] is None else replace(sequences, store=stores[i])
            x, after = block(x, before[i], here)
            layers.append(after)
        return _rows(self.norm(x), rank), {"position": sequences.end, "segment": segment, "layers": layers}

    def compose(self, states: list[State], how: str = "picaso") -> State:
        """One state for documents that were read apart, each from nothing, of the N states after them, in their order.

        The model goes on from it as from the end of a document that consists of these. `how` is one of
        `ops.composition.METHODS` and says how fading memories treat the order of the documents: "picaso" takes the mean
        over all orders, "cyclic" over the cyclic shifts of the given one, "sequence" the given order, "soup" the plain
        mean. The other memories are as after reading in the given order: the window has the last tokens, the eidetic
        memory the best of all. The laws are in `mixers.base`. All states have the same batch size. Raises ValueError for
        no states, states of another configuration or batch size, an unknown `how`, or a layer of full attention.
        """
        if not isinstance(states, (list, tuple)) or not states:
            got = "none" if isinstance(states, (list, tuple)) else type(states).__name__
            raise ValueError(f"states: expected a list of one state or more, got {got}; pass [state, ...]")
        if how not in METHODS:
            raise unknown("way to compose", how, METHODS)
        for state in states:
            self._check_state(None if state is states[0] else len(states[0]["position"]), state)
        lengths = torch.stack([state["position"] for state in states])
        by_layer = zip(*(state["layers"] for state in states))
        layers = [block.mixer.compose(list(layer), lengths, how) for block, layer in zip(self.blocks, by_layer)]
        return {"position": lengths.sum(0), "segment": states[-1]["segment"].clone(), "layers": layers}

    def init_state(self, batch: int, length: int = 0, device: Device = None, dtype: torch.dtype | None = None) -> State:
        """Zeros in the shapes of the state after `length` tokens; for length 0 it is the state that None stands for."""
        count = torch.zeros(batch, dtype=torch.int64, device=device)
        layers = [block.mixer.init_state(batch, length, device, dtype) for block in self.blocks]
        return {"position": count, "segment": count.clone(), "layers": layers}

    def state_bytes(self, length: int, batch: int = 1) -> int:
        """Bytes that the state of `batch` rows takes after `length` tokens."""
        state = self.init_state(batch, length, "meta", self.embedding.weight.dtype)
        return sum(t.numel() * t.element_size() for _, t in state_tensors(state))

    def _sequences(
        self, x: Tensor, state: State | None, length: Tensor | None, segments: Tensor | None
    ) -> tuple[Sequences, Tensor]:
        (B, T), device = x.shape[:2], x.device
        row = torch.arange(T, device=device)[None]
        before = state["position"] if state else torch.zeros(B, dtype=torch.int64, device=device)
        segment = state["segment"] if state else torch.zeros(B, dtype=torch.int64, device=device)
        position = before[:, None] + row if state else row
        count = torch.full((B,), T, device=device) if length is None else length
        if segments is not None:
            if _may_read(device) and ((segments.diff(dim=1) < 0) & (row[:, 1:] < count[:, None])).any():
                raise ValueError("segments: expected document ids that never decrease along a row")
            first = segments[:, :1] if state is None else segment[:, None]
            begins = (torch.cat([first, segments[:, :-1]], 1) != segments) & (row < count[:, None])
            document = begins.cumsum(1)
            start = torch.full((B, T + 2), -1, device=device)  # of each document; the last column is for other rows
            start = start.scatter(1, torch.where(begins, document, T + 1), row.expand(B, -1)).gather(1, document)
            position = torch.where(start >= 0, row - start, position)
        end = before + count
        if T and (segments is not None):
            final = (count - 1).clamp_min(0)[:, None]
            end = torch.where(count > 0, position.gather(1, final)[:, 0] + 1, before)
            segment = torch.where(count > 0, segments.gather(1, final)[:, 0], segment)
        ragged = length is not None or segments is not None
        grows = state is not None and not torch.compiler.is_compiling()
        # Rows that an unbounded state may drop. A device is waited for only where they would pile up call by call.
        look = ragged and not self.bounded and (grows or _may_read(device))
        longest = int(end.max()) if look else None
        aligned = state is None and segments is None
        return Sequences(position, end, length, aligned, segments is not None, longest), segment

    def _check_tokens(self, tokens: Tensor, mask: Tensor | None) -> None:
        valid = isinstance(tokens, Tensor) and tokens.dim() == 2 and tokens.dtype == torch.int64
        if not valid or 0 in tokens.shape:
            raise ValueError(f"tokens: expected (B, T) int64 with B >= 1 and T >= 1, got {_shape(tokens)}")
        _check_beside("mask", mask, tokens.shape, torch.bool)
        if not _may_read(tokens.device):
            return
        real = tokens if mask is None else tokens[mask]
        if real.numel() and not 0 <= int(real.min()) <= int(real.max()) < self.config.vocab_size:
            raise ValueError(
                f"tokens: expected values in [0, {self.config.vocab_size}), got {int(real.min())} to {int(real.max())}"
            )

    def _check(self, x: Tensor, state: State | None, mask: Tensor | None, segments: Tensor | None) -> None:
        width = self.config.d_model
        valid = isinstance(x, Tensor) and x.dim() == 3 and x.shape[2] == width and x.is_floating_point()
        if not valid or 0 in x.shape:
            raise ValueError(f"embeddings: expected (B, T, {width}) floats, B >= 1 and T >= 1, got {_shape(x)}")
        _check_beside("mask", mask, x.shape[:2], torch.bool)
        _check_beside("segments", segments, x.shape[:2], torch.int64)
        if state is not None:
            self._check_state(x.shape[0], state)

    def _check_state(self, batch: int | None, state: State) -> None:
        """ValueError unless names and shapes are those of this configuration; an unbounded mixer may have any number of rows.

        `batch` None accepts any batch size.
        """
        remedy = "use the state of a model with this configuration, or None"
        try:
            tensors = dict(state_tensors(state))
        except TypeError:
            raise ValueError(f"state: expected what a call returned, got {type(state).__name__}; {remedy}") from None
        if batch is None:
            batch = next((t.shape[0] for t in tensors.values() if t.dim()), 0)
        if tensors.keys() != self._expected.keys():
            name = min(tensors.keys() ^ self._expected.keys())
            raise ValueError(
                f"state: {name} is {'missing' if name in self._expected else 'not of this model'}; {remedy}"
            )
        for name, (shape, dtype) in self._expected.items():
            tensor, want = tensors[name], [batch, *shape]
            if want[1:2] == [0]:  # an unbounded mixer's rows, as many in its keys as in its values
                want[1:2] = tensors[name.removesuffix(".v") + ".k" if name.endswith(".v") else name].shape[1:2]
            if list(tensor.shape) != want or tensor.is_floating_point() != dtype.is_floating_point:
                kind = "floating point" if dtype.is_floating_point else dtype
                raise ValueError(f"state: expected {name} of shape {want}, {kind}, got {_shape(tensor)}; {remedy}")


def sizes(config: ModelConfig) -> tuple[int, int]:
    """(parameters, bytes of the state of one row that has read nothing) of a model, without building it.

    ValueError for sizes that no tensor can have, or that do not fit one another.
    """
    numbers = config.d_model * (1 + config.vocab_size * (1 if config.tie_embeddings else 2))
    state = 0
    try:
        with torch.device("meta"):
            for mixer, count in Counter(config.layers).items():
                block = Block(config, mixer)
                numbers += count * sum(p.numel() for p in block.parameters())
                state += count * sum(t.nbytes for _, t in state_tensors(block.mixer.init_state(1, 0, "meta")))
    except (RuntimeError, TypeError, OverflowError):
        raise ValueError(
            f"expected sizes that a tensor can have, got d_model {config.d_model}, d_ff {config.d_ff}, {mixer}"
        ) from None
    return numbers, state


def state_tensors(state: State, name: str = "state") -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of a nested structure, depth first. TypeError for anything else."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from state_tensors(value, f"{name}.{key}")
    else:
        raise TypeError(f"{name}: {type(state).__name__}")


def map_state(change: Callable[[Tensor], Tensor], state: State) -> State:
    """The same structure with every tensor changed, in the order of `state_tensors`."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: map_state(change, value) for key, value in state.items()}
    return [map_state(change, value) for value in state]


def _rows(x: Tensor, index: Tensor | None) -> Tensor:
    """The rows `index` (B, T) of x (B, T, D), all of them where it is None."""
    return x if index is None else x.gather(1, index[..., None].expand_as(x))


def _check_beside(name: str, value: Any, shape: torch.Size, dtype: torch.dtype) -> None:
    if value is not None and not (isinstance(value, Tensor) and value.shape == shape and value.dtype == dtype):
        raise ValueError(f"{name}: expected {tuple(shape)} {dtype}, beside the tokens, got {_shape(value)}")


def _may_read(device: torch.device) -> bool:
    """Whether values of arguments may be read: elsewhere that would wait for the device, or break a graph."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


def _shape(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


__all__ = ["Block", "CausalModel", "LanguageModel", "ModelConfig", "State", "map_state", "sizes", "state_tensors"]
