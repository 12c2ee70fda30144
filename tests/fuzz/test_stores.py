"""A store on the disk, damaged in every way: what is served is what was stored, or is named; and every command ends."""

import collections
import shutil
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic.memory import Damaged, open_store
from solomonic.memory.engines.tables import FILE, SCHEMA_FILE

from ..memory.cases import SCHEMA, kept, opened, put, tokens_of
from . import cases, command, no_hang

NAMES = [f"book {seed}" for seed in range(6)]
PAGE = 1 << 15


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "store"
    with opened(str(folder)) as store:
        for seed, name in enumerate(NAMES):
            put(store, name, seed, digest=f"digest {seed}", time=1e9 + seed)
    return folder


def copied(sound: Path, tmp: Path) -> Path:
    shutil.rmtree(tmp / "store", ignore_errors=True)
    return Path(shutil.copytree(sound, tmp / "store"))


@st.composite
def damages(draw):
    """What becomes of the bytes of a file."""
    kind = draw(st.sampled_from(["bits", "zeros", "end", "pages", "page", "noise"]))
    at, other = draw(st.floats(0, 1, exclude_max=True)), draw(st.floats(0, 1, exclude_max=True))
    seed, size = draw(st.integers(0, 2**32)), draw(st.integers(1, 3 * PAGE))

    def damage(data: bytes) -> bytes:
        data, pages = bytearray(data), len(data) // PAGE
        begin, random = int(at * len(data)), Random(seed)
        if kind == "bits":
            used = [i for i, byte in enumerate(data) if byte]
            for _ in range(1 + seed % 4):
                data[random.choice(used)] ^= 1 << random.randrange(8)
        elif kind == "zeros":
            data[begin : begin + size] = bytes(len(data[begin : begin + size]))
        elif kind == "noise":
            data[begin : begin + size] = random.randbytes(len(data[begin : begin + size]))
        elif kind == "end":
            del data[begin:]
        else:
            one, two = int(at * pages) * PAGE, int(other * pages) * PAGE
            first = bytes(data[one : one + PAGE])
            if kind == "pages":
                data[one : one + PAGE], data[two : two + PAGE] = data[two : two + PAGE], first
            else:
                data[one : one + PAGE] = bytes(PAGE)
        return bytes(data)

    damage.kind = kind
    return damage


def seen(store) -> set[tuple]:
    """Everything that a layer or a person can get out of the store, in pieces that are as they were stored, or not."""
    found = set()
    for document in store.documents():
        found.add(("document", document.name, document.digest, document.time, document.text, document.sources))
        text, _ = store.passage(document.id, 0, document.text)
        found |= {("line", document.name, line) for line in text.split("\n") if "\ufffd" not in line and line}
    names = collections.defaultdict(str, {document.id: document.name for document in store.documents()})
    for shape in SCHEMA.layers:
        query = torch.ones(1, shape.heads, shape.dim)
        store.read(shape.layer, store.search(shape.layer, query, 999).token_id.flatten().tolist())
        result = store.search(shape.layer, query, 999)
        token_ids = [token_id for token_id in result.token_id[0, 0].tolist() if token_id >= 0]
        read = store.read(shape.layer, token_ids)
        for token_id, real, packed in zip(token_ids, read.real, read.packed, strict=True):
            if real:
                what = (
                    "token",
                    names[token_id >> 32],
                    shape.layer,
                    token_id & 0xFFFFFFFF,
                    hash(packed.numpy().tobytes()),
                )
                assert what not in found, "a token is served twice"
                found.add(what)
    return found


@pytest.fixture(scope="module")
def everything(sound) -> set[tuple]:
    with open_store(str(sound)) as store:
        found = seen(store)
    assert len(found) == len(NAMES) * (1 + 40 + 2 * 23)
    return Everything(found)


class Everything(frozenset):
    def __repr__(self):  # hypothesis prints what a test was called with
        return f"<{len(self)} pieces>"


