"""Sessions: a text and the state of a model after it, in memory and on disk.

A `Session` is never changed, so that an earlier one is a place to go back to. Law, tested on every preset: a session that
was saved and loaded goes on bit by bit as the one that was not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._utils import jsontext
from ..checkpoints.folder import fingerprint
from ..checkpoints.tensors import digest, read_tensors, write_tensors
from ..model import LanguageModel, State, map_state, state_tensors

VERSION = 1
"""Version of the file format."""

KEY = "solomonic-session"


@dataclass(frozen=True)
class Session:
    """A text of one row: the state after the tokens that were read, and the `pending` ones, which were not yet."""

    state: State | None = None
    pending: tuple[int, ...] = ()

    @property
    def tokens_read(self) -> int:
        return 0 if self.state is None else int(self.state["position"][0])

    @property
    def length(self) -> int:
        return self.tokens_read + len(self.pending)

    @property
    def state_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for _, t in state_tensors(self.state or {}))

    def then(self, tokens: Sequence[int]) -> "Session":
        """The session with `tokens` after it, which are not read yet."""
        return replace(self, pending=(*self.pending, *map(int, tokens)))


class SessionFile:
    """A session on disk, one safetensors file, in which nothing is executed.

    It has the tensors of the state under dotted names, `pending`, and as metadata the version of this format, the
    fingerprint of the model and a digest of the tensors.
    """

    def __init__(self, path: str | Path, model: LanguageModel):
        self.path, self.model = Path(path), model
        self.fingerprint = fingerprint(model)

    def save(self, session: Session) -> None:
        """Replace the file by one of this session; after an error it is as it was."""
        tensors = dict(state_tensors(session.state or {}))
        tensors["pending"] = torch.tensor(session.pending, dtype=torch.int64)
        about = {"version": VERSION, "model": self.fingerprint, "contents": digest(tensors)}
        write_tensors(self.path, tensors, {KEY: json.dumps(about)})

    def load(self) -> Session:
        """The session in the file, on the model's device; a new one where the file is missing or empty.

        ValueError for a file that is damaged or no session's, or of another model, type or version of this format.
        """
        if not self.path.exists() or (self.path.is_file() and self.path.stat().st_size == 0):
            return Session()
        tensors, metadata = read_tensors(self.path)
        about = self._about(metadata.get(KEY))
        if about.get("version") != VERSION:
            raise self._refuse(f"one of version {about.get('version')!r}; this release reads version {VERSION}")
        if about.get("model") != self.fingerprint:
            raise self._refuse("one of another model or --dtype; use those that it was begun with, or another file")
        if about.get("contents") != digest(tensors):
            raise self._refuse("one whose contents are damaged; use a copy, or another file")
        return self._session(tensors)

    def _about(self, text: str | None) -> dict[str, Any]:
        try:
            about: dict[str, Any] = jsontext.parse(text or "null", KEY, dict)
        except ValueError:
            raise self._refuse("a file of other tensors; give the name of a new one") from None
        return about

    def _session(self, tensors: dict[str, Tensor]) -> Session:
        """The session of these tensors. ValueError where names, shapes or types are not those of the model's state."""
        pending = tensors.pop("pending", None)
        vocabulary = self.model.config.vocab_size
        if (
            pending is None
            or pending.dim() != 1
            or pending.dtype != torch.int64
            or not bool(((pending >= 0) & (pending < vocabulary)).all())
        ):
            raise self._refuse(f"one whose pending tokens are not whole numbers below {vocabulary}; use another file")
        unread = tuple(pending.tolist())
        if not tensors:
            return Session(None, unread)
        position = tensors.get("state.position")
        if position is None or position.shape != (1,) or position.dtype != torch.int64 or position[0] < 0:
            raise self._refuse("one that does not say how many tokens it has read; use another file")
        try:
            like = self.model.init_state(1, int(position[0]), "meta", self.model.embedding.weight.dtype)
        except RuntimeError:
            raise self._refuse(f"one of {int(position[0])} tokens, more than any has; use another file") from None
        expected = dict(state_tensors(like))
        for describe in (_shape, _dtype):
            for name in sorted(expected.keys() | tensors.keys()):
                wanted, actual = describe(expected.get(name)), describe(tensors.get(name))
                if wanted != actual:
                    raise self._refuse(f"one with {name} {actual}, not {wanted}; use another file")
        device = self.model.device
        names = iter(name for name, _ in state_tensors(like))
        return Session(map_state(lambda _: tensors[next(names)].to(device), like), unread)

    def _refuse(self, actual: str) -> ValueError:
        return ValueError(f"{self.path}: expected a session of this model, got {actual}")


def _shape(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else list(tensor.shape)


def _dtype(tensor: Tensor | None) -> torch.dtype | None:
    return None if tensor is None else tensor.dtype


__all__ = ["KEY", "Session", "SessionFile"]
