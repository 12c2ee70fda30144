"""`solomonic solomonoff` as a person meets it."""

import json
import sys

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer


def test_answer(capsys, tmp_path):
    out = tmp_path / "answer.json"
    (tmp_path / "bits").write_text("0101 0101\n01010101\n")
    assert main(["solomonoff", str(tmp_path / "bits"), "--phases", "25", "--twice", "--json", str(out)]) == 0
    shown, numbers = capsys.readouterr().out, json.loads(out.read_text())
    assert "~[~.~.]" in shown and "0101010101010101" in shown and "asked again" in shown
    assert numbers["programs"][0]["goes_on"] == "01" * 12 and numbers["programs"][0]["steps"] == 41
    assert numbers["next"]["0"]["of_programs_found"] > 0.9
    assert 0 <= numbers["next"]["1"]["lower"] <= numbers["next"]["1"]["mixture"] <= numbers["next"]["1"]["upper"] <= 1
    assert numbers["again"]["programs"] == numbers["work"]["programs"] > 10_000
    assert numbers["complexity"]["lower"] < numbers["complexity"]["upper"] < 16
    assert numbers["work"]["phases"][-1] | {"k": 25, "complete": True} == numbers["work"]["phases"][-1]


def test_fallback_is_said(capsys):
    assert main(["solomonoff", "0110100110010110", "--length", "5"]) == 0
    assert "no program was found that prints the bits" in capsys.readouterr().out


def test_model(capsys, tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(preset("mamba2", vocab_size=257, d_model=16, n_layers=1))
    save(tmp_path / "model", model, Tokenizer.for_bytes())
    out = tmp_path / "answer.json"
    words = ["solomonoff", "0110", "--phases", "9", "--device", "cpu", "--json", str(out)]
    assert main([*words, "--model", str(tmp_path / "model")]) == 0
    numbers = json.loads(out.read_text())
    tokens = torch.tensor([[48, 49, 49, 48]])
    pair = model.eval()(tokens)[0][0, :, 48:50].double().softmax(-1)
    assert numbers["next"]["1"]["model"] == pytest.approx(pair[-1, 1].item(), abs=1e-6)
    assert numbers["bits"]["model"] == pytest.approx(1 - sum(pair[i, b].log2().item() for i, b in enumerate((1, 1, 0))))
    assert "model" in capsys.readouterr().out


def test_without_the_compiler(capsys, monkeypatch):
    for name in ("compiled", "inference"):
        monkeypatch.delitem(sys.modules, f"solomonic.theory.solomonoff.{name}", raising=False)
        monkeypatch.delattr(f"solomonic.theory.solomonoff.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert main(["solomonoff", "01"]) == 2
    assert capsys.readouterr().err == (
        "solomonic: solomonoff needs numba, which is not installed: pip install 'solomonic[theory]'\n"
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["0102"], "expected 0 and 1 alone, got '2' at character 4"),
        ([""], "got nothing"),
        ([" "], "got nothing"),
        (["no/such/file"], "there is no such file"),
        (["bits.txt"], "there is no such file"),
        (["empty"], "got no bit"),
        (["odd"], "got 'x' at character 4"),
        (["folder"], "folder"),
        (["01", "--seconds", "0"], "--seconds: expected more than 0, got 0"),
        (["01", "--seconds", "nan"], "--seconds: expected more than 0"),
        (["01", "--steps", "-5"], "--steps: expected more than 0, got -5"),
        (["01", "--length", "0"], "--length: expected more than 0, got 0"),
        (["01", "--length", "30"], "--length: expected at most 24"),
        (["01", "--length", "3", "--phases", "3"], "leave out --phases or --length"),
        (["01", "--model", "no/such/folder", "--steps", "100"], "no/such/folder"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "odd").write_text("01\nx")
    (tmp_path / "folder").mkdir()
    assert main(["solomonoff", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and captured.out == ""