def read_back(folder: Path) -> tuple[set[tuple] | None, list[str]]:
    """What a store still serves, None where it is refused; and all that was said."""
    with warnings.catch_warnings(record=True) as messages, no_hang():
        warnings.simplefilter("always")
        try:
            with open_store(str(folder)) as store:
                found = seen(store)
        except (ValueError, OSError) as error:
            return None, [str(error)]
    assert all(issubclass(one.category, Damaged) for one in messages), [str(one.message) for one in messages]
    return found, [str(one.message) for one in messages]


@cases(60)
@given(damage=damages())
def test_nothing_is_silently_changed_and_repair_saves_what_is_sound(damage, sound, everything, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("damaged")
    folder = copied(sound, tmp)
    damaged = damage((folder / FILE).read_bytes())
    (folder / FILE).write_bytes(damaged)
    found, messages = read_back(folder)
    if found is not None:
        assert found <= everything
        assert found == everything or messages, everything - found
    assert (folder / FILE).read_bytes() == damaged, "reading wrote"
    code, out, _ = command("memory", "verify", "--store", folder)
    assert code in (0, 1, 2) and (found == everything or code)
    command("memory", "list", "--store", folder)

    code, out, err = command("memory", "repair", "--store", folder, "--out", tmp / "new")
    assert (folder / FILE).read_bytes() == damaged
    if code == 2:
        assert not (tmp / "new" / FILE).exists()
        return
    saved, _ = read_back(tmp / "new")
    assert saved <= everything and (found is None or len(saved) >= 0.9 * len(found & everything))
    assert saved == everything or code == 1, out
    shutil.rmtree(tmp)


def test_a_page_of_zeros_closes_nothing(sound, everything, tmp_path):
    """Whichever it is, the roots of the tables among them; without the first nobody knows what the file is."""
    count = (sound / FILE).stat().st_size // PAGE
    for number in range(count):
        folder = copied(sound, tmp_path)
        data = bytearray((folder / FILE).read_bytes())
        data[number * PAGE : (number + 1) * PAGE] = bytes(PAGE)
        (folder / FILE).write_bytes(data)
        found, messages = read_back(folder)
        assert (found is None) == (number == 0), messages
        if found is not None:
            assert found <= everything and (found == everything or messages)
            with warnings.catch_warnings(action="ignore"), open_store(str(folder), write=True) as store:
                store.forget([3])
            assert not any(one[1] == NAMES[2] for one in read_back(folder)[0])


@pytest.mark.parametrize(
    "at, content", [(16, b"\2\0"), (16, b"\0\0"), (20, b"\x40"), (0, bytes(100)), (0, bytes(PAGE))]
)
def test_repair_needs_nothing_of_the_header(at, content, sound, everything, tmp_path):
    folder = copied(sound, tmp_path)
    data = bytearray((folder / FILE).read_bytes())
    data[at : at + len(content)] = content
    (folder / FILE).write_bytes(data)
    command("memory", "repair", "--store", folder, "--out", tmp_path / "new")
    assert read_back(tmp_path / "new")[0] == everything


@cases(40)
@given(damage=damages(), by_name=st.booleans())
def test_what_is_forgotten_in_a_damaged_store_is_gone(damage, by_name, sound, everything, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("damaged")
    folder = copied(sound, tmp)
    (folder / FILE).write_bytes(damage((folder / FILE).read_bytes()))
    before, _ = read_back(folder)
    gone = ("--document", NAMES[2]) if by_name else ("--id", "3")
    code, out, err = command("memory", "forget", "--store", folder, *gone)
    if before is not None and code != 2:
        after, messages = read_back(folder)
        assert after is not None, messages
        assert after <= everything and not any(NAMES[2] == one[1] for one in after)
        kept_before = {one for one in before if one[1] != NAMES[2]}
        assert after == kept_before or messages or "damaged" in err, kept_before - after
        key = kept(tokens_of(2)).key
        content = b"".join(one.read_bytes() for one in folder.iterdir())
        if damage.kind == "end" or (code == 0 and "written anew" not in err):
            assert not any(key[i].numpy().tobytes() in content for i in range(23))
    command("memory", "compact", "--store", folder)
    shutil.rmtree(tmp)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM pieces; END",
        "CREATE TRIGGER t AFTER DELETE ON pieces BEGIN INSERT INTO about VALUES ('a', 'b', x'00'); END",
        "CREATE VIEW v AS SELECT * FROM documents",
        "CREATE TABLE more (a)",
        "CREATE INDEX i ON documents (abs(id))",
        "ALTER TABLE pieces ADD COLUMN more INTEGER",
        "DROP TABLE keys_1",
        "ALTER TABLE about RENAME TO other; CREATE VIEW about AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x "
        "+ 1 FROM r) SELECT 'format' name, x value, x'00' seal FROM r",
        "DROP TABLE values_3; CREATE TABLE values_3 (id INTEGER PRIMARY KEY, value, span, seal)",
    ],
)
def test_a_schema_that_is_not_ours_is_refused_unrun(statement, sound, tmp_path):
    folder = copied(sound, tmp_path)
    sql = sqlite3.connect(folder / FILE)
    sql.executescript(statement)
    sql.close()
    before = (folder / FILE).read_bytes()
    for words in (
        ("list", "--store", folder),
        ("verify", "--store", folder),
        ("forget", "--store", folder, "--id", "1"),
        ("compact", "--store", folder),
    ):
        code, _, err = command("memory", *words)
        assert code == 2 and "expected the tables of" in err
    assert (folder / FILE).read_bytes() == before
    code, _, _ = command("memory", "repair", "--store", folder, "--out", tmp_path / "new")
    assert code in (0, 1) and read_back(tmp_path / "new")[0]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE about SET value = '7' WHERE name = 'removals'",
        "UPDATE about SET value = 'x' WHERE name = 'last_document'",
        "UPDATE about SET value = '{}' WHERE name = 'layout'",
        "UPDATE about SET value = '9' WHERE name = 'format'",
        "DELETE FROM about",
        "UPDATE documents SET name = 'other' WHERE id = 2",
        "UPDATE documents SET sources = '[[[' WHERE id = 2",
        "UPDATE documents SET name = CAST(x'ff41' AS TEXT) WHERE id = 2",
        "DELETE FROM documents WHERE id = 2",
        "UPDATE pieces SET text = x'00' WHERE document = 2",
        "DELETE FROM pieces WHERE document = 2",
        "UPDATE keys_1 SET tokens = 1000000000 WHERE id >> 32 = 2",
        "UPDATE keys_1 SET position = x'0102' WHERE id >> 32 = 2",
        "UPDATE keys_3 SET id = id + 1000 WHERE id >> 32 = 2",
        "UPDATE values_3 SET value = x'' WHERE id >> 32 = 2",
        "DELETE FROM values_3 WHERE id >> 32 = 2",
        "DELETE FROM keys_1 WHERE id >> 32 = 2; DELETE FROM values_1 WHERE id >> 32 = 2",
    ],
)
def test_a_changed_row_closes_nothing(change, sound, everything, tmp_path):
    folder = copied(sound, tmp_path)
    sql = sqlite3.connect(folder / FILE)
    sql.executescript(change)
    sql.close()
    found, messages = read_back(folder)
    others = {one for one in everything if one[1] != NAMES[1]}
    assert others <= found <= everything
    assert found == everything or messages
    code, out, _ = command("memory", "verify", "--store", folder)
    assert code == 1 and "problems" in out
    assert command("memory", "list", "--store", folder)[0] == 0
    assert command("memory", "compact", "--store", folder)[0] == 0
    code, _, err = command("memory", "forget", "--store", folder, "--id", "2")
    assert code == 0, err
    assert command("memory", "verify", "--store", folder)[:2] == (0, f"sound: {len(NAMES) - 1} documents\n")
    assert read_back(folder) == (others, [])


