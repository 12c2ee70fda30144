"""A comparison that a file describes: what it runs, what it starts again, and mistakes, each of them one line."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from solomonic import PRESETS, preset
from solomonic._utils import jsontext
from solomonic.cli import main
from solomonic.compare.experiment import DIALS, experiment
from solomonic.compare.folder import read_lines, settings_of
from solomonic.compare.matrix import build_model, check_task
from solomonic.compare.suites import SUITES, Run, suite
from solomonic.mixers import MIXERS
from solomonic.tasks import names, options

TINY = """
archs = [
    { name = "bmojo_2", preset = "bmojo", capacity = 2 },
    { name = "mine", layers = [{ mixer = "gated_deltanet" }, { mixer = "attention", window = 3 }] },
]
tasks = ["recall"]
[dials]
d_model = 16
window = 4
capacity = 4
state_size = 4
[options.recall]
task = "distractor_recall"
pairs = 2
keys = 4
values = 4
length = 12
lengths = [12, 24]
[train]
steps = 2
batch_size = 2
samples = 2
least_samples = 1
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, **narrowed):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return experiment(path, **narrowed)

    return read


def test_tasks_by_their_names_in_the_suites(read):
    """What a suite calls a task with its options, an experiment does too, and `--task`."""
    text = 'archs = ["bmojo"]\ntasks = ["niah_single_1", "parity", "needles"]\n[options.niah_single_1]\nkeys = 16\n'
    runs = read(text).runs
    assert [(run.task, run.options.get("variant")) for run in runs.values()] == [
        ("needles", "single_1"),
        ("state_tracking", None),
        ("needles", "multikey_1"),
    ]
    assert runs["niah_single_1"].options["keys"] == 16 and runs["parity"].options["group"] == "parity"
    assert suite(tasks=["niah_single_1"]).runs["niah_single_1"].options["variant"] == "single_1"
    with pytest.raises(ValueError, match="did you mean 'niah_single_1'"):
        read(text.replace('"niah_single_1"', '"nia_single_1"'))
    with pytest.raises(ValueError, match="expected a name that no task has yet, got 'parity'"):
        read('archs = ["bmojo"]\ntasks = ["parity"]\n[options.parity]\ntask = "mqar"\n')


@pytest.mark.parametrize("name", ["memory", "reasoning", "ruler"])
def test_every_run_of_a_suite_has_rows_and_models(name):
    """Of 1 to 16 times the training length where the task is one of memory; and its models can be built."""
    for run in suite(name).runs.values():
        task = check_task(run)
        assert max(run.lengths or task.lengths) >= (8 if name == "ruler" else 2) * task.length
        with torch.device("meta"):
            for arch in suite(name).archs:
                build_model(arch, run, task.vocab_size, 0)
    assert suite(name).seeds == 3 and all(len(run.lrs) == 2 for run in suite(name).runs.values())


def test_cells_are_run_and_not_again(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SUITES, "quick", replace(SUITES["quick"], cost_lengths=(8,)))
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ["compare", "tiny.toml", "--device", "cpu", "--jobs", "1", "--threads", "1"]
    assert main(words) == 0
    results, about = (tmp_path / "runs" / "tiny" / name for name in ("results.jsonl", "run.json"))
    cells, _ = read_lines(results)
    assert [(c["arch"], c["task"], c["lr"], c["steps"]) for c in cells] == [
        ("bmojo_2", "recall", 0.01, 2),
        ("mine", "recall", 0.01, 2),
    ]
    assert [layer["capacity"] for layer in cells[0]["config"]["layers"]] == [2, 2]
    assert [layer["mixer"] for layer in cells[1]["config"]["layers"]] == ["gated_deltanet", "attention"]
    assert [s["length"] for s in cells[1]["scores"]] == [12, 24] and [c["length"] for c in cells[1]["costs"]] == [8]
    settings = json.loads(about.read_text())["settings"]
    assert settings["suite"] == "tiny" and list(settings["archs"]) == ["bmojo_2", "mine"]
    assert "mine" in (results.parent / "report.html").read_text()

    before = results.read_bytes()
    assert main(words) == 0 and results.read_bytes() == before
    assert "2 of 2 cells are in" in capfd.readouterr().out

    files = {path: path.read_bytes() for path in (results, about)}
    for text in (TINY.replace("steps = 2", "steps = 3"), TINY.replace("window = 3", "window = 2")):
        (tmp_path / "tiny.toml").write_text(text)
        assert main(words) == 2 and "another configuration" in capfd.readouterr().err
    assert main(["compare", *words[2:], "--task", "mqar", "--out", "runs/tiny"]) == 2
    assert files == {path: path.read_bytes() for path in files}

    (tmp_path / "tiny.toml").write_text(TINY.replace("archs = [", 'archs = ["mamba2",'))
    assert main([*words, "--arch", "mamba2"]) == 0
    assert results.read_bytes().startswith(before) and len(read_lines(results)[0]) == 3
    assert list(json.loads(about.read_text())["settings"]["archs"]) == ["bmojo_2", "mine", "mamba2"]


