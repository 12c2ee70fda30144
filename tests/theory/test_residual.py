"""Residual stacks: the laws of layers, planted anomalies, the benchmark's scores, and the command."""

import csv
import math
import sys
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from solomonic.cli import main
from solomonic.theory.residual import stack, stretches
from solomonic.theory.residual.detectors import relative_entropy, windowed_gaussian
from solomonic.theory.residual.layers import Level, Linear, Seasonal
from solomonic.theory.residual.nab import PROFILES, Profile, probation, score, weights
from solomonic.theory.residual.series import read
from solomonic.theory.residual.stack import Gated, Novelty, Seasons

DAY = 48
LAYERS = [Level(50), Seasonal(DAY), Linear(4, 200), Gated(Seasonal(7)), Seasons((12, DAY))]


def series(rows=1500, seed=0):
    """A day of DAY rows, a fading noise of order one, and a slow drift."""
    noise = np.random.default_rng(seed)
    t, x = np.arange(rows), np.zeros(rows)
    for i in range(1, rows):
        x[i] = 0.7 * x[i - 1] + 0.2 * noise.standard_normal()
    return 10 + np.cumsum(noise.standard_normal(rows)) * 0.002 + 2 * np.cos(2 * np.pi * t / DAY) ** 3 + x


def cut(layer, x, *places):
    parts, state = [], None
    for piece in np.split(x, places):
        part, state = layer.run(piece, state)
        parts.append(part)
    return parts, state


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[name])
        else:
            np.testing.assert_allclose(value, other[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_chunk_law_and_causality_of_layers(layer):
    x = series(400)
    whole, state = layer.run(x)
    parts, cut_state = cut(layer, x, 1, 2, 57, 57, 300)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-9, atol=1e-12)
    assert_same(state, cut_state)
    changed = x.copy()
    changed[200:] += 100
    np.testing.assert_array_equal(layer.run(changed)[0][:201], whole[:201])
    assert abs(layer.run(changed)[0][201] - whole[201]) > 0 or isinstance(layer, (Seasons, Seasonal, Gated))


def test_a_state_is_not_changed_by_the_call_that_takes_it():
    x, model = series(300), stack((DAY,))
    _, state = model.run(x[:200])
    first, _ = model.run(x[200:], state)
    again, _ = model.run(x[200:], state)
    np.testing.assert_array_equal(first.scores, again.scores)


def test_chunk_law_and_causality_of_the_stack():
    x, model = series(600), stack((DAY, 5 * DAY))
    whole, state = model.run(x)
    parts, cut_state = cut(model, x, 0, 1, 5, 13, 444)
    np.testing.assert_allclose(np.concatenate([part.scores for part in parts]), whole.scores, rtol=1e-7, atol=1e-9)
    assert_same(state, cut_state)
    row_by_row, _ = cut(model, x[:120], *range(1, 120))
    np.testing.assert_allclose(np.concatenate([part.scores for part in row_by_row]), whole.scores[:120], atol=1e-9)
    changed = x.copy()
    changed[450:] = 0
    np.testing.assert_array_equal(model.run(changed)[0].scores[:450], whole.scores[:450])


def test_each_layer_takes_its_part():
    """What is predicted and what is left add up, and every layer leaves less than it was fed."""
    x = series(3000)
    found, _ = stack((DAY,)).run(x)
    np.testing.assert_allclose(found.predictions.sum(1) + found.residuals[:, -1], x, atol=1e-9)
    spread = found.residuals[1000:].std(0)
    assert spread[1] < 0.6 * spread[0] and spread[2] < 0.85 * spread[1]
    assert spread[2] == pytest.approx(0.2, rel=0.2)  # the innovations that the series was made of
    left = found.residuals[1000:, 2]
    assert abs(np.corrcoef(left[1:], left[:-1])[0, 1]) < 0.1


def test_linear_layer_finds_the_coefficients():
    noise = np.random.default_rng(1)
    x = np.zeros(4000)
    for i in range(2, len(x)):
        x[i] = 1.2 * x[i - 1] - 0.5 * x[i - 2] + noise.standard_normal()
    _, state = Linear(2, 2000).run(x)
    np.testing.assert_allclose(state["weights"], [1.2, -0.5], atol=0.06)


def test_a_season_that_is_none_fades_out():
    x = np.random.default_rng(2).standard_normal(3000)
    assert np.abs(Gated(Seasonal(DAY)).run(x)[0][2000:]).mean() < 0.1 < np.abs(Seasonal(DAY).run(x)[0][2000:]).mean()


@pytest.mark.parametrize("kind", ["spike", "shift", "flat", "noise", "missing season"])
def test_planted_anomalies_are_found(kind):
    x, at = series(3000, seed=3), 2200
    noise = np.random.default_rng(4)
    if kind == "spike":
        x[at : at + 2] += 3
    elif kind == "shift":
        x[at:] += 3
    elif kind == "flat":
        x[at : at + 40] = x[at]
    elif kind == "noise":
        x[at : at + 30] += noise.standard_normal(30)
    else:
        x[at : at + DAY] -= 2 * np.cos(2 * np.pi * np.arange(at, at + DAY) / DAY) ** 3
    scores = stack((DAY,)).run(x)[0].scores
    scores[:450] = 0
    best = stretches(scores, 1, DAY)[0]
    assert at <= best.peak <= at + DAY


def test_what_was_seen_is_no_longer_new():
    """The second time a pattern comes, the eidetic layer has it."""
    x = np.random.default_rng(5).standard_normal(2000)
    for at in (1000, 1500):
        x[at : at + 30] += 6
    scores, state = Novelty().run(x[:, None])
    assert scores[1000:1040].max() > 15 and scores[1500:1540].max() < 7
    assert len(state["mean"]) < 40


def test_novelty_is_the_divergence_of_gaussians():
    """One stage, two rows a summary: the second one against the first, by hand."""
    x = np.array([0.0, 2.0, 5.0])
    scores, _ = Novelty(recent=2, admit=1e9).run(x[:, None])
    floor = 0.01 * np.square(x).mean()
    v, w, distance = 2.25 + floor, 1 + floor, 3.5 - 1.0
    assert scores[2] == pytest.approx(v / w + distance**2 / w - 1 - math.log(v / w))
    assert scores[0] == scores[1] == 0


def test_a_full_memory_drops_what_was_longest_without_a_match():
    x = np.concatenate([np.full(20, value) for value in (0.0, 100.0, 10000.0)])
    _, state = Novelty(recent=2, admit=1.0).run(x[:, None])
    assert np.ldexp(state["mean"], state["unit"]).ravel().tolist() == [0, 50, 100, 5050, 10000]
    _, state = Novelty(recent=2, admit=1.0, capacity=3).run(x[:, None])
    assert np.ldexp(state["mean"], state["unit"]).ravel().tolist() == [100, 5050, 10000]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_refused_by_row(bad):
    x = series(200)
    x[[17, 90]] = bad
    with pytest.raises(ValueError, match="row 17 and 2 in all"):
        stack().run(x)


@pytest.mark.parametrize(("periods", "recent"), [((1,), 12), ((48, 24), 12), ((), 1), ((2.5,), 12)])
def test_a_stack_that_cannot_be_is_refused(periods, recent):
    with pytest.raises(ValueError, match="expected"):
        stack(periods, recent)


def test_stretches_are_apart_and_bounded():
    scores = np.zeros(200)
    scores[[50, 52, 60, 150]] = 9, 7, 8, 5
    found = stretches(scores, 5, apart=20, gap=3)
    assert [(s.peak, s.first, s.last, s.score) for s in found] == [(50, 50, 52, 9.0), (150, 150, 150, 5.0)]
    assert stretches(np.zeros(10), 3, 2) == []


# the benchmark's scores


def sigma(x):
    return 2 / (1 + math.exp(5 * x)) - 1


def test_weights_by_hand():
    """Ten rows in a window of width 11, 20 to 30: the first is worth 1 but for the last row's place."""
    w = weights(100, [(20, 30)], PROFILES["standard"])
    assert w[20] == pytest.approx(1.0)
    assert w[25] == pytest.approx(sigma(-6 / 11) / sigma(-1))
    assert w[30] == pytest.approx(sigma(-1 / 11) / sigma(-1))
    assert w[19] == w[0] == -0.11
    assert w[31] == pytest.approx(0.11 * sigma(1 / 10))
    assert w[59] == pytest.approx(0.11 * sigma(2.9))
    assert w[60] == w[99] == -0.11


def test_scores_by_hand():
    scores = np.zeros(100)
    windows = [(40, 60), (80, 90)]
    scores[45], scores[50], scores[99] = 0.9, 1.0, 0.5
    at = [sigma(-(60 - row + 1) / 21) / sigma(-1) for row in (50, 45)]
    # both in one window: the better one counts; a miss of the other window costs 1; of 2 windows, from -2 to 2
    assert score([(scores, windows)], threshold=1.0).score == pytest.approx(100 * (at[0] - 1 + 2) / 4)
    assert score([(scores, windows)], threshold=0.7).score == pytest.approx(100 * (at[1] - 1 + 2) / 4)
    late = 0.11 * sigma(9 / 10)
    result = score([(scores, windows)], threshold=0.5)
    assert result.score == pytest.approx(100 * (at[1] + late - 1 + 2) / 4)
    assert (result.hits, result.windows, result.false_alarms) == (1, 2, 1)
    assert score([(scores, windows)]).threshold == 0.9  # the best of all
    missed = score([(scores, windows)], PROFILES["reward low FN"], threshold=0.7)
    assert missed.score == pytest.approx(100 * (at[1] - 2 + 4) / (2 + 4))


def test_null_and_perfect_detectors():
    windows = [(300, 400), (700, 720)]
    perfect = np.zeros(1000)
    perfect[[300, 700]] = 1
    for profile in PROFILES.values():
        assert score([(perfect, windows)], profile).score == pytest.approx(100)
        assert score([(perfect, windows)], profile, threshold=2).score == 0
    assert score([(-perfect, windows)], Profile(false_alarm=9)).score == 0  # no threshold does better than none


def test_probation_is_not_scored():
    assert probation(1000) == 150 and probation(100_000) == 750
    scores = np.zeros(1000)
    scores[[10, 149]] = 5
    assert score([(scores, [(500, 600)])], threshold=5).false_alarms == 0
    scores[150] = 5
    assert score([(scores, [(500, 600)])], threshold=5).false_alarms == 1


def test_points_are_those_of_a_series_with_or_without_windows():
    scores = np.zeros(100)
    scores[[45, 99]] = 1.0, 0.5
    found = score([(scores, [(40, 60)])], threshold=1.0)
    assert found.points == pytest.approx(sigma(-16 / 21) / sigma(-1))
    assert found.score == pytest.approx(100 * (found.points + 1) / 2)
    quiet = score([(scores, [])], threshold=0.5)
    assert quiet.points == pytest.approx(-0.22) and math.isnan(quiet.score)


@pytest.mark.parametrize("windows", [[(5, 3)], [(3, 8), (7, 9)], [(90, 100)], [(-1, 4)]])
def test_windows_that_cannot_be_are_refused(windows):
    with pytest.raises(ValueError, match="windows"):
        weights(100, windows, PROFILES["standard"])


def test_scores_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite"):
        score([(np.array([1.0, math.nan]), [(0, 1)])])
    with pytest.raises(ValueError, match="window"):
        score([(np.ones(5), [])])


def test_published_detectors_by_their_definitions():
    x = np.random.default_rng(6).standard_normal(1500)
    x[1200:1210] += 8
    gaussian = windowed_gaussian(x, 400)
    past = x[1100 - 400 : 1100]
    z = abs(x[1100] - past.mean()) / past.std()
    assert gaussian[1100] == pytest.approx(1 - 0.5 * math.erfc(z / math.sqrt(2)))
    assert 100 + gaussian[100:].argmax() in range(1200, 1210)
    entropy = relative_entropy(x)
    assert set(entropy) <= {0.0, 1.0} and entropy[1200:1262].max() == 1
    assert not relative_entropy(np.ones(100)).any()


# the command


def write(path, values, head="timestamp,load", step=timedelta(minutes=30), start=datetime(2024, 1, 1)):
    rows = [f"{start + i * step},{value}" for i, value in enumerate(values)]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_the_command_prints_stretches_and_writes_scores(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    x = series(2000, seed=7)
    x[1500:1504] += 5
    data = write(tmp_path / "data.csv", x)
    assert main(["anomalies", str(data), "--out", str(tmp_path / "scores.csv"), "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "2,000 rows, seasons of 48, 336 rows; the first 300 rows" in out
    at = datetime(2024, 1, 1) + 1500 * timedelta(minutes=30)
    peak = datetime.fromisoformat(out.splitlines()[2][:19])
    assert at <= peak <= at + timedelta(hours=8)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2000 and float(rows[1500]["load"]) == x[1500]
    whole, _ = stack((48, 336)).run(x)
    np.testing.assert_allclose([float(row["score"]) for row in rows], whole.scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([float(row["surprise"]) for row in rows], whole.surprise, rtol=1e-4, atol=1e-6)
    assert {"time", "expected", "residual_level", "residual_season", "residual_linear"} <= rows[0].keys()


def test_shades_show_what_surprises_and_little_else():
    pytest.importorskip("matplotlib")
    from solomonic.theory.residual.picture import shades

    x = np.random.default_rng(0).standard_normal(300)
    x[200:] += 8
    surprise = np.where(np.arange(300) < 45, 0, stack().run(x)[0].surprise)
    found = stretches(surprise, 5, 48)
    assert sum(stretch.last - stretch.first + 1 for stretch in found) > 100
    shaded = shades(found, surprise)
    assert all(a[1] < b[0] for a, b in pairwise(shaded))
    strong = [(first, last) for first, last, strength in shaded if strength > 0.4]
    assert strong[0][0] == 199 and strong[-1][1] <= 205
    assert sum((last - first + 1) * strength for first, last, strength in shaded) < 15
    assert shades([], surprise) == []


def test_gaps_in_time_are_named_by_row(tmp_path, capsys):
    lines = write(tmp_path / "data.csv", series(400)).read_text().splitlines()
    del lines[101:103]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert main(["anomalies", str(tmp_path / "data.csv")]) == 0
    assert "(row 100, line 102) is 1:30:00, not the usual 0:30:00" in capsys.readouterr().err


def test_the_command_reads_a_table_from_its_oldest_row(tmp_path, capsys):
    """German, newest first, an index, text and a count beside, one anomaly late in time: nothing is to be asked for."""
    x = series(1200, seed=7)
    x[900:904] += 5
    start = datetime(2024, 1, 25)
    rows = [
        f"{i};{start + i * timedelta(minutes=30):%d.%m.%Y %H:%M};{v:.4f};ok".replace(".", ",") for i, v in enumerate(x)
    ]
    rows = [row.replace(",", ".", 2) for row in rows]
    (tmp_path / "data.csv").write_text("\n".join([";Zeit;Last;Anmerkung", *rows[::-1]]), encoding="latin-1")
    found = read(tmp_path / "data.csv")
    np.testing.assert_allclose(found.values, x, atol=1e-4)
    assert found.periods() == (48, 336) and found.name == "Last"
    assert main(["anomalies", str(tmp_path / "data.csv"), "--most", "1"]) == 0
    out, err = capsys.readouterr()
    peak = datetime.strptime(out.splitlines()[2][:16], "%d.%m.%Y %H:%M")
    assert timedelta(0) <= peak - (start + 900 * timedelta(minutes=30)) <= timedelta(hours=8)
    assert "rows are read from the last to the first" in err


def test_a_series_without_times_has_rows_and_no_seasons(tmp_path, capsys):
    (tmp_path / "data.csv").write_text("x\n" + "\n".join(map(str, series(400))))
    assert main(["anomalies", str(tmp_path / "data.csv")]) == 0
    out = capsys.readouterr().out
    assert "no seasons" in out and "row " in out
    assert read(tmp_path / "data.csv").periods() == ()


DAYS = "".join(f"{datetime(2024, 1, 1) + i * timedelta(1):%Y-%m-%d},1\n" for i in range(150))
BAD = {
    "empty": ("", "empty file"),
    "binary": (b"\xff\xfe\x00\x01\x02", "no text|none"),
    "numbers": ("1,2\n3,4\n", "line 1: .*begin the file with a line of names"),
    "a quote": ("x,y\n" + "1,a\n" * 150 + '2,"a\n' + "3,a\n" * 150, "line 152: a quote is opened here"),
    "short": ("x\n" + "1\n2\n" * 20, "100 rows or more, got 40"),
    "constant": ("x\n" + "3\n" * 200, "changes"),
    "too large": (
        "x\n" + "1.7e308\n-1.6e308\n" * 100,
        "values of up to 1e.306, got 1.7e.308 in column 'x'; divide it by 1e.100",
    ),
    "two columns": ("a,b\n" + "1,2\n" * 200, "a, b; choose one with --column"),
    "two of one name": ("a,a\n" + "1,2\n2,3\n" * 200, "a:1, a:2; choose one with --column"),
    "no numbers": ("a\n" + "red\n" * 200, "got none"),
    "missing": ("x\n" + "1\n2\n" * 60 + "nan\n" + "3\n" * 50 + "x\n", "line 122.*'nan'.*1 more"),
    "empty cell": ("t,x\n" + DAYS + "2024-12-31,\n", "line 152.*nothing"),
    "ragged": ("t,x\n" + DAYS + "2024-12-31\n", "line 152: expected 2 values"),
    "time": ("t,x\n" + DAYS + "noon,2\n", "line 152: expected a time"),
    "equal times": ("t,x\n" + "2024-01-01,1\n" * 150, "line 3: .*stands again"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line_on_stderr(tmp_path, capsys, name):
    content, message = BAD[name]
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["anomalies", str(path), "--out", str(tmp_path / "scores.csv")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        read(path)
    assert not (tmp_path / "scores.csv").exists()


def test_typos_of_the_command(tmp_path, capsys):
    data = write(tmp_path / "data.csv", series(200))
    for words, message in [
        (["--column", "laod"], "did you mean 'load'"),
        (["--periods", "48", "12"], "rising"),
        (["--recent", "1"], "recent"),
        (["--most", "0"], "--most"),
        (["--out", str(data)], "expected another file than"),
    ]:
        assert main(["anomalies", str(data), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["anomalies", str(tmp_path / "none.csv")]) == 2


def test_without_the_extra_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "solomonic.theory.residual.picture", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    data = write(tmp_path / "data.csv", series(200))
    assert main(["anomalies", str(data), "--plot", str(tmp_path / "a.png")]) == 2
    assert "pip install 'solomonic[theory]'" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
