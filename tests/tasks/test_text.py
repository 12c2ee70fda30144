import shutil

import numpy as np
import pytest
import torch

from solomonic import tasks
from solomonic.tasks import IGNORE
from solomonic.tasks import text as module

from .samples import rng, rows


def words(seed: int, size: int) -> bytes:
    """Lines of random letters, so that 8 bytes in a row tell where they are from."""
    letters = rng(seed).choice(np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8), size)
    letters[39::40] = ord("\n")
    return letters.tobytes()


@pytest.fixture
def folder(tmp_path):
    """20 documents of 100 ... 1050 bytes, and what is no document."""
    root = tmp_path / "corpus"
    (root / "inner").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for i in range(20):
        (root / ("inner" if i % 2 else ".") / f"{i:02}.txt").write_bytes(words(i, 100 + 50 * i))
    (root / "binary").write_bytes(words(100, 500) + b"\0" + words(101, 500))
    (root / "empty").write_bytes(b"")
    (root / ".secret").write_bytes(words(102, 500))
    (root / ".hidden" / "secret").write_bytes(words(103, 500))
    (root / "inner" / "copy").write_bytes(words(7, 450))
    return root


def sides(task):
    """Training and held-out documents as bytes, by their windows: all that training draws, all that tests can ask."""
    train = {bytes([*tokens, targets[-1]]) for tokens, targets in rows(task.train_batch(4000, rng()))}
    count, length = 300, task.lengths[0]
    test = {bytes([*tokens, targets[-1]]) for tokens, targets in rows(task.test_batch(count, length, rng()))}
    return train, test


def whole(root, windows):
    """The files under `root` in which each of the windows stands, and how often every file was met."""
    files = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return {path for path, text in files.items() if any(window in text for window in windows)}


def test_split_by_document(folder):
    task = tasks.task("text", data=folder, length=99, lengths=(99,), held_out=0.3)
    train, test = sides(task)
    trained, tested = whole(folder, train), whole(folder, test)
    copies = {folder / "inner" / "07.txt", folder / "inner" / "copy"}
    assert trained and tested and not trained & tested
    assert copies <= trained or copies <= tested, "copies of one document straddle the split"
    assert trained | tested == set(folder.rglob("*.txt")) | copies, "all documents, and nothing else"
    for tokens, targets in rows(task.test_batch(40, 99, rng(1))):
        assert any(path.read_bytes().find(bytes([*tokens, targets[-1]])) % 99 == 0 for path in tested)


def test_targets_are_the_next_bytes(folder):
    task = tasks.task("text", data=str(folder), length=99)
    for tokens, targets in rows(task.train_batch(20, rng())):
        assert tokens[1:] == targets[:-1]
    assert task.train_batch(1, rng()).tokens.shape == (1, 99)


def test_split_is_stable(folder, tmp_path):
    """It depends on the path below the folder alone: not on where that is, nor on other files."""
    options = dict(length=99, lengths=(99,), held_out=0.3)
    before = sides(tasks.task("text", data=folder, **options))[1]
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert sides(tasks.task("text", data=moved, **options))[1] == before
    for i in range(30, 50):
        (moved / f"{i}.txt").write_bytes(words(i, 300))
    assert before < sides(tasks.task("text", data=moved, **options))[1]


def test_windows_are_equally_likely(tmp_path):
    for name, size in (("a", 12), ("b", 31), ("c", 5)):  # 3 and 22 windows of 10 bytes; c is too short
        (tmp_path / name).write_bytes(words(ord(name), size))
    (tmp_path / "d").write_bytes(words(0, 10))
    task = tasks.task("text", data=tmp_path, length=9, lengths=(9,))
    (trained, tested) = (whole(tmp_path, windows) for windows in sides(task))
    texts = [path.read_bytes() for path in trained]
    expected = {text[i : i + 10] for text in texts for i in range(len(text) - 9)}
    drawn = [bytes([*tokens, targets[-1]]) for tokens, targets in rows(task.train_batch(20000, rng()))]
    assert set(drawn) == expected and tmp_path / "c" not in trained | tested and len(trained) == 2 and len(tested) == 1
    counts = np.array([drawn.count(window) for window in expected]) * len(expected) / 20000
    assert counts.min() > 0.7 and counts.max() < 1.3


def test_same_documents_at_every_length(folder):
    task = tasks.task("text", data=folder, length=99, lengths=(99, 150, 400), held_out=0.5)
    short, middle, long = (task.test_batch(6, length, rng(3)).tokens for length in task.lengths)
    assert torch.equal(long[:, :99], short) and torch.equal(long[:, :150], middle)
    once = rows(task.test_batch(40, 400, rng(3)))
    cycle = next(i for i in range(1, 40) if once[i] == once[0])
    assert cycle > 1 and once == (once[:cycle] * 40)[:40] and len({tuple(t) for t, _ in once}) == cycle
    longer = task.test_batch(1, max(task._test.sizes) - 1, rng())  # longer than every document asked for by default
    assert longer.tokens.shape[1] == max(task._test.sizes) - 1


