"""An option means the same on every command: one name, one type, one default, one help text."""

import argparse
import json
from collections import defaultdict

import pytest

from solomonic.cli import main
from solomonic.cli._commands import parser

from .commands import commands

APART = [
    # option, the commands where it differs, and why
    ("DATA", "train", "files of text; of others a table"),
    ("--batch-size", "bench generate train", "the default suits the work: 1, 8 and 16 rows"),
    ("--data", "compare", "one source, for the task 'text'"),
    ("--dtype", "bench train", "no model's file says it"),
    ("--length", "solomonoff", "instructions of a program; of train tokens a row"),
    ("--lengths", "bench eval", "the default depends on the device, or on the model"),
    ("--limit", "transduce", "of questions; of eval documents of a benchmark"),
    ("--lr", "train transduce", "of a run and of tuning on a few examples"),
    ("--max-tokens", "chat generate serve", "the default suits an answer, a text and a bound"),
    ("--model", "train solomonoff", "a named model to train; a model beside the programs"),
    ("--order", "texture", "identify chooses one by BIC"),
    ("--out", "anomalies compare generate identify memory_repair probe texture train", "what is written differs"),
    ("--rate", "texture", "frames a second"),
    ("--seconds", "bench solomonoff texture", "of measuring, of searching, of video"),
    ("--seed", "chat generate", "a text is another one every time, unless it is asked to be the same"),
    ("--session", "memory_add memory_forget", "a name in the store; of chat and generate a file"),
    ("--steps", "solomonoff train transduce", "of a machine, of training, of tuning"),
    ("--store", "transduce", "it may be left out there"),
    ("--suite", "compare eval", "of runs that train; of questions to a model"),
    ("--task", "compare eval", "eval's take options, compare's are those of suites too"),
    ("--train", "identify transduce", "a share of the rows; a file"),
    ("--json", "transduce", "a file that the next run adds to"),
]
SIZES = (
    "--d-model --n-layers --n-heads --window --capacity --state-size"  # of bench; train's are those of a named model
)
APART += [(option, "train", "None: as the named model has it") for option in SIZES.split()]


def options() -> dict[str, dict[str, argparse.Action]]:
    """Of every option that a help shows, and every name of an argument, the commands that have it."""
    found = defaultdict(dict)
    for words, command in commands().items():
        name = "_".join(words)
        for action in command._actions:
            if action.help != argparse.SUPPRESS and action.dest not in ("help", "version"):
                found[action.option_strings[0] if action.option_strings else action.metavar][name] = action
    return found


def meaning(action: argparse.Action) -> tuple:
    return (
        action.dest, action.metavar, action.type, repr(action.default), action.nargs, action.const, action.required, action.help
    )  # fmt: skip


def test_an_option_is_the_same_on_every_command():
    apart = {option: names.split() for option, names, _ in APART}
    for option, of in options().items():
        meanings = {meaning(action) for name, action in of.items() if name not in apart.get(option, ())}
        assert len(meanings) <= 1, (option, meanings)


def test_no_exception_is_without_need():
    of = options()
    for option, names, reason in APART:
        assert reason and set(names.split()) <= set(of[option]), option
        others = [meaning(action) for name, action in of[option].items() if name not in names.split()]
        apart = [meaning(of[option][name]) for name in names.split()]
        assert not {*apart} & {*others} and len({*apart, *others}) > 1, f"{option}: some of {names} agree"


def test_help_says_what_is_taken_when_nothing_is_said():
    for option, of in options().items():
        for name, action in of.items():
            assert action.help and not action.help.endswith("."), (name, option)
            if option.startswith("--") and action.nargs != 0 and action.default is not None:
                assert "(default" in action.help, (name, option)
            if isinstance(action.default, (int, str)) and action.nargs is None and option.startswith("--"):
                assert f"default {action.default}" in action.help, (name, option)


@pytest.mark.parametrize(
    "words, earlier, now",
    [
        ("generate M", "--found 7", "--k 7"),
        ("transduce M --train a --test b", "--found 7", "--k 7"),
        ("memory search a --model M --store S", "--found 7", "--k 7"),
        ("bench", "--batch 2", "--batch-size 2"),
        ("train --out X", "--cpu", "--device cpu"),
    ],
)
def test_an_earlier_name_still_works(words, earlier, now, capsys):
    def parsed(option):
        return {
            name: value
            for name, value in vars(parser().parse_args(f"{words} {option}".split())).items()
            if not callable(value)
        }

    assert parsed(earlier) == parsed(now) != parsed("")
    with pytest.raises(SystemExit):
        main([*words.split()[: 2 if words.startswith("memory") else 1], "--help"])
    assert f"{earlier.split()[0]} " not in capsys.readouterr().out


def test_an_earlier_name_is_suggested_to_nobody(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "M", "--fuond", "3"])
    assert "'--found'" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "solomonoff 0110 --phases 5",
        "bench --work decode --scope layer --lengths 8 --d-model 16 --n-heads 2 --seconds 0.01 --dtype float32",
    ],
)
def test_json_takes_the_place_of_the_text(words, capsys, tmp_path):
    assert main([*words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main([*words.split(), "--json", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text()) and not capsys.readouterr().out.startswith("{")


@pytest.mark.parametrize("earlier, now, precision", [("no", "float32", "no"), ("bf16", "bfloat16", "bf16")])
def test_the_type_of_a_run_has_the_names_of_every_other(earlier, now, precision, monkeypatch, tmp_path):
    """And the run's own settings stay as they were, so that it goes on from a checkpoint of before."""
    seen = []

    def build(config, work, cpu):
        seen.append((config.precision, cpu))
        raise ValueError("far enough")

    monkeypatch.setattr("solomonic.training.text.build_accelerator", build)
    monkeypatch.chdir(tmp_path)
    for words in (["--precision", earlier], ["--dtype", now, "--device", "cpu"]):
        assert main(["train", "--out", "x", "--d-model", "16", "--n-layers", "1", *words]) == 2
    assert main(["train", "--out", "x", "--dtype", "float16"]) == 2
    assert seen == [(precision, False), (precision, True)]
