"""Text to tokens and back: bytes by default, or any `tokenizer.json` of the tokenizers library.

Bytes are a tokenizer file too (byte-level BPE without merges), so that whoever reads `tokenizer.json` reads ours.
"""

import codecs
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers.decoders import DecodeStream

END = "<|end|>"
ENDS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>", "[EOS]", "[SEP]")
"""Names under which tokenizers are known to have the token that ends a document."""


class Tokenizer:
    """`encode` and `decode`; `vocab_size`; `end`, the id of the token that ends a document.

    A document's text never gives `end` or another special token, whatever it holds.
    """

    def __init__(self, inner: tokenizers.Tokenizer):
        """A tokenizer without any of `ENDS` gets `<|end|>` as one more token."""
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        names = [name for name in ENDS if inner.token_to_id(name) is not None]
        if not names:
            inner.add_special_tokens([END])
        self.inner = inner
        self.end_name = (names or [END])[0]
        self.end: int = inner.token_to_id(self.end_name)
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.is_bytes = inner.get_vocab() == _byte_vocab()

    @classmethod
    def for_bytes(cls) -> "Tokenizer":
        """Byte b is token b; 256 ends a document."""
        model = tokenizers.models.BPE(vocab={c: i for c, i in _byte_vocab().items() if i < 256}, merges=[])
        inner = tokenizers.Tokenizer(model)
        inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = tokenizers.decoders.ByteLevel()
        inner.add_special_tokens([END])
        return cls(inner)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """From a `tokenizer.json`. ValueError for anything else."""
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        try:
            content = path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            came = "it is not there" if isinstance(error, FileNotFoundError) else "it is not text"
            raise ValueError(f"{path}: expected a tokenizer.json of the tokenizers library; {came}") from None
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: str, name: str = "tokenizer") -> "Tokenizer":
        """From the text of a `tokenizer.json`, which `name` calls in an error."""
        try:
            return cls(tokenizers.Tokenizer.from_str(content))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{name}: expected a tokenizer.json of the tokenizers library; it says {error}") from None

    def to_json(self) -> str:
        return json.dumps(json.loads(self.inner.to_str()), ensure_ascii=False, indent=1)

    def encode(self, text: str | bytes) -> np.ndarray:
        """(N,) int64. Bytes that are not UTF-8 stay as they are in a tokenizer of bytes, and are replaced in others."""
        if self.is_bytes:
            data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            return np.frombuffer(data, dtype=np.uint8).astype(np.int64)
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return np.array(self.inner.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """Special tokens give nothing; bytes that are not UTF-8 give U+FFFD."""
        if self.is_bytes:
            return bytes(t for t in map(int, tokens) if t < 256).decode("utf-8", "replace")
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=True)

    def stream(self) -> Callable[[int], str]:
        """A function from the next token to the text that is certain by now: "" inside a character."""
        if self.is_bytes:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            return lambda token: decoder.decode(bytes([token])) if token < 256 else ""
        steps = DecodeStream(skip_special_tokens=True)
        return lambda token: steps.step(self.inner, int(token)) or ""


def _byte_vocab() -> dict[str, int]:
    """What byte-level BPE calls each byte: printable Latin-1 characters themselves, the others U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    names = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    return names | {END: 256}


__all__ = ["END", "Tokenizer"]
