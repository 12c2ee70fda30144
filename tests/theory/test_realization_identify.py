"""Models found in data: order, poles, fit, whiteness; what is refused; the command line."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from solomonic._utils import jsontext
from solomonic.cli import main
from solomonic.theory.realization import Bilinear, Linear, fit, identify
from solomonic.theory.realization.file import load
from solomonic.theory.realization.linear import spectral_radius
from solomonic.theory.realization.prediction_error import errors, sensitivities
from solomonic.theory.realization.whiteness import independence, portmanteau

from .test_realization import rotation, system


def drawn(model, rows, seed):
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((rows, model.B.shape[1]))
    return model.simulate(u if u.size else rows, rng=rng), u


def cramer_rao(model, y, u):
    """Poles and the least standard deviation of their estimates: the Fisher information of the prediction errors."""
    names = [name for name in "ABCDK" if getattr(model, name).size]
    parts = {name: getattr(model, name) for name in "ABCDK"}
    parts |= {"N": np.zeros((0, model.order, model.order)), "x0": np.zeros(model.order)}
    J = sensitivities(parts, names, *errors(parts, y, u), u)
    inverse = np.linalg.pinv(np.einsum("tpi,pq,tqj->ij", J, np.linalg.inv(model.R), J), rcond=1e-9)
    poles, right = np.linalg.eig(model.A)
    left, G = np.linalg.inv(right), np.zeros((model.order, len(inverse)), complex)
    for k in range(model.order):
        G[k, : model.A.size] = np.outer(left[k], right[:, k]).ravel()
    return poles, np.sqrt(np.einsum("ki,ij,kj->k", G, inverse, G.conj()).real)


@pytest.mark.parametrize("name", ["one output", "input"])
def test_order_is_right_and_poles_spread_as_little_as_they_can(name):
    model, found, white = system(name), [], 0
    poles, least = cramer_rao(model, *drawn(model, 400, 1000))
    for seed in range(100):
        y, u = drawn(model, 400, seed)
        result = identify(y, u)
        white += result.white.p < 0.05
        if result.model.order == model.order:
            near = result.model.poles
            found.append([near[np.abs(near - pole).argmin()] for pole in poles])
    assert len(found) >= 95
    error = np.array(found) - poles
    assert np.all(np.sqrt((np.abs(error) ** 2).mean(0)) < 1.4 * least)
    assert np.all(np.abs(error.mean(0)) < 0.6 * least)
    assert white <= 14  # of 100 where 5 are expected


def test_two_inputs_and_two_outputs():
    model = system("two and two")
    y, u = drawn(model, 1000, 0)
    for criterion in ("fit", "likelihood"):
        found = identify(y, u, criterion=criterion)
        assert found.model.order == 4 and found.bilinear is None and found.stable is None
        poles, least = cramer_rao(model, y, u)
        for pole, deviation in zip(poles, least):
            assert np.abs(found.model.poles - pole).min() < 4 * deviation
        np.testing.assert_allclose(found.model.R, model.R, atol=0.1)
        quiet, more = model.simulate(u), found.model.simulate(u)
        assert fit(quiet, more - more.mean(0) + quiet.mean(0)).min() > 90


def test_units_and_means_do_not_matter():
    y, u = drawn(system("input"), 400, 0)
    plain, scaled = identify(y, u, 2).model, identify(1e4 * y + 7e5, 1e-6 * u - 3, 2).model
    np.testing.assert_allclose(np.sort_complex(scaled.poles), np.sort_complex(plain.poles), atol=1e-3)
    expected = 1e4 * plain.predict(y, u)[0] + 7e5
    np.testing.assert_allclose(scaled.predict(1e4 * y + 7e5, 1e-6 * u - 3)[0], expected, atol=1e-3 * expected.std())


def test_no_noise_gives_the_system_itself():
    model = system("input")
    u = np.random.default_rng(0).standard_normal((300, 1))
    found = identify(model.simulate(u), u, 2).model
    np.testing.assert_allclose(np.sort_complex(found.poles), np.sort_complex(model.poles), atol=1e-5)
    np.testing.assert_allclose(found.D, model.D, atol=1e-4)


def test_the_mean_of_a_transient_is_no_offset():
    """A tank that fills from empty: neither channel's mean is where it rests."""
    model = Linear([[0.95]], [[1.0]], [[1.0]], None, None, [[1.0]])
    u = np.repeat([1.0, 3.0, 2.0], 30)[:, None]
    found = identify(model.simulate(u), u, 1).model
    assert found.poles[0] == pytest.approx(0.95, abs=1e-5)
    np.testing.assert_allclose(found.simulate(np.zeros((400, 1)))[-1], 0, atol=1e-3)


