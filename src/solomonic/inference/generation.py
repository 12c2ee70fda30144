"""Generation: tokens as they come, for one text or a batch of them, and sessions that last longer than the process.

B texts, V vocabulary. A `Session` is where a model is in a text: its state and the tokens that it has not read yet. It
is never changed, so that an earlier one is a place to go back to. Laws, tested on every preset: a prompt read in chunks
is the prompt read at once; a text in a batch gets the tokens that it gets alone; a session that was saved and loaded
goes on bit by bit as the one that was not.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._utils import jsontext
from ..checkpoints.folder import fingerprint
from ..checkpoints.tensors import read_tensors, write_tensors
from ..model import LanguageModel, State, map_state, state_tensors

CHUNK = 2048
"""Tokens of a prompt read in one call, at most; the state carries what was read on to the next."""

LOGITS = 1 << 26
"""Logits of one call, at most: 256 MiB in float32."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: of the `top_k` likeliest, of those the likeliest that make up `top_p`.

    Logits are divided by `temperature` first; at 0 it is the likeliest token, whatever the rest says. Token n of a text
    depends on the seed, n and the logits alone: it is the same on every machine, in a batch, after an interruption.
    """

    temperature: float = 0.0
    top_k: int | None = None  # None: all
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: expected a number >= 0, got {self.temperature}")
        if self.top_k is not None and not (type(self.top_k) is int and self.top_k >= 1):
            raise ValueError(f"top_k: expected a whole number >= 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected 0 < top_p <= 1, got {self.top_p}")

    def choose(self, logits: Tensor, position: int) -> int:
        """The token at `position` of its text, by the logits (V,) for it. ValueError where they are not finite."""
        logits = logits.double()
        best = int(logits.argmax())
        if not logits[best].isfinite():
            raise ValueError(f"expected finite logits, got {logits[best].item()}; the model's weights are damaged")
        if self.temperature == 0:
            return best
        order = None
        if self.top_k is not None or self.top_p < 1:
            logits, order = logits.topk(min(self.top_k or len(logits), len(logits)))
        mass = ((logits - logits.max()) / self.temperature).softmax(-1).cumsum(-1)
        kept = mass[: 1 + int((mass[:-1] < self.top_p).sum())]
        at = int((kept[:-1] <= self._uniform(position) * kept[-1]).sum())
        return at if order is None else int(order[at])

    def _uniform(self, position: int) -> float:
        """A number in [0, 1) that seed and position alone decide."""
        digest = blake2b(f"{self.seed} {position}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


@dataclass(frozen=True)
class Session:
    """A text of one row, as far as it goes: the state after the tokens that were read, and those still to read."""

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
        """The text goes on with `tokens`, which are not read yet."""
        return replace(self, pending=(*self.pending, *map(int, tokens)))


def read(model: LanguageModel, session: Session, chunk: int = CHUNK) -> Iterator[Session]:
    """Read what is pending but for the last token, which is for `stream` to read; the session after every chunk."""
    rest = session.pending[:-1]
    for state, done in _read(model, session.state, [rest], chunk):
        yield Session(state, session.pending[done:])


def stream(
    model: LanguageModel,
    session: Session,
    sampling: Sampling = Sampling(),
    *,
    max_tokens: int,
    ends: Collection[int] = (),
    chunk: int = CHUNK,
) -> Iterator[tuple[int, Session]]:
    """Each token as it comes, with the session that ends in it; the last one is `max_tokens`' or one of `ends`.

    What is pending is read first. ValueError where nothing is: there is nothing to go on from. States come out of
    inference mode: clone their tensors to differentiate through them.
    """
    for token, _, session in steps(model, session, sampling, max_tokens=max_tokens, ends=ends, chunk=chunk):
        yield token, session


def steps(
    model: LanguageModel,
    session: Session,
    sampling: Sampling = Sampling(),
    *,
    max_tokens: int,
    ends: Collection[int] = (),
    chunk: int = CHUNK,
) -> Iterator[tuple[int, Tensor, Session]]:
    """As `stream`, with the logits (V,) by which each token was drawn."""
    if not session.pending:
        raise ValueError("expected at least one token to go on from, got an empty text; give a prompt")
    for session in read(model, session, chunk):
        pass
    for _ in range(max_tokens):
        logits, state = _step(model, session.pending, session.state)
        token = sampling.choose(logits[0], session.length)
        session = Session(state, (token,))
        yield token, logits[0], session
        if token in ends:
            return


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = Sampling(),
    *,
    max_tokens: int,
    ends: Collection[int] = (),
    chunk: int = CHUNK,
) -> list[list[int]]:
    """What follows each of the prompts, of any lengths, as one batch; each ends for itself, as in `stream`.

    Row i is drawn with the seed of `sampling` plus i. ValueError for an empty prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("expected at least one token to go on from, got an empty prompt")
    texts: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts))) if max_tokens > 0 else []
    last = [int(prompt[-1]) for prompt in prompts]
    state = None
    for state, _ in _read(model, None, [prompt[:-1] for prompt in prompts], chunk) if rows else ():
        pass
    while rows:
        logits, state = _step(model, last, state)
        last = [
            replace(sampling, seed=sampling.seed + row).choose(logits[i], len(prompts[row]) + len(texts[row]))
            for i, row in enumerate(rows)
        ]
        for row, token in zip(rows, last):
            texts[row].append(token)
        going = [i for i, row in enumerate(rows) if last[i] not in ends and len(texts[row]) < max_tokens]
        if len(going) < len(rows):
            at = torch.tensor(going, dtype=torch.int64, device=model.embedding.weight.device)
            state = map_state(lambda tensor: tensor[at], state)
            rows, last = [rows[i] for i in going], [last[i] for i in going]
    return texts


