"""The cache of `generate`: the state of a model, in the place of keys and values."""

from collections.abc import Callable, Iterator

from torch import Tensor
from transformers import Cache

from ..mixers import State
from ..model import map_state, state_tensors


class SolomonicCache(Cache):
    """The state of a `LanguageModel`, of all memories of all layers, that one call passes to the next.

    `state` None: nothing was read. `last` (B, d_model) is the last input of the head in each row, from which rows that end
    in padding go on. `documents`: (B,) for each argument by which the last call marked packed documents (`packing`). A
    fading memory cannot take back a token, so the cache cannot be cropped.
    """

    is_croppable = False
    is_compileable = False
    is_initialized = property(lambda self: self.state is not None)

    def __init__(self):
        super().__init__(layers=[])
        self.reset()

    def reset(self) -> None:
        self.state: State | None = None
        self.last: Tensor | None = None
        self.columns = 0
        self.documents: dict[str, Tensor] = {}

    def store(self, state: State, last: Tensor, columns: int, documents: dict[str, Tensor]) -> None:
        """Keep the state, and the rest, after a call of `columns` columns, padding among them."""
        self.state, self.last, self.documents = state, last, documents
        self.columns += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns read so far, those of padding among them."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """-1: there is no bound."""
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.columns + query_length, 0

    @property
    def batch_size(self) -> int:
        """Rows; -1 where nothing was read."""
        return -1 if self.last is None else self.last.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes that the cache takes, each tensor's whole storage once."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.tensors()}
        return sum(storages.values())

    def tensors(self) -> Iterator[Tensor]:
        if self.last is not None:
            yield self.last
        yield from self.documents.values()
        yield from (tensor for _, tensor in state_tensors(self.state or {}))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda x: x.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        """ValueError: only nothing can be taken back."""
        if tokens_to_remove:
            raise ValueError(
                f"crop: expected 0 tokens to take back, got {tokens_to_remove}; a fading memory cannot forget a token it has "
                "read: keep a copy.deepcopy of the cache from before"
            )

    def __len__(self) -> int:
        return 0 if self.state is None else len(self.state["layers"])

    def __repr__(self) -> str:
        return f"SolomonicCache(columns={self.columns}, batch_size={self.batch_size}, nbytes={self.nbytes})"

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.state is not None:
            assert self.last is not None
            self.state, self.last = map_state(change, self.state), change(self.last)
            self.documents = {name: change(tensor) for name, tensor in self.documents.items()}


__all__ = ["SolomonicCache"]
