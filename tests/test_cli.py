"""The command line as a person meets it: a mistake is one line on stderr and exit code 2."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from solomonic._utils.spelling import unknown
from solomonic.cli import main
from solomonic.cli._commands import parser


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["compare", "--arch", "bmoj"], "unknown architecture 'bmoj': did you mean 'bmojo'?"),
        (["compare", "--task", "mqra"], "unknown task 'mqra': did you mean 'mqar'?"),
        (["compare", "--suite", "quik"], "did you mean 'quick'?"),
        (["compare", "--device", "cudo"], "unknown device 'cudo'"),
        (["compare", "--device", "cpu:1"], "expected cpu:0"),
        (["compare", "--seeds", "0"], "--seeds: expected a whole number >= 1, got 0"),
        (["compare", "--jobs", "0"], "--jobs: expected a whole number >= 1, got 0"),
        (["compare", "--task", "mqar", "--data", "x"], "--data is for the task 'text'"),
        (["compare", "--data", "no/such/path"], "no/such/path"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["compare", "--seeds", "many"], "solomonic compare: argument --seeds: expected a whole number, got 'many'"),
        (["trian"], "solomonic: unknown command 'trian': did you mean 'train'? expected one of anomalies, bench,"),
        (["TRAIN"], "did you mean 'train'?"),
        (["memory", "serach"], "solomonic memory: unknown command 'serach': did you mean 'search'?"),
        (["train", "--stpes", "3"], "solomonic train: unknown option '--stpes'; did you mean '--steps'?"),
        (["train", "--otu=a b", "--out", "x"], "unknown option '--otu'; did you mean '--out'?"),
        (["train", "--out", "x", "y", "-z"], "unknown option '-z'"),
        (["generate", "M", "--qq"], "unknown option '--qq'; text that begins with - comes after --"),
        (["train", "--out", "x", "--precision", "b16"], "did you mean 'bf16'? expected one of bf16, no"),
        (["train", "--out", "x", "--d", "3"], "ambiguous option: --d could match --d-model, --d-ff"),
        (["eval", "M", "--seed", "-1"], "solomonic eval: argument --seed: expected a whole number >= 0, got -1"),
        (["list", "tasks"], "solomonic list: expected nothing more, got 'tasks'"),
        (["train", "--out", "x", "--threads", "0"], "--threads: expected a whole number >= 1, got 0"),
        (["--qq"], "solomonic: unknown option '--qq'; those of a command come after it"),
        (
            ["memory", "--store", "s", "list"],
            "solomonic memory: unknown option '--store'; those of a command come after",
        ),
        (["generate", "M", "--temprature", "1"], "'--temprature'; did you mean '--temperature'? (see"),
        (["generate"], "the following arguments are required: MODEL (see"),
        (["--verison"], "solomonic: unknown option '--verison'; did you mean '--version'? (see"),
    ],
)
def test_a_mistake_in_the_words_themselves(arguments, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.err.count("\n") == 1 and "--help" in captured.err and says in captured.err


def test_a_mistake_fits_the_terminal(capsys, monkeypatch):
    """Its words are those of the one line that a pipe is given."""
    for words in (["compare", "--arch", "bmoj"], ["trian"], ["generate", "M", "a", "--batch", "p"]):
        said = {}
        for width in ("", "50"):
            monkeypatch.setenv("COLUMNS", width)
            monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(width))
            with suppress(SystemExit):
                assert main(words) == 2
            said[width] = capsys.readouterr().err
        assert said[""].count("\n") == 1 and len(said[""]) > 80, words
        assert max(map(len, said["50"].splitlines())) <= 50 and said["50"].split() == said[""].split(), words


def test_one_choice_is_expected_by_itself():
    assert str(unknown("device", "gpu", ["cpu"])) == "unknown device 'gpu': did you mean 'cpu'? expected cpu"


@pytest.mark.parametrize("words", [[], ["memory"], ["help"], ["help", "memory", "add"], ["train", "--help"]])
def test_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    shown, said = capsys.readouterr()
    named = [word for word in words if word not in ("help", "--help")]
    assert stop.value.code == 0 and shown.startswith(" ".join(["usage: solomonic", *named])) and not said


def test_words_of_which_any_number_may_come_stand_anywhere():
    def chosen(*words):
        return vars(parser().parse_args(words))

    assert chosen("train", "a", "--out", "x", "b", "--steps", "3", "c")["data"] == ["a", "b", "c"]
    assert chosen("generate", "M", "hi", "--seed", "1", "there", "--", "--you")["prompt"] == ["hi", "there", "--you"]
    assert chosen("memory", "add", "--store", "s", "a", "--model", "m", "b")["path"] == ["a", "b"]
    assert chosen("train", "--out", "x", "--", "-w")["data"] == ["-w"] and chosen("train", "--out", "x")["data"] == []


def parsers():
    def walk(one, words):
        inner = [action for action in one._actions if hasattr(action, "choices") and isinstance(action.choices, dict)]
        yield words, one
        for action in inner:
            for name, other in action.choices.items():
                yield from walk(other, f"{words} {name}".strip())

    return dict(walk(parser(), ""))


@pytest.mark.parametrize("width", [80, 60])
def test_help_fits_and_speaks_to_its_reader(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for words, one in parsers().items():
        text = one.format_help()
        assert max(map(len, text.splitlines())) <= width, words
        for word in ("docstring", "function here", "solomonic.", "(default None", "True)", "False)"):
            assert word not in text, (words, word)
    example = {80: "runs/books\n", 60: "\\\n        runs/books\n"}[width]
    assert f"\n    solomonic train books/ --model bmojo --out {example}" in parsers()["train"].format_help()


def test_choices_are_shown():
    from solomonic import PRESETS
    from solomonic.mixers.bmojo import COMBINE, READOUTS, SCORES
    from solomonic.tasks import names

    def shown(words):
        return set(re.findall(r"[\w.-]+", parsers()[words].format_help()))

    assert {*PRESETS, *SCORES, *READOUTS, *COMBINE, "kda", "bfloat16", "yes"} <= shown("train")
    assert {*PRESETS, *names(), "quick", "standard", "mad"} <= shown("compare")
    for words in ("eval", "generate", "memory add", "serve", "transduce"):
        assert {"float32", "bfloat16", "float16", "cpu", "cuda"} <= shown(words), words


def test_every_command_that_computes_takes_threads():
    """What does not compute: the lists, and what a store says of itself."""
    without = {words for words, one in parsers().items() if "--threads" not in one._option_string_actions}
    stores = {f"memory {name}" for name in ("list", "stats", "verify", "compact", "repair", "forget")}
    assert without == {"", "list", "memory", "results"} | stores


def test_threads_are_those_asked_for(monkeypatch, capsys):
    """In torch, in the libraries of numpy, in processes that begin later; afterwards as before."""
    import torch
    from threadpoolctl import threadpool_info

    def run(args, words):
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        print(torch.get_num_threads(), *blas, os.environ["OMP_NUM_THREADS"])

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("solomonic.cli.compare.run", run)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["compare", "--threads", "1"]) is None
        assert set(capsys.readouterr().out.split()) == {"1"}
        assert torch.get_num_threads() == 2 and "OMP_NUM_THREADS" not in os.environ
    finally:
        torch.set_num_threads(before)


def test_data_without_text(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    for name in ("empty", "binary"):
        assert main(["compare", "--data", name, "--out", "out"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["compare", "--arch", "bmojo", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_list_names_everything(capsys):
    from solomonic import PRESETS
    from solomonic.compare.suites import SUITES
    from solomonic.tasks import names

    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {*PRESETS, *names(), *SUITES, "cpu"} <= set(words)


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "solomonic", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "bmojo" in done.stdout


def test_list_as_json(capsys, tmp_path):
    """Instead of the text on the terminal, beside it in a file."""

    def printed(*words):
        assert main(["list", *words]) == 0
        return capsys.readouterr().out

    text = printed()
    assert printed("--json", str(tmp_path / "l.json")) == text
    listed = json.loads(printed("--json"))
    assert listed == json.loads((tmp_path / "l.json").read_text()) and {*listed} >= {"architectures", "tasks"}
    assert all(name in text for group in listed.values() for name in group)
