"""One reader of records: whoever takes them reads the same of a file, in every form that people keep it in."""

import codecs
import csv
import io
import json
import os
import threading

import pytest

from solomonic.cli.generate import read_prompts as prompts
from solomonic.data.corpus import documents
from solomonic.data.records import text_lines
from solomonic.retrieval.examples import Example, examples
from solomonic.tasks import text as task

TEXTS = ["one\u2028line\u0085still", 'a "quoted", cell; é', "two\nlines\fof it", "日本 \U0001f40b", " \ttabs\t "]
ROWS = [{"text": text, "prompt": text, "label": str(i % 2), "id": i} for i, text in enumerate(TEXTS)]


def written(form: str) -> bytes:
    if form in ("jsonl", "ndjson"):
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    if form == "json":
        return json.dumps(ROWS, indent=1).encode()
    table = io.StringIO()
    writer = csv.DictWriter(table, ROWS[0], delimiter={"csv": ",", "semicolons": ";", "tsv": "\t"}[form])
    writer.writeheader()
    writer.writerows(ROWS)
    return table.getvalue().encode()


def read_by_all(path) -> list[list[bytes]]:
    label = Example("", "0").label
    assert [one.label for one in examples(path)] == [label, "1"] * 2 + [label]
    return [
        [document.text for document in documents([path])],
        [text for _, text in prompts(path)],
        [one.text.encode() for one in examples(path)],
        [text for _, text in task.read_documents("x", path, 10**6, named=True)],
    ]


@pytest.mark.parametrize(
    "form, name",
    [
        ("jsonl", "x.jsonl"),
        ("jsonl", "X.JSONL"),
        ("ndjson", "x.NdJson"),
        ("json", "x.json"),
        ("json", "X.JSON"),
        ("jsonl", "x.json"),
        ("csv", "x.csv"),
        ("semicolons", "X.CSV"),
        ("tsv", "x.tsv"),
    ],
)
@pytest.mark.parametrize("as_windows", [False, True])
def test_whoever_takes_records_reads_the_same(tmp_path, form, name, as_windows):
    content, path = written(form), tmp_path / name
    if as_windows:  # a byte-order mark, other line ends, empty lines
        end = b"\r\n" if form in ("jsonl", "ndjson", "json") else b"\n"
        content = codecs.BOM_UTF8 + content.replace(b"\n", end) + end * 3
    path.write_bytes(content)
    # what stands before a cell that is not quoted is no part of it
    expected = [text.lstrip(" ") if form in ("csv", "semicolons") else text for text in TEXTS]
    assert read_by_all(path) == [[text.encode() for text in expected]] * 4


def test_parquet_is_read_by_all(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet  # noqa: F811

    path = tmp_path / "X.PARQUET"
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]} | {"nan": [float("nan")] * 5, "b": [b"x"] * 5}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert read_by_all(path) == [[text.encode() for text in TEXTS]] * 4
    kept, _ = next(prompts(path))
    assert kept == {"prompt": TEXTS[0], "label": "0", "id": 0, "nan": None}  # what JSON has a word for


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_number_that_is_none_is_missing_for_all(tmp_path, name):
    (tmp_path / name).write_text('{"text": "a", "prompt": "a", "label": "0", "x": NaN, "y": [-Infinity, 1e999, 0.5]}')
    (document,), ((kept, _),), (example,) = (
        documents([tmp_path / name]),
        prompts(tmp_path / name),
        examples(tmp_path / name),
    )
    assert (document.text, example.text) == (b"a", "a")
    assert kept == {"prompt": "a", "label": "0", "x": None, "y": [None, None, 0.5]}


def test_half_of_a_pair_is_one_character_for_all(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"text": "a\\ud800b", "prompt": "a\\ud800b", "label": "0"}, "\\udce9"]')
    assert [document.text for document in documents([path])] == ["a\ufffdb".encode(), "\ufffd".encode()]
    assert [text for _, text in prompts(path)] == ["a\ufffdb".encode(), "\ufffd".encode()]
    path.write_text('[{"text": "a\\ud800b", "label": "\\udce9"}]')
    assert examples(path) == [Example("a\ufffdb", "\ufffd", f"{path}:1")]