def test_a_damaged_store_is_not_taken_for_a_new_one(sound, tmp_path):
    whole = (sound / FILE).read_bytes()
    for data in (b"", bytes(PAGE) + whole[PAGE:], whole[: PAGE + 7], None):
        folder = copied(sound, tmp_path)
        (folder / FILE).unlink()
        if data is not None:
            (folder / FILE).write_bytes(data)
        with pytest.raises((ValueError, OSError)) as refused, warnings.catch_warnings():
            warnings.simplefilter("ignore", Damaged)
            with open_store(str(folder), SCHEMA, write=True) as store:
                put(store, "new", 0)
        assert not isinstance(refused.value, FileNotFoundError)
        assert data is None or (folder / FILE).read_bytes() == data


def test_repair_refuses_what_it_would_write_over(sound, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    for out in (tmp_path / "full", sound, tmp_path / "full" / "letter"):
        code, _, err = command("memory", "repair", "--store", sound, "--out", out)
        assert code == 2 and ("not there yet" in err or "which is --store" in err)
    assert command("memory", "repair", "--store", tmp_path / "none", "--out", tmp_path / "new")[0] == 2
    assert not (tmp_path / "new").exists()
    with opened(str(sound)):
        code, _, err = command("memory", "repair", "--store", sound, "--out", tmp_path / "new")
        assert code == 2 and "another process is writing" in err
    code, out, _ = command("memory", "repair", "--store", sound, "--out", tmp_path / "new")
    assert code == 0 and out == f"{len(NAMES)} documents written to {tmp_path / 'new'}; no losses\n"


NUMBERS = st.sampled_from(["0", "-1", "1000000000", "9" * 40, "nan", "inf", "1e400", "", "x", "\udcff", "0.5"])


@cases(60)
@given(
    words=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["--id", "--before", "--after", "--session", "--document", "--keep"]), NUMBERS),
            st.sampled_from([("--dry-run",), ("--store", ""), ("--store", "\0"), ("--out", "x"), ("--k", "3")]),
        ),
        max_size=4,
    ),
    what=st.sampled_from(["list", "stats", "verify", "forget", "repair"]),
)
def test_no_argument_brings_a_traceback(words, what, sound):
    words = [word for some in words for word in some]
    if what == "forget":
        words.append("--dry-run")
    command("memory", what, *words, *(() if "--store" in words else ("--store", sound)))


