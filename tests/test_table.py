"""Tables fit the terminal: nothing is lost, numbers stay whole as long as they can."""

import io
import os
import sys

import pytest

from solomonic._utils.spelling import counted, paragraph, warn
from solomonic.cli._table import table

HEAD = ["document", "id", "session", "time (UTC)", "stored tokens", "text bytes", "store bytes", "complete"]
ROWS = [
    ["books/moby dick.txt", 1, "talk", "2026-11-30 10:10:10", 12345, 678901, 12345678, "yes"],
    ["/a/long/path/to/some/file/that/has/a/long/name.jsonl:12", 2, None, "2026-11-30 10:10:10", 5, 6, 7, "no"],
]


def test_what_fits_is_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert table(["length", "bits"], [[2048, 1.5], [64, None]]) == "length   bits\n2,048   1.500\n64          -"


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20, 7])
def test_no_line_is_longer_than_the_terminal_and_nothing_is_lost(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = table(HEAD, ROWS)
    assert max(map(len, shown.splitlines())) <= width
    monkeypatch.setenv("COLUMNS", "500")
    assert set(table(HEAD, ROWS)) == set(shown) | {" "}
    if width >= 40:
        for number in ("12,345", "678,901", "12,345,678"):
            assert number in shown
    if width >= 80:
        assert "\n\n" not in shown  # one table


def test_words_of_the_head_come_below_one_another_before_texts_do(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert table(["name", "times as fast", "MiB"], [["sliding_window", "1.00", "12.5"]]) == (
        "name            times as   MiB\n                    fast\nsliding_window      1.00  12.5"
    )


def test_a_text_is_broken_at_its_words_and_begins_at_the_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    shown = table(["layer", "passage"], [[0, "the whale was seen from afar"]]).splitlines()
    assert shown == ["layer                  passage", "0      the whale was seen from", "       afar"]


@pytest.mark.parametrize("rows", [[], [["", ""]], [["x" * 100, "y"]], [["\N{REPLACEMENT CHARACTER}" * 50, None]]])
def test_odd_ones(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(line) <= 20 for line in table(["a", "b"], rows).splitlines())


def test_paragraphs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    assert paragraph("mamba2   fading memory only", "  ", " " * 11) == "  mamba2   fading memory\n           only"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_paragraph_is_as_wide_as_the_terminal_and_one_line_in_a_pipe(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    text = "a/long/path/to-some-file " * 10 + "x" * 100
    assert paragraph(text) == text  # standard output is captured
    shown = paragraph(text, "- ", "  ", Terminal()).splitlines()  # which does not say how wide it is
    assert all(len(line) <= 80 for line in shown[:-1]) and shown[-1] == "  " + "x" * 100
    assert " ".join(shown).split() == ["-", *text.split()]
    monkeypatch.setattr(os, "get_terminal_size", lambda handle: os.terminal_size((40, 24)))
    monkeypatch.setattr(Terminal, "fileno", lambda self: 9, raising=False)
    assert max(map(len, paragraph("word " * 50, file=Terminal()).splitlines())) == 39
    monkeypatch.setattr(sys, "stderr", Terminal())
    warn("word " * 50)
    assert sys.stderr.getvalue().startswith("solomonic: word") and sys.stderr.getvalue().count("\n") > 5


def test_numbers_of_things():
    assert [counted(n, "thread") for n in (0, 1, 2, 2048)] == ["0 threads", "1 thread", "2 threads", "2,048 threads"]


def test_short_names_of_rows_stay_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = table(["arch", *"abcd"], [["bmojo_published", *["1.000\xa0±\xa00.000"] * 4]])
    assert shown.count("bmojo_published") == 2 and "\n\n" in shown  # two tables, and no name broken