def test_lines_of_a_text_end_at_a_line_feed(tmp_path):
    content = codecs.BOM_UTF8 + "a\u2028b\fc\x1dd\r\n\n \r\n\x85e\ne\u0301\r".encode()
    assert [(n, line.decode()) for n, line in text_lines(content)] == [
        (1, "a\u2028b\fc\x1dd"),
        (4, "\x85e"),
        (5, "e\u0301"),
    ]
    (tmp_path / "prompts.txt").write_bytes(content + b"\nd\xe9j\xe0")
    kept, text = list(prompts(tmp_path / "prompts.txt"))[-1]
    assert text == b"d\xe9j\xe0" and kept == {"prompt": "d\udce9j\udce0"}  # as a model of bytes is trained on it


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("x.json", b"[" * 99_999, "nested more than 100 deep"),
        ("x.jsonl", b'{"text": "a", "prompt": "a", "label": "0"}\n' + b"[" * 99_999, "x.jsonl, line 2: .*nested"),
        ("x.json", b'[{"text": "a", "prompt": "a", "label": "0"}, {"tixt": "b"}]', "x.json, entry 2: expected"),
        ("x.json", b'{"text": "a", "prompt": "a", "label": "0"}\n{"text', "x.json, line 2: expected a JSON object"),
        ("x.json", b'[{"text": "a"', "no JSON"),
        ("x.json", b'{"name": "package", "version": 1}', "entry 1: expected"),
        ("x.json", b"[1, 2]", "entry 1: expected"),
        (
            "x.jsonl",
            b'{"text": "a", "id": ' + b"1" * 5000 + b"}",
            r"line 1: .* 5,000 digits .*; put it in quotes, as text$",
        ),
        ("x.csv", b'text,prompt,label\na,b,0\nc,"d,1\ne,f,0\n', "x.csv, line 3: expected a row of a table"),
        ("x.csv", b"text,prompt,label\na,b,0\nc,d,1,e\n", "x.csv, line 3: expected 3 cells.* got 4"),
        ("x.csv", b"text,prompt,label,text\na,b,0,c\n", "names the column 'text' once, got twice"),
        ("x.csv", b"text,prompt,label\n\xe9,b,0\n", "expected a table in UTF-8"),
        ("x.jsonl", '{"text": "a"}'.encode("utf-16"), "UTF-16, not UTF-8"),
        ("x.jsonl", codecs.BOM_UTF8 + b" \n", "empty"),
    ],
)
def test_what_cannot_be_read_is_an_error_for_all(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    for reader in (prompts, examples, lambda path: documents([path])):
        with pytest.raises(ValueError, match=says):
            list(reader(tmp_path / name))


def test_a_table_without_the_column_is_a_text_unless_it_was_asked_for(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,age\nAhab,58\n")
    assert [document.text for document in documents([path])] == [b"name,age\nAhab,58\n"]
    with pytest.raises(ValueError, match="names the column 'story' once, got name, age"):
        list(documents([path], field="story"))
    with pytest.raises(ValueError, match="names the column 'prompt' once, got name, age"):
        list(prompts(path))


def test_json_in_a_folder_is_a_text_where_it_holds_no_records(tmp_path):
    contents = {"a.json": '{"name": "package"}', "b.json": "[1, 2]", "c.json": "// of an editor\n{}"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    assert [document.text.decode() for document in documents([tmp_path])] == list(contents.values())
    (tmp_path / "d.json").write_text('{"text": "one"}')
    (tmp_path / "e.json").write_text('["two", "three"]')
    found = [(document.start, document.text) for document in documents([tmp_path])]
    assert found[3:] == [(1, b"one"), (1, b"two"), (2, b"three")]
    (tmp_path / "f.json").write_text('[{"body": "four"}]')
    with pytest.raises(ValueError, match="f.json, entry 1: expected an object with the text under 'text', got body"):
        list(documents([tmp_path]))


def test_a_mark_is_no_part_of_a_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(codecs.BOM_UTF8 + b"text")
    assert [document.text for document in documents([tmp_path])] == [b"text"]
    assert [text for _, text in task.read_documents("x", tmp_path / "x.txt", 10, named=True)] == [b"text"]


@pytest.mark.parametrize("content, texts", [(b"some text", [b"some text"]), (b'{"text": "a"}\n', [b'{"text": "a"}\n'])])
def test_a_pipe_is_read(tmp_path, content, texts):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    assert [document.text for document in documents([tmp_path / "pipe"])] == texts
    writer.join()