@torch.inference_mode()
def _step(model: LanguageModel, tokens: Sequence[int], state: State | None) -> tuple[Tensor, State]:
    """One more token of each row -> logits (B, V) for the next, on the CPU."""
    logits, state = model(torch.tensor(tokens, device=model.embedding.weight.device)[:, None], state)
    return logits[:, -1].cpu(), state


@torch.inference_mode()
def _read(
    model: LanguageModel, state: State | None, rows: Sequence[Sequence[int]], chunk: int
) -> Iterator[tuple[State, int]]:
    """(the state, how much of the longest row is read) after every chunk; shorter rows are padded on the right."""
    device, longest = model.embedding.weight.device, max(map(len, rows), default=0)
    chunk = max(1, min(chunk, LOGITS // (len(rows) * model.config.vocab_size))) if longest else 1
    for start in range(0, longest, chunk):
        end = min(start + chunk, longest)
        parts = [torch.tensor(row[start:end], dtype=torch.int64) for row in rows]
        tokens = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        mask = torch.arange(end - start) < torch.tensor([len(part) for part in parts])[:, None]
        _, state = model(tokens.to(device), state, mask=None if mask.all() else mask.to(device))
        yield state, end


VERSION = 1
"""Of the file of a session."""

KEY = "solomonic-session"


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
        about = {"version": VERSION, "model": self.fingerprint, "contents": _digest(tensors)}
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
        if about.get("contents") != _digest(tensors):
            raise self._refuse("one whose contents are damaged; use a copy, or another file")
        return self._session(tensors)

    def _about(self, about: str | None) -> dict[str, Any]:
        try:
            return jsontext.parse(about or "null", KEY, dict)
        except ValueError:
            raise self._refuse("a file of other tensors; give the name of a new one") from None

    def _session(self, tensors: dict[str, Tensor]) -> Session:
        """The state nested as the model has it; every tensor has its place, and the shape and kind of that."""
        pending = tensors.pop("pending", None)
        vocabulary = self.model.config.vocab_size
        whole = pending is not None and pending.dim() == 1 and pending.dtype == torch.int64
        if not whole or not bool(((pending >= 0) & (pending < vocabulary)).all()):
            raise self._refuse(f"one whose pending tokens are not whole numbers below {vocabulary}; use another file")
        pending = tuple(pending.tolist())
        if not tensors:
            return Session(None, pending)
        position = tensors.get("state.position")
        if position is None or position.shape != (1,) or position.dtype != torch.int64 or position[0] < 0:
            raise self._refuse("one that does not say how many tokens it has read; use another file")
        try:
            like = self.model.init_state(1, int(position[0]), "meta", self.model.embedding.weight.dtype)
        except RuntimeError:
            raise self._refuse(f"one of {int(position[0])} tokens, more than any has; use another file") from None
        expected = dict(state_tensors(like))
        for what in ("shape", "dtype"):
            want, came = ({name: getattr(t, what) for name, t in some.items()} for some in (expected, tensors))
            for name in sorted(want.keys() | came.keys()):
                if want.get(name) != came.get(name):
                    there, wanted = (list(x) if isinstance(x, tuple) else x for x in (came.get(name), want.get(name)))
                    raise self._refuse(f"one with {name} {there}, not {wanted}; use another file")
        device = self.model.embedding.weight.device
        names = iter(name for name, _ in state_tensors(like))
        return Session(map_state(lambda _: tensors[next(names)].to(device), like), pending)

    def _refuse(self, came: str) -> ValueError:
        return ValueError(f"{self.path}: expected a session of this model, got {came}")


def _digest(tensors: dict[str, Tensor]) -> str:
    """32 hexadecimal digits of the names, types, shapes and contents."""
    digest = blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy() if tensor.numel() else b"")
    return digest.hexdigest()


__all__ = ["CHUNK", "Sampling", "Session", "SessionFile", "generate", "read", "steps", "stream"]
