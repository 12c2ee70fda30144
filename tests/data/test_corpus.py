"""Documents of files, folders, JSON lines and parquet, where each is, and what is refused."""

import json

import pytest

from solomonic.data.corpus import Document, documents, files, is_binary, library
from solomonic.data.tokenizer import Tokenizer

BINARY = bytes(range(256)) * 40


def texts(*paths, field="text"):
    return [document.text for document in documents(paths, field)]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_file_is_a_document(tmp_path):
    first, second = write(tmp_path / "a.txt", "héllo\r\n"), write(tmp_path / "b", "two")
    assert list(documents([second, str(first)])) == [
        Document(str(second), 0, b"two"),
        Document(str(first), 0, "héllo\r\n".encode()),
    ]


def test_a_folder_is_read_in_order_without_what_is_no_text(tmp_path):
    for name in ("b.txt", "a/z.txt", "a.txt", "a/a/b.md"):
        write(tmp_path / name, name)
    for name in (".hidden", ".git/config", "a/.cache/x.txt"):
        write(tmp_path / name, "hidden")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "blank.txt", " \n\t")
    write(tmp_path / "picture.txt", BINARY)
    write(tmp_path / "utf16.txt", "text".encode("utf-16"))
    write(tmp_path / "lines.jsonl", '{"text": "in a line"}\n')
    found = list(documents([tmp_path]))
    assert [document.text for document in found] == [b"a.txt", b"a/a/b.md", b"a/z.txt", b"b.txt", b"in a line"]
    assert found[1].source == str(tmp_path / "a/a/b.md")


def test_links_to_files_are_followed_and_broken_ones_are_not(tmp_path):
    write(tmp_path / "real" / "x", "x")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "x")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files(tmp_path)] == ["link", "real/x"]


def test_bytes_that_are_not_utf8_stay_as_they_are(tmp_path):
    latin = "une journée d'été à la campagne, sans un nuage".encode("latin-1")
    assert texts(write(tmp_path / "latin.txt", latin)) == [latin]
    assert bytes(Tokenizer.for_bytes().encode(latin).astype("uint8")) == latin


def test_a_character_on_the_border_of_what_is_looked_at_is_text(tmp_path):
    assert texts(write(tmp_path / "long.txt", "日本" * 5000)) == [("日本" * 5000).encode()]


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x"])
@pytest.mark.parametrize("content, what", [(b"", "empty"), (b"\n \n", "empty"), (BINARY, "binary")])
def test_what_is_named_has_to_be_text(tmp_path, name, content, what):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"{name}: expected text, got a file that is {what}"):
        texts(path)


def test_a_path_that_is_not_there(tmp_path):
    there = write(tmp_path / "a.txt", "a")
    with pytest.raises(ValueError, match="nowhere: expected a file or folder of text; it is not there"):
        texts(there, tmp_path / "nowhere")


def test_binary():
    assert is_binary(BINARY) and is_binary(b"a\0b") and is_binary(b"\xff\xfe\xfd")
    assert not is_binary(b"plain") and not is_binary("Käse".encode()) and not is_binary(b"")


# JSON lines


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson"])
def test_a_line_is_a_document_with_its_number(tmp_path, suffix):
    lines = [{"text": "one\ntwo", "n": 1}, None, {"text": ""}, {"text": "日本 \ud800", "more": [1]}]
    content = "\n".join("" if line is None else json.dumps(line) for line in lines)
    path = write(tmp_path / f"x.{suffix}", content)
    assert list(documents([path])) == [
        Document(str(path), 1, b"one\ntwo"),
        Document(str(path), 4, "日本 \ufffd".encode()),
    ]


def test_another_field(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"body": "b", "text": "t"}\n')
    assert texts(path, field="body") == [b"b"]


@pytest.mark.parametrize(
    "line, says",
    [
        (b'{"text": "cut sho', "expected a JSON object, got what is no JSON"),
        (b"plain words", "expected a JSON object, got what is no JSON"),
        (b'{"text": "\xff\xff"}', "expected a JSON object, got what is no JSON"),
        (b"[" * 100000, "expected a JSON object, got what is no JSON"),
        (b'{"body": "x", "n": 1}', "expected an object with the text under 'text', got body, n"),
        (b'{"text": 3}', "expected an object with the text under 'text', got text"),
        (b'["text"]', "expected an object with the text under 'text', got list"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    path = write(tmp_path / "x.jsonl", b'{"text": "' + b"good " * 2000 + b'"}\n\n' + line + b"\n")
    with pytest.raises(ValueError, match=f"x.jsonl, line 3: {says}"):
        texts(path)


# Parquet


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    def made(columns, **settings):
        path = tmp_path / "x.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **settings)
        return path

    return made


def test_a_row_is_a_document_with_its_number(parquet):
    path = parquet({"n": [1, 2, 3, 4], "text": ["a", None, "", "Käse"]}, row_group_size=3)
    assert list(documents([path])) == [Document(str(path), 0, b"a"), Document(str(path), 3, "Käse".encode())]
    assert texts(parquet({"body": ["x"] * 100000}, row_group_size=70000), field="body") == [b"x"] * 100000


def test_strings_of_any_arrow_type(parquet):
    import pyarrow

    for kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
        assert texts(parquet({"text": pyarrow.array(["a", "b", "a"]).cast(kind)})) == [b"a", b"b", b"a"]


@pytest.mark.parametrize("columns, says", [({"text": [1, 2]}, r"text \(int64\)"), ({"a": ["x"], "b": [1]}, "a .*, b ")])
def test_a_column_that_is_no_text(parquet, columns, says):
    with pytest.raises(ValueError, match=f"x.parquet: expected a column 'text' of strings, got the columns {says}"):
        texts(parquet(columns))


@pytest.mark.parametrize("damage", ["truncated", "footer", "page", "text", "empty", "utf8"])
def test_a_broken_file_is_named(parquet, damage):
    import pyarrow

    strings = pyarrow.array([f"{i} words" * 9 for i in range(5000)])
    if damage == "utf8":
        strings = pyarrow.array([b"\xff\xfe"]).view(pyarrow.string())
    path = parquet({"text": strings}, compression="none", use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "footer": whole[:-40] + b"\x99" * 32 + whole[-8:],
            "page": whole[:4] + b"\xff" * 400 + whole[404:],
            "text": b"not parquet at all",
            "empty": b"",
            "utf8": whole,
        }[damage]
    )
    with pytest.raises(ValueError, match="x.parquet: expected a parquet file, got one that cannot be read"):
        texts(path)


# The library


def test_the_library_is_there_and_is_text():
    found = library()
    assert len(found) > 100 and all(path.suffix == ".py" for path in found)
    assert not any({"site-packages", "test", "tests", "idlelib"} & set(path.parts) for path in found)
    assert all(document.text for document in documents(found))