def test_what_is_left_out_is_as_the_command_has_it(read):
    found = read('archs = ["mamba2"]\ntasks = ["mqar"]').runs["mqar"]
    usual = suite(tasks=["mqar"]).runs["mqar"]
    assert found.dials.items() >= usual.dials.items() and found.dials.keys() == DIALS.keys()
    assert found.train.items() >= usual.train.items() and found.options == options("mqar")
    filled = {key: getattr(found, key) for key in ("dials", "train", "options", "archs")}
    assert replace(usual, **filled) == found
    assert build_model("mamba2", found, 64, 0).config == build_model("mamba2", usual, 64, 0).config


def test_settings_are_the_whole_experiment(read):
    """Runs of what run.json says train the same models."""
    tiny = read(TINY + "lrs = [1e-3, 1e-2]\nbetas = [0.9, 0.99]\n", seeds=2)
    settings = json.loads(json.dumps(settings_of(tiny, "cpu")))
    assert settings["seeds"] == 2
    for name, run in tiny.runs.items():
        again = Run(**settings["runs"][name], archs=settings["archs"])
        assert jsontext.plain(asdict(again)) == jsontext.plain(asdict(run))
        for arch in tiny.archs:
            assert build_model(arch, again, 64, 0).config == build_model(arch, run, 64, 0).config
    assert tiny.runs["recall"].rates("mine") == (1e-3, 1e-2)


def test_settings_of_suites_are_as_before():
    """Folders of before go on."""
    settings = settings_of(suite(), "cpu", {"text": "a digest"})
    assert list(settings) == ["suite", "device", "runs", "tasks"]
    fields = "task steps batch_size samples least_samples lengths options dials lrs best_lr train".split()
    assert all(list(run) == fields for run in settings["runs"].values())
    assert jsontext.digest(settings) == "43f6fc43b07181e23f5a128e8fb9bc8b"


def test_it_is_narrowed_as_suites_are(read):
    text = 'archs = ["mamba2", "bmojo"]\ntasks = ["mqar", "text"]\nseeds = 3\n[dials]\nd_model = 16'
    narrow = read(text, archs=["bmojo"], tasks=["mqar"], seeds=1)
    assert (narrow.archs, list(narrow.runs), narrow.seeds) == (("bmojo",), ["mqar"], 1)
    assert settings_of(narrow, "cpu")["archs"].keys() == {"mamba2", "bmojo"}
    for asked, near in ({"archs": ["bmoj"]}, "'bmojo'"), ({"tasks": ["mqra"]}, "'mqar'"), ({"seeds": 0}, ">= 1"):
        with pytest.raises(ValueError, match=near):
            read(text, **asked)


SAME = {"transformer": {"mixer": "attention"}, "sliding_window": {"mixer": "attention", "window": 16}}


@pytest.mark.parametrize("name", [name for name in PRESETS if name in {*MIXERS, *SAME}])
def test_a_mixer_is_sized_as_its_preset(name):
    dials = {"vocab_size": 64, "d_model": 96, "n_layers": 3, "state_size": 8, "capacity": 12}
    layer = SAME.get(name, {"mixer": name})
    assert preset("mine", layers=[layer], **dials) == preset(name, **dials)


def test_layers_are_repeated_and_take_settings(read):
    layers = [{"mixer": "mamba2"}, {"mixer": "bmojo", "capacity": 7, "fading": {"mixer": "kda", "key_dim": 5}}]
    config = preset("mine", vocab_size=64, n_layers=5, layers=layers)
    assert [type(layer).name for layer in config.layers] == ["mamba2", "bmojo", "mamba2", "bmojo", "mamba2"]
    inner = config.layers[1]
    assert (inner.capacity, inner.window, inner.fading.key_dim, inner.fading.value_dim) == (7, 16, 5, 32)
    (heads,) = set(preset("mine", vocab_size=64, layers=[{"mixer": "gated_deltanet", "n_heads": 8}]).layers)
    assert (heads.n_heads, heads.key_dim, heads.value_dim) == (8, 16, 16)  # as wide as with four heads


def test_parameters_are_those_of_the_transformer(read):
    run = read(TINY.replace("d_model = 16", "d_model = 64")).runs["recall"]
    sizes = [sum(p.numel() for p in build_model(a, run, 64, 0).parameters()) for a in (*run.archs, "transformer")]
    assert max(sizes) <= 1.01 * min(sizes)


def test_every_task_can_be_described():
    for name in names():
        assert "lengths" in options(name)
        jsontext.write(options(name))