WRITE = """
import sys
from tests.memory.cases import opened, put
with opened(sys.argv[1]) as store:
    print("open", flush=True)
    for seed in range(int(sys.argv[2])):
        put(store, f"more {seed}", 10 + seed, digest="d")
        if seed % 3 == 2:
            store.forget([d.id for d in store.documents() if d.name == f"more {seed - 1}"])
"""


def started(folder: Path, number: int) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )


def test_one_process_writes_and_forgets_while_another_reads(sound, everything, tmp_path):
    folder = copied(sound, tmp_path)
    writer, reads = started(folder, 9), 0
    try:
        writer.stdout.readline()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with open_store(str(folder)) as store:
                while writer.poll() is None or not reads:
                    found = seen_of(store, NAMES)
                    assert found == everything
                    reads += 1
        second = started(folder, 0)
        assert second.communicate()[1] == ""
        assert writer.communicate()[1] == ""
    finally:
        writer.kill()
        writer.wait()
    with open_store(str(folder)) as store:
        assert store.verify() == [] and len(store.documents()) == len(NAMES) + 6


def seen_of(store, names) -> set[tuple]:
    return {one for one in seen(store) if one[1] in names}


def test_two_writers_at_once_are_one_and_a_word(tmp_path):
    with opened(str(tmp_path / "new")):
        other = started(tmp_path / "new", 1)
        _, err = other.communicate()
        assert other.returncode and "is writing to this store" in err.splitlines()[-1]


def test_the_layout_has_a_copy(sound):
    assert (sound / SCHEMA_FILE).is_file()
