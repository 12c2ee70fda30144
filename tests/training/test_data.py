"""What each step reads: every token once an epoch, documents apart, and the same whatever came before."""

import numpy as np
import pytest
import tokenizers

from solomonic.data.corpus import Document
from solomonic.data.tokenizer import Tokenizer
from solomonic.training.rows import LONG, Rows, TokenizedText, prepare, read

BYTES = Tokenizer.for_bytes()
TEXTS = [b"first", b"the second document", b"third, which is longer than the others by some", b"4", b"fifth of five"]


def documents(texts):
    return lambda: (Document(f"file{i}", 0, text) for i, text in enumerate(texts))


def prepared(folder, texts=TEXTS, share=0.0, held_out=None, tokenizer=BYTES):
    prepare(folder, documents(texts), held_out and documents(held_out), share, tokenizer)
    return read(folder)


def test_tokens_are_the_documents_each_after_an_end(tmp_path):
    data = prepared(tmp_path)
    assert [bytes(x.tolist()) for x in data.train.documents()] == TEXTS
    assert data.train.values[data.train.starts].tolist() == [BYTES.end] * len(TEXTS)
    assert data.train.size == sum(map(len, TEXTS)) and data.held_out.documents() == []


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(ValueError, match="a token that ends a document, got one that has none"):
        prepared(tmp_path, tokenizer=Tokenizer(words, most=2))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("carry", [0, 1, 3, 1000])
def test_targets_are_the_tokens_after(tmp_path, carry):
    rows = Rows(prepared(tmp_path).train, 8, 2, seed=1, carry=carry)
    for step in range(2 * rows.epoch):
        tokens, targets, segments, _ = rows.batch(step)
        assert tokens.shape == targets.shape == segments.shape == (2, 8) and tokens.dtype == np.int64
        assert (tokens[:, 1:] == targets[:, :-1]).all()
        assert (np.diff(segments) == (tokens[:, 1:] == BYTES.end)).all()


@pytest.mark.parametrize("carry", [0, 1, 3, 1000])
def test_an_epoch_reads_no_place_twice_and_every_document_whole(tmp_path, carry):
    data = prepared(tmp_path)
    rows = Rows(data.train, 4, 2, seed=0, carry=carry)
    text = b"\n".join(TEXTS)
    for epoch in range(3):
        read_tokens = [rows.batch(epoch * rows.epoch + step)[0] for step in range(rows.epoch)]
        count = np.bincount(np.concatenate(read_tokens).ravel(), minlength=257)
        there = np.bincount(data.train.values, minlength=257)
        assert (count <= there).all() and there.sum() - count.sum() < 4 * 2 + 4, text


def test_carried_rows_go_on_where_they_ended(tmp_path):
    rows = Rows(prepared(tmp_path).train, 4, 2, seed=0, carry=1000)
    assert rows.epoch > 2 and [rows.begins(s) for s in range(rows.epoch + 1)] == [True] + [False] * (rows.epoch - 1) + [
        True
    ]
    for step in range(rows.epoch - 1):
        (_, targets, segments, _), (tokens, _, after, _) = rows.batch(step), rows.batch(step + 1)
        near = targets[:, -1] == tokens[:, 0]
        assert near.any() and (near | (after[:, 0] > segments[:, -1])).all()
        assert (after[:, 0] - segments[:, -1] == (tokens[:, 0] == BYTES.end))[near].all()


