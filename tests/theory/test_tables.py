"""Tables as spreadsheets, loggers and programs write them: read in the one way they can be meant, or refused by line."""

from datetime import datetime, timedelta

import pytest

from solomonic.theory.tables import read

U = [0.5, -1.25, 3.0, 2.5, 7.75, -0.5, 4.0, 1.5, 2.25, 6.0, 0.75, -3.5]
Y = [1234.5, 987.25, 12.0, 1500.75, -3.5, 20.5, 31.0, 999.5, 1000.25, 5.5, 64.0, 7.125]
START, HOUR, DAY = datetime(2024, 1, 30, 22), timedelta(hours=1), timedelta(days=1)
TIMES = [START + i * HOUR for i in range(12)]
SIXES = [datetime(2024, 1, 2) + 6 * i * HOUR for i in range(12)]
TURN = [datetime(2024, 1, 25) + i * DAY for i in range(12)]
DAYS = [datetime(2024, 1, 2) + i * DAY for i in range(12)]


def text(head="u,y", sign=",", numbers=(U, Y), write=str, end="\n", first=None, tail=""):
    columns = [list(map(write, column)) for column in numbers]
    columns = [list(first), *columns] if first is not None else columns
    rows = [sign.join(row) for row in zip(*columns)]
    return end.join([*([head] if head is not None else []), *(row + tail for row in rows), ""])


def german(value):
    return f"{value:,}".translate(str.maketrans(",.", ".,"))


def comma(value):
    return str(value).replace(".", ",")


def iso(moments):
    return [str(moment) for moment in moments]