def test_the_example_of_the_documents_is_one(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    (tmp_path / "example.toml").write_text(re.search(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)[1])
    found = experiment(tmp_path / "example.toml")
    assert len(found.archs) == 4 and list(found.runs) == ["mqar", "niah"] and found.seeds == 3


def archs(text: str) -> str:
    return f'archs = [{text}]\ntasks = ["mqar"]'


BASE = 'archs = ["mamba2"]\ntasks = ["mqar"]\n'


@pytest.mark.parametrize(
    "text, says",
    [
        ("archs = [", "expected TOML in UTF-8"),
        ("a = 1\na = 2", "expected TOML in UTF-8"),
        ("x = " + "[" * 5000 + "]" * 5000, "nested less deeply"),
        (BASE + "sedes = 3", "unknown key 'sedes': did you mean 'seeds'?"),
        (BASE + "seeds = 0", "seeds: expected a whole number from 1 to 1000, got 0"),
        (BASE + 'seeds = "3"', "seeds: expected a whole number, got '3'"),
        (BASE + "seeds = true", "seeds: expected a whole number, got True"),
        (BASE + "seeds = 99999999999999999999", "seeds: expected a number of 64 bits"),
        (BASE + "seeds = 2026-01-01", "seeds: expected text, true, false or a finite number, got 2026-01-01"),
        ("", "archs: expected a list of one or more, got nothing"),
        ('archs = ["mamba2"]', "tasks: expected a list of one or more, got nothing"),
        ('archs = "mamba2"\ntasks = ["mqar"]', "archs: expected a list of one or more, got 'mamba2'"),
        (archs('"mamab2"'), "archs: unknown architecture 'mamab2': did you mean 'mamba2'?"),
        (archs('"mamba2", "mamba2"'), "archs: expected each name once, got 'mamba2' 2 times"),
        (archs("3"), "archs: expected names of architectures, or tables with a name, got 3"),
        (archs('{ preset = "bmojo" }'), "archs: name: expected letters, digits and _, 60 at most, got None"),
        (archs('{ name = "a/b", preset = "bmojo" }'), "archs: name: expected letters, digits and _, 60 at most"),
        (archs('{ name = "Bmojo", preset = "bmojo" }'), "archs: name: expected a name that no architecture has yet"),
        (archs('{ name = "a", preset = "bmoj" }'), "archs: a: unknown architecture 'bmoj': did you mean 'bmojo'?"),
        (archs('{ name = "a", preset = ["bmojo"] }'), "archs: a: preset: expected text, got ['bmojo']"),
        (archs('{ name = "a" }'), "archs: a: expected one of preset and layers, got neither"),
        (archs('{ name = "a", preset = "bmojo", layers = [] }'), "got both"),
        (
            archs('{ name = "a", preset = "bmojo", capcity = 4 }'),
            "archs: a: unknown key 'capcity': did you mean 'capacity'?",
        ),
        (
            archs('{ name = "a", preset = "bmojo", capacity = "4" }'),
            "archs: a: capacity: expected a whole number, got '4'",
        ),
        (archs('{ name = "a", preset = "bmojo", capacity = -1 }'), "a: bmojo: expected capacity >= 0"),
        (
            archs('{ name = "a", preset = "bmojo", score = "lerned" }'),
            "a: unknown score 'lerned': did you mean 'learned'?",
        ),
        (
            archs('{ name = "a", layers = [] }'),
            'layers: expected a list of tables such as { mixer = "mamba2" }, got []',
        ),
        (archs('{ name = "a", layers = [{}, {}] }'), "a: unknown mixer 'None'"),
        (archs('{ name = "a", layers = [{ mixer = "mamba2" }, { mixer = "kad" }] }'), "a: unknown mixer 'kad'"),
        (
            archs('{ name = "a", layers = [{ mixer = "kda", key = 3 }] }'),
            "a: unknown setting of kda 'key': did you mean",
        ),
        (archs('{ name = "a", layers = [{ mixer = "kda", key_dim = "3" }] }'), "a: kda: expected key_dim to be"),
        (archs('{ name = "a", layers = [{ mixer = "attention", n_heads = 5 }] }'), "a: "),
        (archs('{ name = "a", layers = [{ mixer = "bmojo", fading = "kad" }] }'), "a: unknown fading memory 'kad'"),
        (archs('{ name = "a", layers = [{ mixer = "kda" }, { mixer = "kda" }, { mixer = "kda" }] }'), "1 to 2 mixers"),
        (BASE + "dials = 3", "dials: expected a table, got 3"),
        (BASE + "[dials]\nd_modle = 3", "dials: unknown dial 'd_modle': did you mean 'd_model'?"),
        (BASE + "[dials]\nd_model = 3.5", "dials: d_model: expected a whole number, got 3.5"),
        (BASE + "[dials]\ntied = 1", "dials: tied: expected true or false, got 1"),
        (BASE + "[dials]\nd_model = 60", "mamba2: expected n_heads >= 1 and d_model a multiple of 2 x n_heads"),
        (BASE + "[dials]\nexpand = nan", "dials.expand: expected text, true, false or a finite number, got nan"),
        ('archs = ["mamba2"]\ntasks = ["mqra"]', "unknown task in tasks 'mqra': did you mean 'mqar'?"),
        ('archs = ["mamba2"]\ntasks = [["mqra"]]', "tasks: expected text, got ['mqra']"),
        (
            'archs = ["mamba2"]\ntasks = ["a b"]\n[options."a b"]\ntask = "mqar"',
            "tasks: expected letters, digits and _",
        ),
        (BASE + "[options.mqra]\nkeys = 3", "unknown table in options 'mqra': did you mean 'mqar'?"),
        (BASE + "[options]\nmqar = 3", "options.mqar: expected a table, got 3"),
        (
            BASE + "[options.mqar]\nfillr = 3",
            "options.mqar: unknown option of task mqar 'fillr': did you mean 'filler'?",
        ),
        (BASE + '[options.mqar]\nfiller = "zeros"', "options.mqar: filler: expected one of random, zero; got 'zeros'"),
        (BASE + "[options.mqar]\nlengths = [7]", "options.mqar: lengths: expected an even number"),
        (BASE + '[options.mqar]\ntask = "needles"', "options.mqar: tasks: expected a name that no task has yet"),
        (BASE + "[options.mqar]\ncases = 3", "options.mqar: cases: expected (T, pairs, weight)"),
        (BASE + '[options.mqar]\ntask = "needle"', "options.mqar: unknown task 'needle': did you mean 'needles'?"),
        (BASE + "[options.mqar]\ntask = 3", "options.mqar: task: expected text, got 3"),
        (BASE + "[train]\nstpes = 3", "train: unknown setting 'stpes': did you mean 'steps'?"),
        (BASE + "[train]\nlr = 3", "train: unknown setting 'lr': did you mean 'lrs'?"),
        (BASE + "[train]\nsteps = 1e3", "train: steps: expected a whole number, got 1000.0"),
        (BASE + "[train]\nsteps = 0", "train: expected steps >= 1"),
        (BASE + "[train]\nsamples = 0", "train: expected samples and least_samples >= 1, got 0 and 16"),
        (BASE + "[train]\nlrs = 1e-3", "train: lrs: expected a list of numbers, got 0.001"),
        (BASE + '[train]\nlrs = ["1e-3"]', "train: lrs: expected a number, got '1e-3'"),
        (BASE + "[train]\nlrs = []", "train: lrs: expected a list of numbers, got []"),
        (BASE + "[train]\nlrs = [1e-3, 0]", "train: expected steps >= 1, batch_size >= 1 and lr > 0"),
        (
            BASE + "[train]\nlrs = [1e-3, 1.0000001e-3]",
            "train: lrs: expected rates that differ in their first six digits",
        ),
        (BASE + "[train]\nbetas = [0.9]", "train: betas: expected a list of 2 numbers, got [0.9]"),
        (BASE + "[train]\nbetas = [0.9, 1]", "train: expected 0 <= warmup <= 1"),
        (BASE + "[train]\nwarmup = 2", "train: expected 0 <= warmup <= 1"),
        (BASE + "[train]\nfading_dropout = 2", "train: expected 0 <= fading_dropout <= 1, got 2"),
    ],
)
def test_a_mistake_is_one_line(text, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(text)
    assert main(["compare", "x.toml", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("solomonic: x.toml: ") and says in said and said.count("\n") == 1, said
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]


def test_mistakes_in_the_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for i in range(9):
        (tmp_path / "docs" / f"{i}.txt").write_text("".join(chr(97 + (i * j * j) % 26) for j in range(2100)))
    (tmp_path / "x.toml").write_text('archs = ["mamba2"]\ntasks = ["text"]\n[options.text]\ndata = "docs"\nlength = 16')
    for words, says in (
        ("x.toml --suite quick", "--suite: expected none beside x.toml, got 'quick'"),
        ("docs", "docs: expected a TOML file that describes a comparison; a folder"),
        ("nowhere.toml", "nowhere.toml: expected a TOML file that describes a comparison; it is not there"),
        ("x.toml --out docs/run", "expected a path outside of docs"),
        ("--out x.toml x.toml", "--out: expected another file than x.toml, which is EXPERIMENT"),
        ("x.toml --data nowhere", "nowhere"),
        ("x.toml --arch bmojo", "unknown architecture 'bmojo'"),
    ):
        assert main(["compare", *words.split(), "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said
        assert {path.name for path in tmp_path.iterdir()} == {"docs", "x.toml"}
