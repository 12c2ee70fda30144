"""All of it on one text: the numbers, the page and the command."""

import json
import re
from html import escape

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, ModelConfig
from solomonic._utils.look import DARK, LIGHT
from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer
from solomonic.mixers.attention import AttentionConfig
from solomonic.mixers.bmojo import BMojoConfig
from solomonic.mixers.gated_kalmanet import GatedKalmaNetConfig
from solomonic.mixers.mamba2 import Mamba2Config
from solomonic.probe.findings import findings
from solomonic.probe.page import page
from solomonic.probe.study import LEAST, bits, study, work

FADING = Mamba2Config(state_size=8, head_dim=16, expand=1)


def made(*layers, seed=0):
    torch.manual_seed(seed)
    return LanguageModel(ModelConfig(257, 32, layers, d_ff=16)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save(
        path,
        made(BMojoConfig(fading=FADING, window=8, capacity=8), GatedKalmaNetConfig(2, 8, 8)),
        Tokenizer.for_bytes(),
    )
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta", "<b>&"], 600)
    path.write_text(" ".join(words))
    return path


@pytest.fixture(scope="module")
def probed(folder, text):
    out = folder / "probe"
    words = ["--data", str(text), "--tokens", "2100", "--generate", "6", "--out", str(out)]
    assert main(["probe", str(folder), *words]) == 0
    return json.loads((out / "probe.json").read_text()), (out / "probe.html").read_text()


def test_the_numbers_agree_with_each_other(probed):
    results, _ = probed
    assert results["tokens"] == 2100 and results["layers"] == ["bmojo", "gated_kalmanet"]
    (mass,) = results["mass"]
    assert mass["layer"] == 0 and np.allclose(np.sum(mass["heads"], 1), 1, atol=1e-5)
    assert [(row["layers"], row["memory"]) for row in results["ablations"]] == [
        ([0], "window"), ([0], "fading"), ([0], "eidetic"),
    ]  # fmt: skip
    first, second = results["fading"]
    assert (first["memory"], second["memory"]) == ("mamba2", "gated_kalmanet")
    assert np.allclose(np.sum(first["hankel"], 1), 1) and second["hankel"] is None
    assert len(first["order"]) == 2 and max(first["order"]) <= 8
    for name in ("1/e", "1 %"):
        for tokens, frozen in zip(first["horizon"][name], first["horizon_frozen"][name]):
            assert tokens is None or 0.5 * frozen < tokens < 2 * frozen + 1
    assert [s["states_there"] for s in results["systems"]] == [2 * 8 * 16, 2 * 8 * 8 * 2]
    intact, *others = results["interventions"]
    assert len(others) == 6 and intact["agrees"] == 6
    for entry in others:
        same = next((i for i, (a, b) in enumerate(zip(entry["text"], intact["text"])) if a != b), 6)
        assert entry["agrees"] == same and entry["divergence"] >= -1e-12
    assert max(entry["divergence"] for entry in others if entry["how"] == "without") > 0


def test_the_page_is_one_file_with_pictures_in_its_own_colours(probed):
    _, html = probed
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(pictures) == 6 and all('role="img" aria-label="' in picture for picture in pictures)
    assert "fading, layer 0" in html and "<b>&" not in html  # text is escaped
    assert not re.search(r'(src|href)="(?!#)', html)
    assert not any(re.search(r"#[0-9a-f]{6}\b", picture) for picture in pictures)  # no colour but the page's
    names = re.findall(r'[ <]id="([^"]*)"', html)
    assert len(names) == len(set(names)) and set(re.findall(r'(?:url\(#|href="#)([^")]*)', html)) <= set(names)
    variables = {name for picture in pictures for name in re.findall(r"var\(--([a-z0-9]+)\)", picture)}
    assert {"ink", "soft", "s0", "s2", "s6"} <= variables <= LIGHT.keys() == DARK.keys()


def test_the_page_the_file_and_the_command_say_what_was_found(probed):
    results, html = probed
    assert results["findings"] == findings(results)
    for sentence in results["findings"]:
        assert escape(sentence) in html.replace("&nbsp;", " ")
    assert sum("bits a token" in sentence for sentence in results["findings"]) == 4  # three memories and the loss


def test_the_loss_is_the_model_s(folder):
    model, text = made(FADING), torch.randint(0, 257, (1, 1200))
    with torch.no_grad():
        logits = model(text)[0][0, :-1].double()
        expected = torch.nn.functional.cross_entropy(logits, text[0, 1:], reduction="none") / np.log(2)
        torch.testing.assert_close(bits(model, text), expected, rtol=1e-4, atol=1e-4)


def test_a_model_without_such_memories_has_less_to_say():
    reports = []
    results = study(made(FADING), np.random.default_rng(1).integers(0, 257, LEAST), report=reports.append)
    assert results["mass"] == results["ablations"] == results["interventions"] == [] and len(results["systems"]) == 1
    assert sum(reports) == work(made(FADING), LEAST)
    assert (
        findings(results)[0] == "What its mamba2 is worth in bits is not measured: such a layer has nothing beside it."
    )
    assert page(results, "mamba2", [], repr).count("<svg") == 4
    results = study(made(AttentionConfig(n_heads=2)), np.arange(LEAST) % 257)
    assert findings(results)[0] == "No layer has a memory that could be taken away."
    assert "<svg" not in page(results, "transformer", [], repr)


def test_each_call_is_reported():
    reports, model = [], made(BMojoConfig(fading=FADING, window=8, capacity=8))
    study(model, np.arange(LEAST + 5) % 257, generate=3, report=reports.append)
    assert sum(reports) == work(model, LEAST + 5, 3)


def test_typos_are_one_line_on_stderr(folder, text, tmp_path, capsys):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    for words, message in [
        (["--tokens", "0"], "--tokens"),
        (["--tokens", "100"], f"{LEAST} tokens or more, and --tokens as large; the longest has 100"),
        (["--tokens", "100"], "the longest has 100, all that --tokens 100 reads of it"),
        (["--data", str(short)], f"{LEAST} tokens or more"),
        (["--data", str(tmp_path / "none")], "not there"),
        (["--out", str(short)], "is a file"),
        (["--directions", "0"], "--directions"),
    ]:
        assert main(["probe", str(folder), "--data", str(text), *words]) == 2
        err = capsys.readouterr().err.strip()
        assert message in err and "\n" not in err
    assert main(["probe", str(tmp_path), "--data", str(text)]) == 2
