"""Text to tokens and back: bytes by default, or any `tokenizer.json` of the tokenizers library.

Bytes are a tokenizer file too (byte-level BPE without merges), so that whoever reads `tokenizer.json` reads ours.
"""

import codecs
import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from .._utils import jsontext
from .._utils.spelling import shortened, warn

END = "<|end|>"
ENDS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "[EOS]", "[SEP]")
"""Names under which tokenizers are known to have the token that ends a document."""


PANIC = "PanicException"
"""What a library written in Rust raises when it panics; it is no Exception, and has no name to import."""

HELD = 16
"""Tokens after which a stream no longer waits for the rest of a character: four make one, in any tokenizer."""


class Tokenizer:
    """`encode` and `decode`; `vocab_size`; `end`, the token that ends a document; `ends`, all that end a text.

    A document's text never gives a special token, whatever it holds. `end` is one, unless the model says that an
    ordinary token ends its texts; it is None, and `ends` are none, only where there is no room for one.
    """

    def __init__(self, inner: tokenizers.Tokenizer, ends: Sequence[int | str] = (), most: int | None = None):
        """`ends`: tokens that end a text, as the settings of the model name them: by id, or special tokens by name.

        Without `ends`, and without any of `ENDS`, `<|end|>` is added, unless that makes more than `most` tokens.
        """
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        size = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        ids = [inner.token_to_id(end) if isinstance(end, str) else end for end in ends]
        end_ids = [i for i in ids if i is not None and i >= 0]
        names = [name for i in end_ids if i < size and (name := inner.id_to_token(i)) is not None]
        known = {t.content for t in inner.get_added_tokens_decoder().values() if t.special}
        named = [name for name in names if name in ends]
        candidates = [
            *(name for name in ENDS if name in names),
            *(name for name in names if name in known or name in named),
            *(name for name in ENDS if inner.token_to_id(name) is not None),
        ]
        if not candidates and not names and (most is None or size < most):
            candidates = [END]
        inner.add_special_tokens(sorted({*candidates[:1], *named} - known))
        self.inner = inner
        self.end_name: str | None = next(iter([*candidates, *names]), None)
        self.end: int | None = None if self.end_name is None else inner.token_to_id(self.end_name)
        self.ends = frozenset(i for i in (self.end, *end_ids) if i is not None)
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.specials = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
        self.is_bytes = _is_bytes(inner)
        self._apart = {} if self.is_bytes else self._spelt()

    @classmethod
    def for_bytes(cls, end: bool = True) -> "Tokenizer":
        """Byte b is token b; 256 ends a document, unless there is no `end`."""
        model = tokenizers.models.BPE(vocab={c: i for c, i in byte_vocab().items() if i < 256}, merges=[])
        inner = tokenizers.Tokenizer(model)
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        if end:
            inner.add_special_tokens([END])
        return cls(inner, most=None if end else 256)

    @classmethod
    def for_words(cls, words: Sequence[str]) -> "Tokenizer":
        """Word i is token i, with spaces between words; nothing ends a document. The words are distinct, without spaces."""
        vocab = {word: i for i, word in enumerate(words)}
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab))
        inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        return cls(inner, most=len(vocab))

    @classmethod
    def load(cls, path: str | Path, most: int | None = None) -> "Tokenizer":
        """From a `tokenizer.json`, with `end_tokens` of its folder. ValueError for anything else."""
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        problem = None if path.is_file() else "it is no file" if path.exists() else "it is not there"
        try:
            content = "" if problem else path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            problem = "it is not text"
        if problem:
            raise ValueError(f"{path}: expected a tokenizer.json of the tokenizers library; {problem}")
        ends = end_tokens(path.parent)
        tokenizer = cls.from_json(content, str(path), ends, most)
        size = max(tokenizer.vocab_size, most or 0)
        for odd in (end for end in ends if isinstance(end, int) and not 0 <= end < size):
            warn(f"{path.parent}: eos_token_id {odd} is none of the {size:,} tokens, so that no text ends at it")
        return tokenizer

    @classmethod
    def from_json(
        cls, content: str, name: str = "tokenizer", ends: Sequence[int | str] = (), most: int | None = None
    ) -> "Tokenizer":
        """From the text of a `tokenizer.json`, which `name` calls in an error; the rest as for `Tokenizer`."""
        try:
            return cls(tokenizers.Tokenizer.from_str(content), ends, most)
        except BaseException as error:  # the library raises nothing narrower than Exception, and panics are none
            if not isinstance(error, Exception) and type(error).__name__ != PANIC:
                raise
            raise ValueError(f"{name}: expected a tokenizer.json of the tokenizers library; it says {error}") from None

    def to_json(self) -> str:
        return json.dumps(json.loads(self.inner.to_str()), ensure_ascii=False, indent=1)

    def encode(self, text: str | bytes) -> np.ndarray:
        """Token ids (N,) int64. Bytes that are not UTF-8 keep their value in a tokenizer of bytes, and are replaced in others."""
        data = _utf8(text) if isinstance(text, str) else text
        if self.is_bytes:
            return np.frombuffer(data, dtype=np.uint8).astype(np.int64)
        readable = data.decode("utf-8", "replace")
        try:
            ids = self._ids(readable)
        except Exception as error:  # the library raises nothing narrower
            words = " ".join(name for i in range(4) if (name := self.inner.id_to_token(i)) is not None)
            raise ValueError(
                f"expected text in tokens that the model knows, such as {words!r}, "
                f"got {shortened(readable)!r} ({error})"
            ) from None
        if not self._apart.keys().isdisjoint(ids):
            ids = [piece for token in ids for piece in self._apart.get(token, [token])]
        return np.array(ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of the tokens: without special tokens, and with U+FFFD for bytes that are not UTF-8."""
        if self.is_bytes:
            return bytes(t for t in map(int, tokens) if t < 256).decode("utf-8", "replace")
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=True)

    def spelt(self, tokens: Sequence[int]) -> str:
        """As `decode`, with special tokens by their names."""
        if self.is_bytes:
            names = {i: name.encode() for name, i in self.specials.items()}
            parts = (names.get(t, bytes([t]) if t < 256 else b"") for t in map(int, tokens))
            return b"".join(parts).decode("utf-8", "replace")
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=False)

    def piece(self, token: int) -> bytes | None:
        """The bytes of a token inside a text, in UTF-8, which may be a part of a character; None for one without text."""
        if self.is_bytes:
            return bytes([token]) if token < 256 else None
        name = self.inner.id_to_token(token)
        if name is None or name in self.specials:
            return None
        if isinstance(self.inner.decoder, tokenizers.decoders.ByteLevel) and _byte_values().keys() >= set(name):
            return bytes(_byte_values()[character] for character in name)
        if byte := re.fullmatch("<0x([0-9A-F]{2})>", name):
            return bytes.fromhex(byte[1])
        before = self._known("a")  # so that a space that the token begins with is seen
        text = self.decode([*before, token])[len(self.decode(before)) :]
        return None if not text or "\ufffd" in text else text.encode()

    def stream(self) -> Callable[[int | None], str]:
        """A function from the next token to the text that it completes: "" inside a character.

        None ends the text and returns the rest. Together this is the text of `decode`, but where the library's decoder
        changes text that came before.
        """
        if self.is_bytes:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            return lambda token: decoder.decode(
                bytes([token] if token is not None and token < 256 else []), final=token is None
            )
        # those of the text returned last, which decide about a space before the next; then those held back
        tokens: list[int] = []
        returned = 0
        specials = set(self.specials.values())

        def step(token: int | None) -> str:
            nonlocal tokens, returned
            tokens += [] if token is None or token in specials else [int(token)]
            text = self.decode(tokens)[len(self.decode(tokens[:returned])) :]
            inside = text.endswith("\ufffd") and len(tokens) - returned < HELD
            if not text or (inside and token is not None):
                return ""
            tokens, returned = tokens[returned:], len(tokens) - returned
            return text

        return step

    def _ids(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def _known(self, text: str) -> list[int]:
        """As `_ids`; none where the library has no token for it."""
        try:
            return self._ids(text)
        except Exception:  # the library raises nothing narrower
            return []

    def _spelt(self) -> dict[int, list[int]]:
        """The pieces of special tokens, which the library's model itself may find in a text, as Unigram does.

        The token for unknown text is left out.
        """
        pieces = {i: [*self._ids(name[:1]), *self._ids(name[1:])] for name, i in self.specials.items()}
        unknown = set(self._known("\U0010fffd"))
        return {token: spelt for token, spelt in pieces.items() if token not in unknown}


def end_tokens(folder: str | Path) -> list[int | str]:
    """The tokens at which texts of the model in `folder` end: the ids `eos_token_id`, and the name `eos_token`.

    The ids, one or a list, are those of generation_config.json, or of config.json where that has none; the name, of a
    special token, is in tokenizer_config.json. ValueError for a file that cannot be read, or says something else.
    """
    ends: list[int | str] = []
    for file in ("generation_config.json", "config.json"):
        setting = _setting(Path(folder) / file, "eos_token_id")
        ids = setting if isinstance(setting, list) else [] if setting is None else [setting]
        if not all(type(i) is int for i in ids):
            raise ValueError(f"{folder}/{file}: expected eos_token_id to be token ids, got {repr(setting)[:99]}")
        ends = ends or ids
    name = _setting(Path(folder) / "tokenizer_config.json", "eos_token")
    name = name.get("content") if isinstance(name, dict) else name
    return [*ends, name] if isinstance(name, str) else ends


def _setting(path: Path, name: str) -> Any:
    """None where there is no file, or no such setting in it."""
    return jsontext.read(path, dict, infinite=True).get(name) if path.is_file() else None


def _utf8(text: str) -> bytes:
    """Bytes that Python could not read as UTF-8 come back; other lone surrogates, of JSON, become question marks."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _is_bytes(inner: tokenizers.Tokenizer) -> bool:
    """Whether it encodes and decodes as byte-level BPE without merges, whatever its post-processor adds."""
    vocab = byte_vocab()
    if inner.get_vocab() not in (vocab, {c: i for c, i in vocab.items() if i < 256}):
        return False
    parts = json.loads(inner.to_str())
    before, after = parts["pre_tokenizer"] or {}, parts["decoder"] or {}
    levels = before.get("type") == after.get("type") == "ByteLevel"
    return parts["normalizer"] is None and levels and not before["add_prefix_space"]


def byte_vocab() -> dict[str, int]:
    """The names of the bytes in byte-level BPE: printable Latin-1 characters themselves, U+0100 and on for the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    names = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    return names | {END: 256}


@functools.cache
def _byte_values() -> dict[str, int]:
    return {name: byte for name, byte in byte_vocab().items() if name != END}


__all__ = ["END", "Tokenizer", "end_tokens"]