NAMED = {"u": U, "y": Y}
NUMBERED = {"1": U, "2": Y}
TIMED = {"u": U, "y": Y, "step": "1:00:00"}
SIX = {"u": U, "y": Y, "step": "6:00:00"}
DAILY = {"u": U, "y": Y, "step": "1 day, 0:00:00"}
ONE = {"value": Y}
QUOTED = text(write=lambda v: f'"{v:,}"')
UNIX = [(moment - datetime(1970, 1, 1)) // timedelta(seconds=1) for moment in TIMES]

READ = {
    "plain": (text(), NAMED),
    "quoted": (text('"u","y"', write=lambda v: f'"{v}"'), NAMED),
    "spaces after commas": (text("u, y", ", "), NAMED),
    "Excel, German": (text("u;y", ";", write=german), NAMED),
    "three decimals, parted by semicolons": (text("u;y", ";", numbers=([1.125, 2.375], [3, 4]), write=comma),
                                             {"u": [1.125, 2.375], "y": [3, 4], "notes": "'1,125' of 'u' is read with a decimal comma"}),
    "Excel, German, UTF-8 with its mark": ("\ufeff" + text("u;y", ";", write=german, end="\r\n"), NAMED),
    "Excel, French": (text("u;y", ";", write=lambda v: f"{v:,}".replace(",", "\u202f").replace(".", ",")), NAMED),
    "Excel, French, Latin-1": (
        text("é;y", ";", write=lambda v: f"{v:,}".replace(",", "\xa0").replace(".", ",")).encode("latin-1"),
        {"é": U, "y": Y, "notes": "Windows-1252"},
    ),
    "Excel, Swiss": (text("u;y", ";", write=lambda v: f"{v:,}".replace(",", "'")), NAMED),
    "Excel, Swedish, tabs": (text("u\ty", "\t", write=lambda v: f"{v:,}".replace(",", " ").replace(".", ",")), NAMED),
    "Excel, English, thousands": (QUOTED, NAMED),
    "Excel, Unicode text": (text("u\ty", "\t", write=comma, end="\r\n").encode("utf-16"), NAMED),
    "UTF-16 without its mark": (text().encode("utf-16-le"), NAMED),
    "UTF-16, the other end first, without": (text().encode("utf-16-be"), NAMED),
    "UTF-32": (text().encode("utf-32"), NAMED),
    "sep=": ("sep=;\r\n" + text("u;y", ";", write=comma, end="\r\n"), NAMED),
    "sep= of one column": ("sep=;\n" + text("value", numbers=(Y,), write=comma), ONE),
    "end of file of DOS": (text() + "\x1a", NAMED),
    "old Mac": (text(end="\r"), NAMED),
    "mixed ends": (text().replace("\n", "\r\n", 5), NAMED),
    "ends translated twice": (text("value", numbers=(Y,), end="\r\r\n"), ONE),
    "tabs": (text("u\ty", "\t"), NAMED),
    "bars": (text("u|y", "|"), NAMED),
    "spaces": (text("u y", "   "), NAMED),
    "spaces and tabs, no names": (text(None, "\t   ", tail="\t"), NUMBERED),
    "spaces, decimal commas": (text("u y", "  ", write=comma), NAMED),
    "Fortran": (text("u y", " ", write=lambda v: f"{v:.10E}".replace("E", "D")), NAMED),
    "minus as typeset": (text(write=lambda v: str(v).replace("-", "\u2212")), NAMED),
    "no names": (text(None), NUMBERED),
    "no names, whole numbers and decimals": (text(None, numbers=([0, *U[1:]], [0, *Y[1:]])), {"1": [0, *U[1:]], "2": [0, *Y[1:]]}),
    "one column of decimal commas": (text("value", numbers=(Y,), write=comma), ONE),
    "one column of decimal commas, no names": (text(None, numbers=(Y,), write=lambda v: f"{v:.3f}0".replace(".", ",")), {"1": Y}),
    "one column of decimal commas, quoted": (text("value", numbers=(Y,), write=lambda v: f'"{comma(v)}"'), ONE),
    "one column, a name with a comma": (text("value, °C", numbers=(Y,)), {"value, °C": Y}),
    "a year above years, which may be a name": (text("2020", numbers=([1900, 1996, 1950],)), {"1": [2020, 1900, 1996, 1950], "notes": "line 1 is read as values: 2020; if"}),
    "columns of channels": (text("time,1,2", first=iso(TIMES)), {"1": U, "2": Y, "step": "1:00:00"}),
    "pandas": (text(",u,y", first=map(str, range(12))), {"u": U, "y": Y, "time": "1"}),
    "pandas, columns without names": (text(",0,1", first=map(str, range(12))), {"0": U, "1": Y, "time": "column 1"}),
    "pandas, times": (text(",u,y", first=iso(TIMES)), TIMED),
    "R": (text('"u" "y"', " ", first=(f'"{i}"' for i in range(1, 13))), NAMED),
    "numpy": ("# a plant\n# u y\n" + text(None, " "), {**NAMED, "notes": "comment above"}),
    "comments": ("# plant 7; valve A\n% May\n" + text().replace("\n", "\n# calibrated\n", 4), NAMED),
    "units": (text("u,y\nV,°C"), {**NAMED, "notes": "read as units: V, °C"}),
    "names, units and what was taken": (text("u,y\nV,m\nAvg,Smp"), {**NAMED, "notes": "read as units: Avg, Smp"}),
    "names of days between": (text("time,u,y", first=(f'"{m:%a, %d %b %Y %H:%M:%S} +0000"' for m in TIMES)), TIMED),
    "midnight as 24:00": (text("time,u,y", first=(f"{m - DAY:%Y-%m-%d} 24:00" if m.hour == 0 else f"{m:%Y-%m-%d %H:%M}" for m in TIMES)), TIMED),
    "elapsed": (text("elapsed,u,y", first=(f"{i}:00:00" for i in range(20, 32))), TIMED),
    "a duration beside": (text("u,y,wait", numbers=(U, Y, ["00:05", "00:00"] * 6)), {**NAMED, "notes": "column 'wait'); the column is not used"}),
    "times in no form": (text("time,u,y", first=(f"3/{i}" for i in range(12))), {**NAMED, "notes": "'time' holds no times that can be read ('3/0')"}),
    "units, times": (text("t,u,y\n[s],[V],", first=map(str, range(12))), {**NAMED, "time": "t", "notes": r"\[s\], \[V\]"}),
    "signs at the ends": (text("u,y,", tail=","), NAMED),
    "signs at the ends of rows": (text("u,y", tail=",,"), NAMED),
    "signs at the ends of names": (text("u,y,,"), NAMED),
    "empty rows below": (text("u;y", ";", write=comma) + ";\n;\n\n", NAMED),
    "text beside": (text("name,u,y", first=["a", "b, c", *"defghijklm"]).replace("b, c", '"b, c"'), NAMED),
    "text of more lines": (text("u,y,n", tail=',ok').replace("ok", '"two\nlines"', 1), NAMED),
    "an inch": (text("u,y,n", tail=',5" pipe'), NAMED),
    "an empty column": (text("u,y,n", tail=","), NAMED),
    "ISO": (text("time,u,y", first=(m.isoformat() + "Z" for m in TIMES)), TIMED),
    "ISO, parts of seconds": (text("time,u,y", first=(f"{m},500" for m in TIMES), sign=";").replace("time,u,y", "time;u;y"), TIMED),
    "zones": (text("time,u,y", first=(f"{m}+02:00" for m in TIMES)), TIMED),
    "US": (text("date,u,y", first=(f"{m:%-m/%-d/%Y %-I:%M %p}" for m in TIMES)), TIMED),
    "US, no day above the 12th": (text("date,u,y", first=(f"{m:%m/%d/%Y %H:%M}" for m in SIXES)), SIX),
    "British": (text("date,u,y", first=(f"{m:%d/%m/%Y %H:%M}" for m in TIMES)), TIMED),
    "British, no day above the 12th": (text("date,u,y", first=(f"{m:%d/%m/%y %H:%M}" for m in SIXES)), SIX),
    "two digits, year first": (text("date,u,y", first=(f"{m:%y/%m/%d}" for m in TURN)), DAILY),
    "German days": (text("Datum;u;y", ";", write=comma, first=(f"{m:%d.%m.%Y %H:%M:%S}" for m in TIMES)), TIMED),
    "Japanese days": (text("date,u,y", first=(f"{m:%Y/%m/%d %H:%M}" for m in TIMES)), TIMED),
    "names of months": (text("date,u,y", first=(f"{m:%d-%b-%Y %H:%M:%S}" for m in TIMES)), TIMED),
    "names of months, American": (text("date,u,y", first=(f'"{m:%b %d, %Y}"' for m in DAYS)), DAILY),
    "months": (text("month,u,y", first=(f"2023-{i:02}" for i in range(1, 13))), {**NAMED, "step": "1 months"}),
    "date beside clock": (text("Date;Time;u;y", ";", first=(f"{m:%d.%m.%Y;%H:%M:%S}" for m in TIMES)), TIMED),
    "date beside clock, spaces": (text(None, " ", first=(f"{m:%Y-%m-%d %H:%M}" for m in TIMES)), {"3": U, "4": Y, "step": "1:00:00"}),
    "clock": (text("clock,u,y", first=(f"{m:%H:%M}" for m in TIMES)), TIMED),
    "since 1970": (text("timestamp,u,y", first=map(str, UNIX)), TIMED),
    "since 1970, milliseconds": (text("t_ms,u,y", first=(f"{t}000" for t in UNIX)), TIMED),
    "since 1970, parts of seconds": (text("ts,u,y", first=(f"{t}.0" for t in UNIX)), TIMED),
    "digits alone": (text("date,u,y", first=(f"{m:%Y%m%d}" for m in DAYS)), DAILY),
    "numbers of seconds": (text("Time (s),u,y", first=(f"{i / 10}" for i in range(12))), {**NAMED, "time": "Time (s)"}),
    "a count": (text("sample,u,y", first=map(str, range(7, 19))), {**NAMED, "time": "sample"}),
    "newest first": (
        text("time,u,y", first=iso(TIMES[::-1])),
        {"u": U[::-1], "y": Y[::-1], "step": "1:00:00", "notes": "from the last to the first"},
    ),
    "clock set back": (text("time,u,y", first=iso(TIMES[:6] + TIMES[5:11])), TIMED),
    "a name of two lines": (text('"flow\n2020"', numbers=(Y,)), {"flow 2020": Y}),
    "doubled names": (text("u,u"), {"u:1": U, "u:2": Y}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_as_it_is_meant(tmp_path, name):
    content, expected = READ[name]
    expected = dict(expected)
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table, times = read(path).time()
    step, notes, time = expected.pop("step", None), expected.pop("notes", ""), expected.pop("time", None)
    assert notes == "" or any(notes in note.replace("[", r"\[").replace("]", r"\]") for note in table.notes), (
        table.notes
    )
    assert (step or time) is None or times is not None
    assert step is None or times.with_unit(times.step) == step
    assert time is None or times.name == time.split(":")[0]
    for column, values in expected.items():
        assert table.numbers(column).tolist() == values
    if times is None:
        assert set(table.of_kind("number")) == set(expected)


@pytest.mark.parametrize("head, chosen", [("2020", "2020"), ("2019;2020", "2020"), ("2019;2020", " 2020 , 2019")])
def test_numbers_are_names_where_a_column_is_chosen_by_one(tmp_path, head, chosen):
    years = [1900 + i * 7 % 97 for i in range(40)]
    (tmp_path / "data.csv").write_text(text(head, ";", numbers=[years] * len(head.split(";"))))
    table = read(tmp_path / "data.csv", None, chosen)
    assert "2020" in table.choose(chosen) and table.numbers("2020").tolist() == years


@pytest.mark.parametrize("head, chosen", [("2;1", "1"), ("7;7", "7"), ("7;10", "2")])
def test_numbers_are_no_names_where_a_column_is_chosen_by_its_number_or_by_none(tmp_path, head, chosen):
    (tmp_path / "data.csv").write_text(text(head, ";", numbers=([5, 9, 7, 4], [0, 9, 6, 8])))
    assert read(tmp_path / "data.csv", chosen).numbers("1").tolist()[0] == float(head[0])


CUT = text("u,y,note", tail=",ok").splitlines()
SWALLOWED = {
    "never closed": [*CUT[:5], '1,2,"ok', *CUT[6:]],
    "closed by another": [*CUT[:5], '1,2,"ok', *CUT[6:9], '1,2,"ok', *CUT[10:]],
    "closed later": [*CUT[:5], '1,2,"ok', *CUT[6:9], '1,2,ok"', *CUT[10:]],
    "of one column": ["value", *map(str, Y[:4]), f'"{Y[4]}', *map(str, Y), f'{Y[5]}"', *map(str, Y)],
}
GOOD = text().splitlines()

REFUSED = {
    **{name: ("\n".join(lines) + "\n", "line 6: a quote") for name, lines in SWALLOWED.items()},
    "a quote in a long file": ("\n".join([*CUT[:5], '1,2,"ok', *CUT[6:] * 5000]), "line 6: a quote"),
    "a quote in one column's name": ("\n".join(['"value', *map(str, Y), '1"', *map(str, Y)]), "line 1: a quote"),
    "a long cell": (text().replace("2.5", '"' + "far " * 999 + '"', 1), r"line 5: expected a number for 'u', got 'far.*\.\.\.';"),
    "empty": ("", "empty"),
    "names alone": ("u,y\n", "rows of values"),
    "comments alone": ("# u\n\n", "empty"),
    "Excel": (b"PK\x03\x04\x14\0", "Excel workbook.*save it as CSV"),
    "parquet": (b"PAR1\x15\x04", "parquet file.*save it as CSV"),
    "JSON": ('[{"u": 1}]', "JSON.*save it as CSV"),
    "HTML": ("<!DOCTYPE html>\n", "HTML.*save it as CSV"),
    "binary": (bytes(range(256)), "save it as"),
    "half of UTF-16": (b"\xff\xfe1\0\n", "utf-16"),
    "Shift JIS, broken": (b"u,y\n\x81\x8d,1\n", "save it as UTF-8"),
    "short row": ("\n".join([*GOOD[:7], "5", *GOOD[7:]]), r"line 8: expected 2 values \(u, y\), got 1; fill it up"),
    "long row": ("\n".join([*GOOD[:7], "5,6,7", *GOOD[7:]]), "line 8: expected 2 values .*, got 3; put quotes"),
    "decimal commas unquoted": (text(write=comma), r"line 2: expected 2 values|line 1: expected a name for each of the 4"),
    "a title": ("Plant 7\n" + text(), "line 1: expected a name for each of the 2 values.* put # before a title"),
    "a gap": (text().replace("2.5", "", 1), "line 5: expected a number for 'u', got 'nothing'; fill the gaps"),
    **{f"a gap, {gap}": (text().replace("2.5", gap, 1), f"line 5: expected a number for 'u', got '{gap}'")
       for gap in ("NA", "nan", "NULL", "-", "?", "#N/A", "n/a", "inf", "1_0", "5 V", "12%", "0x1F", "1e999", "=1", "on", "١")},
    "a gap first in its line": (text().replace("2.5", "#DIV/0!", 1), "line 5: expected a number for 'u', got '#DIV/0!'"),
    "more gaps": (text().replace("2.5,", ",").replace("1.5,", ","), "and so in 1 more"),
    "an empty line for a gap": (text("value", numbers=(Y,)).replace("12.0", ""), "line 4: .*an empty line"),
    "one number or two": (text(None, numbers=(range(5, 25, 2), range(10)), write=str), "line 1: .*one number or two"),
    "one number or two, below a name with a comma": (text("Level, m", numbers=(Y,), write=comma), "line 2: .*one number or two"),
    "a short row of whole numbers": (text("u,y", numbers=(range(9), range(5, 14))).replace("3,8", "3"), "line 5: expected 2 values"),
    "names of years": (text("2019,2020"), "line 1: expected to know whether"),
    "a name of a year above one column": (text("2019", numbers=(range(9, 29),)), "line 1: expected to know whether"),
    "quotes around each line": ("\n".join(f'"{line}"' for line in text("u,y", numbers=(range(9), range(5, 14))).split()), "line 2: .*one number or two"),
    "titles above whole numbers": ("Plant 7\nby me\n" + text("u,y", numbers=(range(9), range(5, 14))), "line 1: .* put # before a title"),
    "names below others": ("; plant\n" + text("u;y", ";"), "line 2: expected values, got names"),
    "names of years, apart": (text("2000,2010", numbers=([3] * 5 + [4] * 9, [7] * 9 + [8] * 5)), "line 1: expected to know|one number or two"),
    "pandas, one column without a name": (text("0", numbers=(Y,)), "line 1: expected to know whether"),
    "names and values": ("1.5,bad,2.5\n" + text(None, numbers=(U, U, Y)), "line 1: expected to know whether"),
    "thousands or decimals": (text("value", numbers=([1234, 5678, 9012],), write="{:,}".format), "line 2: .*decimal sign"),
    "point and comma": (text("u;y", ";").replace("3.0", "3,5"), "line 2: .*'0.5' and, in line 4, '3,5'"),
    "thousands beside decimal commas": (text("u;y", ";", write=comma, numbers=(U[:2],)) .replace("u;y", "u;y")
                                        .replace("0,5", "0,5;1.234").replace("-1,25", "-1,25;5.678"), "line 2: .*'1.234'"),
    "day or month": (text("date,u,y", first=[f"0{i % 4 + 1}/0{i // 4 + 1}/2024" for i in (0, 4, 5, 9, 1, 2)]), "line 2: .*day or month"),
    "a time that is none": (text("time,u,y", first=[*iso(TIMES[:5]), "noon", *iso(TIMES[6:])]), "line 7: expected a time, got 'noon'"),
    "a day that is none": (text("date,u,y", first=[*(f"{m:%d/%m/%Y}" for m in DAYS[:5]), "31/02/2024"]), "line 7: expected a time"),
    "both orders": (text("date,u,y", first=["13/01/2024", "14/01/2024", "01/15/2024"]), "line 4: expected a date in the order"),
    "zones now and then": (text("time,u,y", first=[*iso(TIMES[:5]), f"{TIMES[5]}Z"]), "line 7: .*both"),
    "out of order": (text("time,u,y", first=iso([*TIMES[:4], TIMES[9], *TIMES[4:8]])), "line 7: .*goes back; sort"),
    "numbers of seconds, out of order": (text("t,u,y", first=(str(i * 5 % 12) for i in range(12))), "line 5: .*'3' goes back; sort"),
    "numbers of seconds, begun again": (text("t,u,y", first=(str(i % 9) for i in range(12))), "line 11: .*'0' goes back; sort"),
    "equal times": (text("time,u,y", first=iso(TIMES[i // 2] for i in range(12))), "line 3: .*stands again"),
    "newest first, out of order": (text("time,u,y", first=iso([*TIMES[9:3:-1], TIMES[11], TIMES[2]])), "line 7|line 8: .*sort"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_line_and_what_to_do(tmp_path, name):
    content, message = REFUSED[name]
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        table, _ = read(path).time()
        for column in table.of_kind("number"):
            table.numbers(column)
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 700