def test_white_noise_has_no_state():
    y = np.random.default_rng(0).standard_normal((500, 1))
    found = identify(y)
    assert found.model.order == 0 and found.information == 0 and found.white.p > 0.01
    np.testing.assert_allclose(found.model.predict(y)[0], y.mean())


def test_information_of_data_is_about_that_of_the_model():
    from solomonic.theory.realization.covariance import information

    model = system("one output")
    found = identify(drawn(model, 4000, 0)[0], order=2)
    assert found.information == pytest.approx(information(model), rel=0.1)
    assert information(found.model) == pytest.approx(information(model), rel=0.1)


def test_focus_on_simulation_pays_where_the_noise_is_not_the_models():
    """A slow disturbance that the order cannot hold draws the predictor's poles away; an output-error fit keeps them."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((800, 1))
    clean = Linear([[0.5]], [[1.0]], [[1.0]], None, None, [[1.0]]).simulate(u)
    drift = np.cumsum(rng.standard_normal((800, 1)), 0) * 0.15
    got = {focus: identify(clean + drift, u, 1, focus=focus).model for focus in ("prediction", "simulation")}
    assert abs(got["simulation"].poles[0] - 0.5) < 0.1 < abs(got["prediction"].poles[0] - 0.5)


def test_whiteness_is_told_from_what_is_left():
    rng = np.random.default_rng(0)
    share = np.mean([portmanteau(rng.standard_normal((300, 2)), 10).p < 0.05 for _ in range(300)])
    assert 0.02 < share < 0.09
    colored = np.convolve(rng.standard_normal(400), [1, 0.5])[:, None]
    assert portmanteau(colored, 10).p < 1e-6
    e, u = rng.standard_normal((400, 2)), rng.standard_normal((400, 1))
    assert independence(e, u, 5).p > 0.01
    e[3:, 1] += 0.4 * u[:-3, 0]
    assert independence(e, u, 5).p < 1e-6
    with pytest.raises(ValueError, match="lags: expected between 5"):
        portmanteau(e, 4, 16)


def test_unstable_systems_are_said_to_be_and_have_a_stable_neighbour():
    """A growing mode that feedback keeps in bounds."""
    rng = np.random.default_rng(0)
    x, y, u = np.zeros(2), np.empty((500, 1)), np.empty((500, 1))
    A, B, C = np.array([[1.05, 0.2], [0, 0.7]]), np.array([0.1, 1.0]), np.array([1.0, 0.0])
    for t in range(500):
        y[t] = C @ x + 0.05 * rng.standard_normal()
        u[t] = -0.6 * y[t] + rng.standard_normal()
        x = A @ x + B * u[t] + 0.05 * rng.standard_normal(2)
    found = identify(y, u, 2)
    assert not found.model.stable and abs(found.model.poles[0] - 1.05) < 0.02
    assert found.stable.stable and abs(found.stable.poles[0]) == pytest.approx(1 - 1 / 500)
    assert spectral_radius(found.stable.A - found.stable.K @ found.stable.C) < 1
    assert fit(y, found.stable.predict(y, u)[0])[0] > 80


def test_bilinear_systems_are_found_from_the_linear_start():
    linear = Linear(rotation(0.8, 0.5), [[1.0], [0.5]], [[1.0, 0]], None, [[0.3], [0.1]], [[0.01]])
    true = Bilinear(linear, [0.35 * rotation(1, 1.0)])
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, (1200, 1))
    y = true.simulate(u, rng=rng)
    found = identify(y[:600], u[:600], 2, bilinear=True)
    one = {name: fit(y, m.predict(y, u)[0])[0] for name, m in (("l", found.model), ("b", found.bilinear), ("t", true))}
    assert one["b"] > one["l"] + 10 and one["b"] > one["t"] - 1
    assert fit(true.simulate(u), found.bilinear.simulate(u))[0] > 95


def test_bilinear_without_effect_is_linear():
    model = system("input")
    y, u = drawn(model, 50, 0)
    same = Bilinear(model, np.zeros((1, 2, 2)))
    np.testing.assert_allclose(same.predict(y, u)[0], model.predict(y, u)[0], atol=1e-12)
    np.testing.assert_allclose(same.simulate(u), model.simulate(u), atol=1e-12)


GOOD = drawn(system("input"), 200, 0)


def spoilt(rows, value):
    y = GOOD[0].copy()
    y[rows] = value
    return y


@pytest.mark.parametrize(
    "y, u, options, says",
    [
        (spoilt([6, 8], np.nan), GOOD[1], {}, "got nan for 'y1' in row 7; 2 rows with gaps: 7, 9"),
        (spoilt([0], np.inf), GOOD[1], {}, "got inf for 'y1' in row 1"),
        (spoilt(slice(None), 4.0), GOOD[1], {}, "a series that changes, got 'y1', which is 4 in every row"),
        (GOOD[0], np.ones((200, 1)), {}, "got 'u1', which is 1 in every row"),
        (
            1e200 * GOOD[0],
            GOOD[1],
            {},
            "a spread from 1e-151 to 1e+151, whose square a float can hold, got 'y1' with 1e+201;",
        ),
        (GOOD[0], 1e-200 * GOOD[1], {}, "got 'u1' with 1e-200; divide it by 1e-200"),
        (1.7e308 * np.sign(GOOD[0]), GOOD[1], {}, "got 'y1' with 1e+308; divide it by 1e+308"),
        (GOOD[0][:10], GOOD[1][:10], {}, "expected at least 15 rows for 1 outputs and 1 inputs, got 10"),
        (GOOD[0], GOOD[1], {"order": 60}, "order: expected 0 to 24, what 200 rows of 1 outputs can carry, got 60"),
        (GOOD[0], GOOD[1], {"lags": 90}, "lags: expected 2 to 25 for 200 rows, got 90"),
        (GOOD[0], GOOD[1], {"order": 9, "lags": 4}, "order: expected at most 4 with 4 lags"),
        (GOOD[0], GOOD[1][:50], {}, "inputs of as many rows"),
        (GOOD[0], GOOD[1], {"focus": "simulatoin"}, "did you mean 'simulation'"),
        (GOOD[0], GOOD[1], {"criterion": "fitt"}, "did you mean 'fit'"),
        (GOOD[0], None, {"bilinear": True}, "need inputs"),
    ],
)
def test_bad_input_is_said(y, u, options, says):
    with pytest.raises(ValueError) as error:
        identify(y, u, **options)
    assert says in str(error.value)


def table(path, names, columns, delimiter=","):
    lines = [delimiter.join(names)] if names else []
    lines += [delimiter.join(f"{value:.6g}" for value in row) for row in np.column_stack(columns)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_command_prints_saves_and_draws(tmp_path, capsys):
    y, u = GOOD
    data = table(tmp_path / "plant.csv", ["t", "valve", "level"], [np.arange(200), u, y])
    out = tmp_path / "out"
    words = [
        "identify",
        data,
        "--time",
        "t",
        "--inputs",
        "valve",
        "--outputs",
        "level",
        "--order",
        "2",
        "--out",
        str(out),
    ]
    assert main([*words, "--bilinear"]) == 0
    said = capsys.readouterr().out
    for part in (
        "order 2 (as given)",
        "rows 1-100, tested on 101-200",
        "canonical correlations",
        "white",
        "A =",
        "poles"[:4],
    ):
        assert part in said
    model = load(out / "model.json")
    assert model.inputs == ("valve",) and model.outputs == ("level",)
    expected = identify(y[:100].round(5), u[:100].round(5), 2).model
    np.testing.assert_allclose(np.sort_complex(model.poles), np.sort_complex(expected.poles), atol=1e-3)
    assert isinstance(load(out / "bilinear.json"), Bilinear)
    assert (out / "identify.png").read_bytes().startswith(b"\x89PNG") and (out / "identify.png").stat().st_size > 10_000


def test_tables_of_every_kind_read_alike(tmp_path):
    from scipy.io import savemat

    from solomonic.theory.tables import read

    y, u = np.round(GOOD[0], 4), np.round(GOOD[1], 4)
    both = np.column_stack([u, y])
    savemat(tmp_path / "one.mat", {"data": both})
    savemat(tmp_path / "two.mat", {"u": u, "y": y.T, "rate": 10.0})
    savemat(tmp_path / "wide.mat", {"u": u, "y": both})
    paths = {
        "plain.dat": table(tmp_path / "plain.dat", None, [u, y], "   "),
        "semi.csv": table(tmp_path / "semi.csv", ["u", "y"], [u, y], ";"),
        "tab.tsv": table(tmp_path / "tab.tsv", ["u", "y"], [u, y], "\t"),
    }
    for name, names in {"plain.dat": "12", "semi.csv": "uy", "tab.tsv": "uy", "one.mat": "12", "two.mat": "uy"}.items():
        found = read(tmp_path / name)
        assert list(found.columns) == list(names), paths
        np.testing.assert_allclose(np.stack([found.numbers(column) for column in names], 1), both)
    assert list(read(tmp_path / "wide.mat").columns) == ["u", "y:1", "y:2"]


@pytest.mark.parametrize(
    "content, words, says",
    [
        ("a,b\n1,2\n2,\n3,4\n", [], "line 3: expected a number for 'b', got 'nothing'"),
        ("a,b\n1,2\n2,x\n3,4\n", [], "line 3: expected a number for 'b', got 'x'"),
        ("a,b\n1,2\n2\n", [], "line 3: expected 2 values (a, b), got 1"),
        ("a,a\n1,2\n", ["--outputs", "a"], "expected one column 'a', got 1, 2; choose by number"),
        ('a,b\n1,x\n2,"x\n3,x\n', [], "line 3: a quote is opened here and it is never closed"),
        ("", [], "got an empty file"),
        ("level,valve\n1,2\n2,3\n", ["--inputs", "vlave"], "'vlave': did you mean 'valve'?"),
        ("level,valve\n1,2\n2,3\n", ["--inputs", "valve", "--outputs", "valve"], "valve: expected in one place"),
        ("level,valve\n1,2\n2,3\n", ["--inputs", "valve,valve"], "each column once"),
        ("level,valve\n1,2\n2,3\n", ["--inputs", "valve,level"], "columns for the outputs"),
        ("t,y\n1,2\n2,3\n3,1\n5,2\n6,1\n", ["--time", "t"], "got a step of 2 from line 4 to line 5 where most are 1"),
        ("t,y\n1,2\n2,3\n", ["--train", "2"], "--train: expected a share"),
        ("y\n" + "1\n2\n" * 4, [], "data.csv: expected at least 7 rows"),
        (
            "y,z\n" + "1,0\n2,0\n" * 9 + "1,3\n2,4\n" * 9,
            [],
            "data.csv: expected a series that changes, got 'z', which is 0 in"
            " every row that is fitted (1-18, by --train); leave it out",
        ),
        ("y\n1\n2\n", ["--focus", "simulatoin"], "solomonic: unknown focus 'simulatoin': did you mean 'simulation'"),
    ],
)
def test_a_mistake_is_one_line(content, words, says, tmp_path, capsys):
    (tmp_path / "data.csv").write_text(content)
    assert main(["identify", str(tmp_path / "data.csv"), *words, "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_times_counts_and_text_are_no_outputs_unless_named(tmp_path, capsys):
    """Newest first, as it is written; the numbers of the command are those of the library on the columns alone, as far as a
    search that ends where little is gained finds the same place again from another order of summation."""
    y, u = np.round(GOOD[0].ravel(), 6), np.round(GOOD[1].ravel(), 6)
    rows = [f"{i},{datetime(2024, 1, 1) + i * timedelta(minutes=1)},{u[i]},{y[i]},ok" for i in range(200)]
    (tmp_path / "plant.csv").write_text("\n".join([",when,valve,level,note", *rows[::-1]]))
    words = ["identify", str(tmp_path / "plant.csv"), "--inputs", "valve", "--order", "2", "--no-picture"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    expected = identify(y[:100], u[:100], 2)
    predicted, states = expected.model.predict(y, u)
    assert found["fits"]["model.json"]["one step ahead"] == {
        "level": pytest.approx(fit(y[100:], predicted[100:])[0], abs=0.05)
    }
    simulated = fit(y[100:], expected.model.simulate(u[100:], states[100]))[0]
    assert found["fits"]["model.json"]["simulated"]["level"] == pytest.approx(simulated, abs=0.05)
    assert (found["order"], found["rows"], found["fitted_rows"], found["fit_of"]) == (2, 200, 100, "test")
    assert found["models"]["model.json"] == json.loads((tmp_path / "out" / "model.json").read_text())
    assert found["white"]["p"] == pytest.approx(expected.white.p, abs=0.01)
    assert "'when' falls: rows are read from the last to the first" in err
    assert "no outputs, as they hold times, counts or text: 1, when, note" in err
    assert main([*words, "--time", "when", "--outputs", "4", "--out", str(tmp_path / "out")]) == 0
    assert load(tmp_path / "out" / "model.json").outputs == ("level",)


def test_json_in_a_file_is_json_where_an_output_stands_still(tmp_path, capsys):
    y = np.r_[GOOD[0].ravel()[:100], np.zeros(100)]
    words = [
        "identify",
        table(tmp_path / "d.csv", ["y", "u"], [y, GOOD[1]]),
        "--inputs",
        "u",
        "--order",
        "1",
        "--no-picture",
    ]
    assert main([*words, "--out", str(tmp_path / "out"), "--json", str(tmp_path / "x.json")]) == 0
    assert "order 1" in capsys.readouterr().out
    assert set(jsontext.read(tmp_path / "x.json", dict)["fits"]["model.json"]) == {"one step ahead", "simulated"}
    assert main([*words, "--json", str(tmp_path / "d.csv")]) == 2
    assert "expected another file" in capsys.readouterr().err


def test_what_is_left_out_of_a_mat_file_is_said(tmp_path, capsys):
    from scipy.io import savemat
    from scipy.sparse import csc_array

    y, u = GOOD
    left = {
        "z": y * (1 + 1j),
        "s": csc_array(y.reshape(-1, 1)),
        "name": "plant",
        "rate": 10.0,
        "cube": np.ones((2, 2, 2)),
    }
    left |= {"cells": np.array([1, "a"], dtype=object), "record": {"y": y}}
    savemat(tmp_path / "d.mat", {"y": y, "u": u, **left})
    words = ["identify", str(tmp_path / "d.mat"), "--inputs", "u", "--order", "1", "--no-picture"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    kinds = (
        "complex numbers",
        "a sparse matrix",
        "text",
        "a single number",
        "an array of 3",
        "a cell array",
        "a structure",
    )
    for name, what in zip(left, kinds):
        assert f"note: {name} in {tmp_path / 'd.mat'} is left out: {what}" in err
    assert main([*words, "--outputs", "z"]) == 2
    assert "expected numbers in 'z', got complex numbers; save real(...) and imag(...)" in capsys.readouterr().err
    savemat(tmp_path / "z.mat", {"z": y * 1j})
    assert main(["identify", str(tmp_path / "z.mat")]) == 2
    assert "expected real matrices of one number of rows, got z: complex numbers" in capsys.readouterr().err
    savemat(tmp_path / "u.mat", {"u": u, "z": y * 1j})
    assert main(["identify", str(tmp_path / "u.mat"), "--inputs", "u"]) == 2
    assert "z is left out: complex numbers; save real(...) and imag(...) of them" in capsys.readouterr().err


@pytest.mark.parametrize("name, content", [("x.mat", b"nothing"), ("x.csv", b"\xff\xfe\x00\x80\n"), ("no/x.mat", None)])
def test_files_that_cannot_be_read(name, content, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["identify", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


def test_a_saved_model_is_plain_json(tmp_path):
    data = table(tmp_path / "d.csv", ["y"], [GOOD[0]])
    assert main(["identify", data, "--train", "1", "--order", "1", "--out", str(tmp_path / "out"), "--no-picture"]) == 0
    assert json.loads((tmp_path / "out" / "model.json").read_text())["outputs"] == ["y"]
    assert not (tmp_path / "out" / "identify.png").exists()
