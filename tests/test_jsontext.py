"""JSON that is none, or too much of it, is one error with the place; what is written is JSON."""

import json
import math

import pytest

from solomonic._utils import jsontext

BAD = {
    "cut off": ('{"a": ', "no JSON"),
    "nested lists": ("[" * 100_000, "nested more than 100 deep"),
    "nested objects": ('{"a":' * 50_000, "nested more than 100 deep"),
    "nested and whole": ("[" * 500 + "]" * 500, "nested more than 100 deep"),
    "no UTF-8": (b'{"a": "\xe9"}', "no JSON"),
    "NaN": ('{"a": NaN}', "NaN, which is no number in JSON"),
    "infinity": ('{"a": -Infinity}', "-Infinity, which is no number"),
    "too large for a float": ('{"a": 1e999}', "expected numbers that can be read, got 1e999, which is too large"),
    "too many digits": (
        '{"a": -' + "9" * 5000 + "}",
        "expected numbers that can be read, got one of 5,000 digits (-999",
    ),
    "a key twice": ('{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
    "a list": ("[1]", "expected a JSON object, got list"),
    "nothing": ("", "no JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_error_with_the_place(case, tmp_path):
    text, says = BAD[case]
    data = text if isinstance(text, bytes) else text.encode()
    for where, read in {
        "some place": lambda: jsontext.parse(data, "some place", dict),
        str(tmp_path / "file"): lambda: jsontext.read(tmp_path / "file", dict),
    }.items():
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ValueError) as error:
            read()
        assert str(error.value).startswith(f"{where}: ") and says in str(error.value)
        assert len(str(error.value)) < 300 + len(where)


def test_what_is_sound_is_read(tmp_path):
    content = {"a": [1, 2.5, None, True, "\N{SNOWMAN}"], "b": {"c": "\ud800"}}
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert jsontext.read(tmp_path / "file") == content
    assert jsontext.parse("[" * 100 + "]" * 100, "") is not None
    assert jsontext.parse("[NaN, 1e999]", "", list, infinite=True)[1] == math.inf
    assert jsontext.parse("[NaN, -Infinity, 1e999, 2.5]", "", list, missing=True) == [None, None, None, 2.5]
    assert list(jsontext.lines("x", ["1", "", " [2] "])) == [(1, 1), (3, [2])]
    with pytest.raises(ValueError, match="x, line 3: expected"):
        list(jsontext.lines("x", ["1", "", "{"]))


def test_files_that_are_none(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for name, says in (("nowhere", "it is not there"), ("", "a folder"), ("pipe", "no file")):
        with pytest.raises(ValueError, match=says):
            jsontext.read(tmp_path / name)


def test_what_is_written_is_json():
    assert json.loads(jsontext.write({"a": 1})) == {"a": 1}
    with pytest.raises(ValueError):
        jsontext.write({"a": math.nan})
    assert json.loads(jsontext.write({"a": [math.nan, math.inf, 1.5]}, missing=True)) == {"a": [None, None, 1.5]}


def test_a_digest_is_of_what_is_said():
    assert jsontext.digest({"a": 1, "b": (2.0,)}) == jsontext.digest(json.loads('{"b":[2.0], "a":1}'))
    assert jsontext.digest({"a": 1}) != jsontext.digest({"a": 2})
