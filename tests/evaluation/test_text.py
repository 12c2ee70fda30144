"""Bits per byte: what a direct computation gives, however the text is cut into calls."""

import numpy as np
import pytest
import torch

from solomonic.data.tokenizer import Tokenizer
from solomonic.evaluation.text import bits_per_byte, buckets, spans

from .models import TEXT, bpe, small


def pieces(tokenizer, longest=48, most=5):
    return spans([tokenizer.encode(TEXT)], longest, most)


def direct(model, tokenizer, text, length):
    """Bits of each position, summed over rows, and the bytes of all that is predicted."""
    bits, size = np.zeros(length), 0
    for piece in text:
        for start in range(0, text.shape[1] - length, length):
            row = torch.from_numpy(piece[start : start + length + 1])
            with torch.no_grad():
                log_p = model(row[None, :-1])[0][0].double().log_softmax(-1)
            bits -= log_p[torch.arange(length), row[1:]].numpy() / np.log(2)
        size += len(piece) - 1 if tokenizer.is_bytes else len(tokenizer.decode(piece[1:]).encode())
    return bits, size


@pytest.mark.parametrize("arch", ["bmojo", "transformer", "mamba2"])
@pytest.mark.parametrize("tokenizer", [Tokenizer.for_bytes(), bpe()], ids=["bytes", "bpe"])
def test_bits_are_what_a_direct_computation_gives(arch, tokenizer):
    model, text = small(arch, tokenizer.vocab_size), pieces(tokenizer)
    for length in (8, 24, 48):
        bits, size = direct(model, tokenizer, text, length)
        found = bits_per_byte(model, tokenizer, text, length)
        assert found.length == length and found.mean == pytest.approx(bits.sum() / size, abs=1e-5)
        np.testing.assert_allclose(found.by_position, bits * length / size, atol=1e-4)


@pytest.mark.parametrize("batch_tokens, chunk", [(1, 1), (7, 7), (64, 5), (100000, 48)])
def test_cuts_change_nothing(batch_tokens, chunk):
    tokenizer, told = Tokenizer.for_bytes(), []
    model, text = small(), pieces(tokenizer)
    expected = bits_per_byte(model, tokenizer, text, 24)
    found = bits_per_byte(model, tokenizer, text, 24, batch_tokens, chunk, told.append)
    np.testing.assert_allclose(found.by_position, expected.by_position, atol=1e-5)
    assert sum(told) == 5 * 48


def test_bytes_of_a_text_do_not_depend_on_the_length():
    """Rows that end inside a character would count it twice, so that bits a byte would fall with short rows."""
    tokenizer = bpe()
    model, text = small(vocab_size=tokenizer.vocab_size), pieces(tokenizer)
    torch.nn.init.zeros_(model.head.weight)  # every token takes log2 V bits
    found = {length: bits_per_byte(model, tokenizer, text, length).mean for length in (1, 2, 3, 6, 48)}
    size = sum(len(tokenizer.decode(piece[1:]).encode()) for piece in text)
    for length, mean in found.items():
        assert mean == pytest.approx(5 * 48 * np.log2(tokenizer.vocab_size) / size, rel=1e-6), length


def test_ends_of_documents_are_no_bytes():
    tokenizer = Tokenizer.for_bytes()
    model = small()
    torch.nn.init.zeros_(model.head.weight)
    text = np.array([[65, 66, 67, tokenizer.end, 68]])
    assert bits_per_byte(model, tokenizer, text, 4).mean == pytest.approx(4 * np.log2(257) / 3)
    with pytest.raises(ValueError, match="nothing but special tokens"):
        bits_per_byte(model, tokenizer, np.full((1, 3), tokenizer.end), 2)


def test_spans_are_even_and_do_not_overlap():
    documents = [np.arange(25), np.arange(100, 104), np.arange(200, 230)]
    all_there_are = spans(documents, 9, 100)
    assert all_there_are[:, 0].tolist() == [0, 10, 200, 210, 220] and all_there_are.shape == (5, 10)
    assert spans(documents, 9, 2)[:, 0].tolist() == [0, 200]
    with pytest.raises(ValueError, match="document of 31 tokens or more .* longest has 30"):
        spans(documents, 30, 1)
    with pytest.raises(ValueError, match="longest has 0"):
        spans([], 4, 1)


def test_a_length_that_is_not_there():
    tokenizer = Tokenizer.for_bytes()
    for length in (0, 49):
        with pytest.raises(ValueError, match=f"expected 1 to 48, .* got {length}"):
            bits_per_byte(small(), tokenizer, pieces(tokenizer), length)


def test_buckets_hold_every_position_once():
    values = np.arange(1.0, 301.0)
    found = buckets(values)
    assert [(first, last) for first, last, _ in found] == [(1, 16), (17, 64), (65, 256), (257, 300)]
    assert [mean for *_, mean in found] == [8.5, 40.5, 160.5, 278.5]
    assert [(first, last) for first, last, _ in buckets(np.ones(16))] == [(1, 16)]
    assert [(first, last) for first, last, _ in buckets(np.ones(3))] == [(1, 3)]