def test_blocks_of_documents_come_once_and_say_of_which(folder):
    """The first block of every document, then the second ones, and so on, end to end."""
    task = tasks.task("text", data=folder, length=99, lengths=(99, 198), held_out=0.5)
    rows = task.held_out_rows(99)
    assert rows == task.held_out_rows(198) == ((task._test.sizes - 1) // 198).sum()
    batch = task.test_batch(rows, 99, rng(4))
    met: dict[str, int] = {}
    for index, tokens in zip(batch.documents.tolist(), batch.tokens.tolist()):
        name = task.document(index)
        at = 198 * met.setdefault(name, 0)
        assert (folder / name).read_bytes()[at : at + 99] == bytes(tokens)
        met[name] += 1
    firsts = [task.document(i) for i in batch.documents.tolist()[: len(met)]]
    assert sorted(firsts) == sorted(met) and max(met.values()) > 2


def test_default_lengths_stop_where_documents_do(folder):
    task = tasks.task("text", data=folder, length=99, held_out=0.3)
    reach = max(task._test.sizes) - 1
    assert task.lengths == tuple(n for n in (99, 198, 396, 792) if n <= reach) and 198 in task.lengths
    with pytest.raises(ValueError, match=f"length: expected at most {reach}, .* got {reach + 1}; "):
        task.test_batch(1, int(reach) + 1, rng())
    with pytest.raises(ValueError, match="lengths: expected at most"):
        tasks.task("text", data=folder, length=99, lengths=(99, 5000))


@pytest.mark.parametrize("held_out", [1e-9, 1 - 1e-9])
def test_each_side_has_a_document(folder, held_out):
    train, test = sides(tasks.task("text", data=folder, length=99, lengths=(99,), held_out=held_out))
    trained, tested = whole(folder, train), whole(folder, test)
    assert trained and tested and not trained & tested


@pytest.mark.parametrize("size, pieces", [(300, 2), (5000, 10), (200_000, 12)])
def test_single_file_is_cut_at_line_ends(tmp_path, size, pieces):
    path = tmp_path / "book.txt"
    path.write_bytes(words(0, size))
    task = tasks.task("text", data=path, length=99, lengths=(99,), held_out=0.3)
    corpora = (task._train, task._test)
    documents = [c.bytes[s : s + n].tobytes() for c in corpora for s, n in zip(c.starts, c.sizes)]
    assert len(documents) == pieces and sum(map(len, documents)) == size
    text = path.read_bytes()
    for document in documents:
        assert document in text and (document.endswith(b"\n") or text.endswith(document))
    assert all(document not in task._train.bytes.tobytes() for document in documents[-len(task._test.sizes) :])
    (tmp_path / "none").write_bytes(b"")
    alone = tasks.task("text", data=tmp_path, length=99, lengths=(99,), held_out=0.3)  # a folder with that file only
    assert (alone._test.bytes == task._test.bytes).all()


def test_single_file_without_line_ends(tmp_path):
    path = tmp_path / "line.txt"
    path.write_bytes(words(0, 5000).replace(b"\n", b"-"))
    task = tasks.task("text", data=path, length=99, lengths=(99,))
    assert len(task._train.sizes) + len(task._test.sizes) == 10


def test_what_is_read_is_capped(folder, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.warns(UserWarning, match="is cut and what follows is left out"):
        task = tasks.task("text", data=folder, length=99, lengths=(99,))
    assert task._train.sizes.sum() + task._test.sizes.sum() <= 1000


def test_score_is_bits(folder):
    task = tasks.task("text", data=folder, length=99)
    assert (task.metric, task.best, task.by_position, task.vocab_size) == ("bits_per_byte", 0.0, True, 256)
    targets = torch.tensor([[3, IGNORE, 255]])
    logits = torch.zeros(1, 3, 256)
    assert torch.allclose(task.score(logits, targets)[0, [0, 2]], torch.tensor(8.0))
    assert task.score(logits, targets)[0, 1].isnan()
    logits[0, 0, 3] = np.log(3 * 255)  # probability 3/4
    assert task.score(logits, targets)[0, 0].item() == pytest.approx(-np.log2(3 / 4), rel=1e-5)
    assert task.score(logits.bfloat16(), targets).dtype == torch.float32


def test_labels(folder):
    task = tasks.task("text", data=folder, length=99)
    assert [task.label(token) for token in b"a \n\x00\xff"] == ["a", "␣", "⏎", "\\x00", "\\xff"]


def test_default_corpus():
    task = tasks.task("text")
    assert (task.length, task.lengths) == (256, (256, 512, 1024, 2048))
    documents = {
        corpus: {c.bytes[s : s + n].tobytes() for s, n in zip(c.starts, c.sizes)}
        for corpus, c in (("train", task._train), ("test", task._test))
    }
    assert min(map(len, documents.values())) > 10 and not documents["train"] & documents["test"]
    assert b"import" in task._train.bytes.tobytes()
    train, test = sides(task)
    assert all(any(window in text for text in documents["test"]) for window in test)


def test_bad_data(tmp_path):
    def refused(data, match, **options):
        with pytest.raises(ValueError, match=match):
            tasks.task("text", data=data, **options)

    refused(tmp_path / "nowhere", "data: expected a file or folder, got .*nowhere.* does not exist; pass another")
    refused(3, "data: expected the path of a file or folder, got 3; pass one")
    refused(tmp_path, "data: expected text, got .* holds none; pass")
    (tmp_path / "binary").write_bytes(b"\0" * 5000)
    refused(tmp_path, "holds none")
    refused(tmp_path / "binary", "holds none")
    (tmp_path / "short").write_bytes(b"too short")
    refused(tmp_path, "two different documents of 257 bytes or more.* 9 bytes in its longest; pass more text")
    (tmp_path / "short").write_bytes(b"all alike\n" * 60)
    refused(tmp_path / "short", "two different documents")


BAD = [dict(length=0), dict(held_out=0), dict(held_out=1), dict(held_out="a"), dict(lengths=(0,))]


@pytest.mark.parametrize("options", BAD)
def test_bad_options(folder, options):
    with pytest.raises(ValueError, match="expected .* got .*; "):
        tasks.task("text", data=folder, **options)
