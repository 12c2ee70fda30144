"""Mixers, architectures and tasks from outside: how they are loaded, what is refused, what is remembered."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from solomonic import PRESETS, LanguageModel, preset
from solomonic._utils import plugins
from solomonic.checkpoints import training
from solomonic.checkpoints.folder import load, save
from solomonic.cli import main
from solomonic.compare.suites import SUITES
from solomonic.data.tokenizer import Tokenizer
from solomonic.mixers import MIXERS
from solomonic.tasks import TASKS, task

from ..commands import commands
from .conftest import unload

SIZES = {"d_model": 16, "n_layers": 1, "window": 4, "capacity": 4, "state_size": 4}
PRESET = 'from solomonic import PRESETS\nPRESETS["{}"] = ("a line", lambda dials, layer: dials.mamba2())\n'
TINY = """
archs = ["ema", { name = "inside", layers = [{ mixer = "bmojo", fading = "ema" }] }]
tasks = ["echo"]
plugins = ["ema.py", "echo.py"]
[dials]
d_model = 16
window = 4
[train]
steps = 2
batch_size = 2
samples = 2
"""


def said(capsys, *words: str) -> str:
    """The one line of a command that is refused."""
    assert main(list(words)) == 2
    line = capsys.readouterr().err
    assert line.startswith("solomonic: ") and line.count("\n") == 1, line
    return line


def test_a_file_adds_what_it_registers_once(capsys):
    for _ in range(2):
        plugins.load("ema.py")
    plugins.load("echo.py")
    assert "ema" in MIXERS and "ema" in PRESETS and task("echo").length == 12
    assert preset("ema", vocab_size=9, d_model=16).layers[0].name == "ema"
    assert preset("bmojo", vocab_size=9, d_model=16, fading="ema").layers[0].fading.decay == 0.9
    assert main(["list", "--plugin", "ema.py"]) == 0
    shown = capsys.readouterr().out
    assert "average in every layer (plug-in ema.py)" in shown and "the token before (plug-in echo.py)" in shown
    assert "ema" not in SUITES["mad"].archs


@pytest.mark.parametrize(
    "word, content, says",
    [
        ("no.py", None, "plug-in no.py: expected a Python file, there is none"),
        ("..", None, "expected the name of a module, or the path of a .py file"),
        ("", None, "expected the name of a module"),
        ("a_module_that_is_not", None, "expected a module that can be imported, got none"),
        ("bad.py", "import a_module_that_is_not", "plug-in bad.py: expected a module that can be imported, got ModuleNotFoundError: No"),
        ("bad.py", "1 / 0", "got ZeroDivisionError: division by zero"),
        ("bad.py", "raise SystemExit(3)", "got SystemExit: 3"),
        ("bad.py", "x =", "got SyntaxError"),
        ("bad.py", "x = 1", "plug-in bad.py: expected a module that registers a mixer, an architecture or a task"),
        ("bad.py", PRESET.format("bmojo"), "architecture 'bmojo': expected a name that no other has, got it from solomonic and from bad.py"),
        ("bad.py", PRESET.format("ema"), "architecture 'ema': expected a name that no other has, got it from ema.py and from bad.py"),
        ("bad.py", PRESET.format("A-b"), "expected a name of small letters, digits and _, 60 at most, got 'A-b'"),
        ("bad.py", PRESET.format("new") + 'PRESETS["two"] = 2', "architecture 'two': expected a pair"),
        ("bad.py", 'from solomonic.mixers import MIXERS\nMIXERS["new"] = MIXERS["mamba2"]', "mixer 'new': expected a subclass of Mixer whose"),
        ("bad.py", 'from solomonic.tasks import TASKS\nTASKS["new"] = int', "task 'new': expected a subclass of Task"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_one_line_and_leaves_nothing(word, content, says, folder, capsys):
    if content is not None:
        (folder / word).write_text(content)
    plugins.load("ema.py")
    before = [dict(registry.data) for registry in plugins._registries]
    assert says in said(capsys, "list", "--plugin", word)
    assert [dict(registry.data) for registry in plugins._registries] == before
    assert not any(name.endswith("bad_py") for name in sys.modules)


def test_the_file_of_a_module_is_pointed_to(capsys):
    assert "ema.py is a file, which is named so" in said(capsys, "list", "--plugin", "ema")


def test_the_same_by_two_ways_is_one_name_twice(monkeypatch, folder, capsys):
    monkeypatch.syspath_prepend(folder)
    line = said(capsys, "list", "--plugin", "ema", "--plugin", "ema.py")
    assert "mixer 'ema'" in line and "from ema and from ema.py" in line
    sys.modules.pop("ema", None)


@pytest.fixture
def installed(folder, monkeypatch):
    """Two distributions with an entry point each, one of which cannot be imported."""
    for name in ("ema", "broken"):
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[solomonic.plugins]\n{name} = {name}\n")
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(folder)
    plugins._to_load.cache_clear()
    yield
    sys.modules.pop("ema", None)


def test_what_is_installed_is_loaded_when_a_name_is_not_there(installed):
    assert preset("bmojo", vocab_size=9, d_model=16) and "mqar" in TASKS and "ema" not in sys.modules
    with pytest.warns(UserWarning, match="plug-in broken: .*ZeroDivisionError"):
        assert preset("ema", vocab_size=9, d_model=16).layers[0].name == "ema"
    assert MIXERS.origins == {"ema": "ema"}


def test_what_is_installed_is_listed(installed, capsys):
    with pytest.warns(UserWarning, match="plug-in broken: expected a module that can be imported, got Zero"):
        assert main(["list"]) == 0
    assert "(plug-in ema)" in capsys.readouterr().out


def test_an_output_is_never_the_plug_in_itself(folder, capsys):
    before = (folder / "ema.py").read_bytes()
    assert "expected another file than ema.py" in said(capsys, "list", "--plugin", "ema.py", "--json", "ema.py")
    assert (folder / "ema.py").read_bytes() == before


def test_every_command_that_names_an_architecture_a_task_or_a_model_takes_plugins():
    """identify and anomalies have models of their own."""
    without = {" ".join(words) for words, one in commands().items() if "--plugin" not in one._option_string_actions}
    stores = {f"memory {name}" for name in ("list", "stats", "verify", "compact", "repair", "forget")}
    assert without == {"anomalies", "identify", "results", "texture"} | stores


def saved(folder, **dials) -> None:
    torch.manual_seed(0)
    save(folder, LanguageModel(preset(vocab_size=257, **SIZES | dials)), Tokenizer.for_bytes())


def test_a_model_remembers_its_plug_in_and_does_not_import_it(folder):
    """In a second process, where a module of the name that the folder says could be imported."""
    plugins.load("ema.py")
    saved(folder / "m", name="bmojo", fading="ema")
    saved(folder / "plain", name="bmojo")
    config = json.loads((folder / "m" / "config.json").read_text())
    assert config["plugins"] == ["ema.py"] and "plugins" not in json.loads(
        (folder / "plain" / "config.json").read_text()
    )
    tokens = torch.arange(20)[None]
    expected = load(folder / "m")[0](tokens)[0]
    (folder / "m" / "config.json").write_text(json.dumps(config | {"plugins": ["trap"]}))
    (folder / "trap.py").write_text("open('sprung', 'w')\n")
    (folder / "d.txt").write_text("words and words " * 9)
    words = [sys.executable, "-m", "solomonic", "eval", "m", "--data", "d.txt", "--lengths", "8", "--samples", "1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "m/config.json: expected the plug-in trap to be loaded" in done.stderr and "--plugin" in done.stderr
    assert not (folder / "sprung").exists()
    assert torch.equal(load(folder / "m")[0](tokens)[0], expected)
    unload()
    for damaged in (["trap"], "trap", [3], {"a": 1}):
        (folder / "m" / "config.json").write_text(json.dumps(config | {"plugins": damaged}))
        with pytest.raises(ValueError, match=r"config.json: expected the plug-in|unknown mixer 'ema'"):
            load(folder / "m")


def test_the_wrapper_remembers_it_too(folder):
    pytest.importorskip("transformers", minversion="5.23")
    from solomonic.hf import SolomonicConfig

    plugins.load("ema.py")
    config = SolomonicConfig(preset("ema", vocab_size=9, d_model=16))
    config.save_pretrained(folder / "m")
    assert json.loads((folder / "m" / "config.json").read_text())["plugins"] == ["ema.py"]
    assert SolomonicConfig.from_pretrained(folder / "m").language_model() == config.language_model()
    unload()
    with pytest.raises(ValueError, match="expected the plug-in ema.py to be loaded"):
        SolomonicConfig.from_pretrained(folder / "m")


def test_a_comparison_trains_it_in_its_workers_and_remembers_it(folder, monkeypatch, capsys):
    monkeypatch.setitem(SUITES, "quick", replace(SUITES["quick"], cost_lengths=(8,)))
    (folder / "tiny.toml").write_text(TINY)
    assert main(["compare", "tiny.toml", "--device", "cpu", "--jobs", "1", "--threads", "1"]) == 0
    results = [json.loads(line) for line in (folder / "runs" / "tiny" / "results.jsonl").read_text().splitlines()]
    assert [(line["arch"], line["task"]) for line in results] == [("ema", "echo"), ("inside", "echo")]
    assert json.loads((folder / "runs" / "tiny" / "run.json").read_text())["settings"]["plugins"] == [
        "echo.py",
        "ema.py",
    ]
    unload()
    capsys.readouterr()
    assert main(["results", "runs/tiny"]) == 0 and "inside" in capsys.readouterr().out
    line = said(capsys, "compare", "--arch", "ema", "--out", "runs/tiny")
    assert (
        "unknown architecture 'ema'" in line and "runs/tiny was made with the plug-in echo.py, ema.py: name it" in line
    )
    (folder / "bad.toml").write_text('plugins = ["no.py"]\narchs = ["ema"]\ntasks = ["mqar"]')
    assert "bad.toml: plugins: plug-in no.py: expected a Python file" in said(capsys, "compare", "bad.toml")
    (folder / "bad.toml").write_text('plugins = [3]\narchs = ["ema"]\ntasks = ["mqar"]')
    assert "bad.toml: plugins: expected text, got 3" in said(capsys, "compare", "bad.toml")


def test_a_run_remembers_it(folder, capsys):
    plugins.load("ema.py")
    model = preset("ema", vocab_size=257, d_model=16)
    path = folder / "out" / "run" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    training.save(path, {"x": torch.ones(1)}, {"identity": {"model": model.to_dict()}})
    assert training.load(path)[1]["plugins"] == ["ema.py"]
    unload()
    with pytest.raises(ValueError, match="got one of another model; .*; it was made with the plug-in ema.py: name it"):
        training.load(path, {"model": preset("mamba2", vocab_size=257, d_model=16).to_dict()})
    (path.parent / "tokens.json").write_text("{}")
    line = said(capsys, "train", "--resume", "--out", "out", "--model", "ema")
    assert "unknown model 'ema'" in line and "checkpoint.safetensors was made with the plug-in ema.py: name it" in line


def test_layers_and_models_of_a_plug_in_are_measured(capsys):
    sizes = (
        "--lengths 8 --d-model 16 --n-heads 2 --n-layers 1 --work decode --seconds 0.01 --device cpu --dtype float32"
    )
    assert main(["bench", "--plugin", "ema.py", "--only", "ema", "mamba2", *sizes.split(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["scope"], row["name"]) for row in rows] == [
        (scope, name) for scope in ("layer", "model") for name in ("mamba2", "ema")
    ]