def test_carried_rows_begin_at_another_place_in_time(tmp_path):
    """After `carry` steps of a lane or fewer, in a segment of its own; elsewhere a row goes on where it ended."""
    values = np.arange(16_000)
    rows = Rows(TokenizedText(values, np.array([0]), 16_000), 8, 3, seed=0, carry=5)
    assert rows.lanes == 16 and [rows.begins(s) for s in range(40)] == [s < 16 for s in range(40)]
    every, lengths = [], []
    for lane in range(rows.lanes):
        steps = [step for step in range(rows.epoch) if rows.lane(step) == lane]
        assert steps == list(range(lane, rows.epoch, 16))
        first, segment = (np.stack([rows.batch(step)[i][:, 0] for step in steps], 1) for i in (0, 2))
        on = np.diff(first) == 8
        assert ((np.diff(segment) == 0) == on).all() and ((np.diff(segment) > 0) == ~on).all()
        for row in on:
            lengths += [len(run) for run in "".join("x" if one else " " for one in row).split()]
        every.append(first.ravel())
    assert lengths.count(4) > 0.7 * len(lengths)  # of others some are cut, and some follow one another by chance
    every = np.concatenate(every)
    assert len({*every}) == every.size == 3 * rows.epoch


def test_lanes_are_as_long_as_a_row_is_carried(tmp_path):
    tokens = prepared(tmp_path).train
    for carry, lanes in ((0, 1), (1, 10), (3, 3), (10, 1), (1000, 1)):
        rows = Rows(tokens, 4, 2, seed=0, carry=carry)
        assert rows.epoch == 10 and rows.lanes == lanes


def test_rows_are_a_function_of_seed_and_step(tmp_path):
    tokens = prepared(tmp_path).train
    rows = Rows(tokens, 4, 2, seed=5, carry=0)
    late = Rows(tokens, 4, 2, seed=5, carry=0).batch(rows.epoch + 3)
    for step in range(rows.epoch + 4):
        here = rows.batch(step)
    assert all((a == b).all() for a, b in zip(here[:3], late[:3]))
    other = Rows(tokens, 4, 2, seed=6, carry=0)
    assert any((other.batch(s)[0] != rows.batch(s)[0]).any() for s in range(rows.epoch))
    assert all((rows.batch(3, slice(1, 2))[i] == rows.batch(3)[i][1:]).all() for i in range(3))


def test_too_little_text_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="text of 264 tokens or more, for 32 rows of 8, got"):
        Rows(prepared(tmp_path).train, 8, 32, seed=0, carry=0)


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected text to train on, got none"):
        prepared(tmp_path, [])


def test_held_out_is_never_trained_on(tmp_path):
    texts = [f"document number {i}".encode() for i in range(200)]
    data = prepared(tmp_path, texts, share=0.2)
    train, held = ({bytes(x.tolist()) for x in side.documents()} for side in (data.train, data.held_out))
    assert train | held == set(texts) and not train & held and 20 <= len(held) <= 60


def test_of_a_long_document_the_end_is_held_out(tmp_path):
    line = b"a line of text\n"
    text = line * (LONG // len(line) + 10)
    data = prepared(tmp_path, [text], share=0.1)
    train, held = (bytes(side.documents()[0].tolist()) for side in (data.train, data.held_out))
    assert train + held == text and train.endswith(b"\n") and abs(len(held) - len(text) / 10) < 20


def test_a_single_short_document_gives_its_end(tmp_path):
    data = prepared(tmp_path, [b"only this one short document, which is all there is"], share=0.3)
    assert data.train.size and data.held_out.size


def test_held_out_of_its_own(tmp_path):
    data = prepared(tmp_path, TEXTS, share=0.3, held_out=[b"for the score"])
    assert len(data.train.documents()) == len(TEXTS)
    assert [bytes(x.tolist()) for x in data.held_out.documents()] == [b"for the score"]


def test_digest_follows_text_and_tokenizer(tmp_path):
    assert prepared(tmp_path).digest == prepared(tmp_path).digest
    assert prepared(tmp_path).digest != prepared(tmp_path, TEXTS[1:]).digest


def test_a_cut_file_is_named(tmp_path):
    prepared(tmp_path)
    whole = (tmp_path / "train.tokens").read_bytes()
    (tmp_path / "train.tokens").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="train.tokens: expected .* tokens"):
        read(tmp_path)
