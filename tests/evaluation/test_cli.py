"""`solomonic eval` as a person meets it."""

import json

import pytest

from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer
from solomonic.evaluation import retrieval

from .models import TEXT, bpe, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bmojo"
    save(folder, small(), Tokenizer.for_bytes())
    return folder


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def stories(tmp_path):
    folder = tmp_path / "babi"
    folder.mkdir()
    question = "{} Where is John?\t{}\t1\n"
    for name, facts in (("qa1_one", 1), ("qa2_two", 9)):
        story = "".join(f"{i} John went to the kitchen.\n" for i in range(1, facts + 1))
        rows = [story + question.format(facts + 1, answer) for answer in ("kitchen", "garden", "office")]
        (folder / f"{name}_test.txt").write_text("".join(rows))
    return folder


def evaluate(capsys, *words):
    """(exit code, what was printed, the last line of stderr)"""
    code = main(["eval", *map(str, words)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err.splitlines()[-1] if err else ""


def test_bits_per_byte_of_a_text(folder, text, tmp_path, capsys):
    result = tmp_path / "new" / "result.json"
    words = [folder, "--data", text, "--lengths", 32, 128, "--samples", 3, "--positions", "--json", result]
    code, out, _ = evaluate(capsys, *words)
    found = json.loads(result.read_text())
    assert code == 0 and found["complete"] and [e["length"] for e in found["text"]] == [32, 128]
    rows = [line.split() for line in out.splitlines()]
    for entry in found["text"]:
        assert [str(entry["length"]), f"{entry['bits_per_byte']:.3f}", "3"] in rows
        assert entry["positions"][-1]["last"] == entry["length"]
        for where in entry["positions"]:
            assert f"{where['bits_per_byte']:.3f}" in out
    assert "1-16" in out and "65-128" in out and f"{len(TEXT.encode()):,} bytes" in out


def test_nothing_chosen_is_the_librarys_text_at_lengths_of_training(folder, tmp_path, capsys):
    own = tmp_path / "trained"
    save(own, small(), Tokenizer.for_bytes())
    (own / "training.json").write_text('{"length": 16, "steps": 3}')
    code, out, _ = evaluate(capsys, own, "--samples", 2)
    assert code == 0 and "trained at 16 tokens" in out and "the Python library's sources" in out
    lengths = [line.split()[0] for line in out.splitlines() if line[:1].isdigit()]
    assert lengths == ["16", "64", "512"]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"length": "long"}', '{"length": 0}'])
def test_a_folder_that_does_not_say_how_it_was_trained(text, tmp_path, capsys, content):
    own = tmp_path / "trained"
    save(own, small(), Tokenizer.for_bytes())
    if content:
        (own / "training.json").write_text(content)
    code, out, _ = evaluate(capsys, own, "--samples", 2, "--data", text)
    lengths = [line.split()[0] for line in out.splitlines() if line[:1].isdigit()]
    assert code == 0 and lengths == ["256", "1,024"] and "the lengths are a guess" in out
    assert f"the longest document has {len(TEXT.encode()):,} tokens, so not at 8192" in out


def test_retrieval_is_a_table_of_lengths_and_depths(folder, text, tmp_path, capsys):
    result = tmp_path / "result.json"
    words = ["--lengths", 400, 200, "--depths", 0, 0.5, "--samples", 4, "--data", text, "--json", result]
    code, out, _ = evaluate(capsys, folder, "--passkey", "--needle", *words)
    found = json.loads(result.read_text())
    assert code == 0 and found.keys() >= {"passkey", "needle"} and "text" not in found
    for kind in ("passkey", "needle"):
        cells = found[kind]
        assert [(c["length"], c["depth"]) for c in cells] == [(200, 0), (200, 0.5), (400, 0), (400, 0.5)]
        table = out[out.index(f"{kind}, likeliest of ten") :].splitlines()
        assert table[1].split() == ["length", "0", "0.5"]
        assert table[2].split() == ["200", f"{cells[0]['chosen']:.3f}", f"{cells[1]['chosen']:.3f}"]
    again = tmp_path / "again.json"
    evaluate(capsys, folder, "--passkey", "--needle", *words[:-1], again)
    assert json.loads(again.read_text()) == found


def test_the_seed_is_that_of_the_prompts(folder, tmp_path, capsys):
    found = []
    for seed in (0, 0, 1):
        result = tmp_path / "result.json"
        evaluate(capsys, folder, "--passkey", "--lengths", 200, "--samples", 10, "--seed", seed, "--json", result)
        found.append(json.loads(result.read_text())["passkey"])
    assert found[0] == found[1] != found[2]


def test_tasks(folder, capsys):
    code, out, _ = evaluate(
        capsys, folder, "--task", "mqar:vocab_size=256", "selective_copying", "--lengths", 64, "--samples", 4
    )
    assert code == 0 and "mqar\nlength  accuracy  rows\n64" in out and "selective_copying\n" in out


def test_a_suite_is_a_table_of_tasks_and_lengths(folder, text, tmp_path, capsys):
    result = tmp_path / "result.json"
    words = ["--suite", "ruler:vt,niah_single_2,cwe", "--data", text, "--lengths", 1100, 2200, "--samples", 2]
    code, out, _ = evaluate(capsys, folder, *words, "--json", result)
    found = json.loads(result.read_text())
    assert code == 0 and found["complete"] and "text" not in found and "not at 1,100 tokens" in out and "cwe (" in out
    cells = [(e["task"], e["length"]) for e in found["ruler"]]
    assert cells == [
        (name, n) for n in (1100, 2200) for name in ("niah_single_2", "vt", "cwe") if (name, n) != ("cwe", 1100)
    ]
    assert all(0 <= e["value"] <= 1 and e["samples"] == 2 and e["tokens"] < e["length"] for e in found["ruler"])
    table = out[out.index("ruler, share of the answers") :].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["task", "niah_single_2", "vt", "cwe", "mean"]
    assert table[4].split()[1:] == ["-", "0.000"]


def test_babilong_is_a_table_of_tasks_and_lengths(folder, text, stories, tmp_path, capsys):
    result = tmp_path / "result.json"
    words = ["--suite", "babilong", "--babi", stories, "--data", text, "--lengths", 520, 1300, "--samples", 2]
    code, out, _ = evaluate(capsys, folder, *words, "--json", result)
    found = json.loads(result.read_text())
    assert code == 0 and found["complete"] and "text" not in found
    assert "babilong: not at 520 tokens, for asking takes more: qa2 (" in out
    assert [(e["task"], e["length"]) for e in found["babilong"]] == [("qa1", 520), ("qa1", 1300), ("qa2", 1300)]
    assert all(e["value"] in (0, 0.5, 1) and e["tokens"] < e["length"] for e in found["babilong"])
    table = out[out.index("babilong, share of the questions") :].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["task", "qa1", "qa2", "mean"]


def test_a_tokenizer_of_several_bytes(tmp_path, text, capsys):
    tokenizer = bpe()
    save(tmp_path / "bpe", small(vocab_size=tokenizer.vocab_size), tokenizer)
    words = ["--data", text, "--text", "--needle", "--lengths", "200", "--samples", "3", "--dtype", "bfloat16"]
    code, out, _ = evaluate(capsys, tmp_path / "bpe", *words)
    assert code == 0 and "needle, said exactly" in out and "bits per byte" in out


def test_interruption_shows_what_is_done(folder, tmp_path, capsys, monkeypatch):
    whole, calls = retrieval.continuations, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(retrieval, "continuations", interrupted)
    result = tmp_path / "result.json"
    words = ["--lengths", "200", "300", "--depths", "0", "1", "--samples", "2", "--json", result]
    code, out, last = evaluate(capsys, folder, "--passkey", *words)
    found = json.loads(result.read_text())
    assert code == 130 and last == "solomonic: interrupted"
    assert not found["complete"] and len(found["passkey"]) == 2
    assert [line.split()[0] for line in out.splitlines() if line[:1].isdigit()] == ["200", "200"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["--lengths", "0"], "--lengths: expected whole numbers >= 1, got 0"),
        (["--samples", "0"], "--samples: expected whole numbers >= 1, got 0"),
        (["--passkey", "--depths", "1.5"], "--depths: expected numbers in [0, 1], got 1.5"),
        (["--passkey", "--depths", "nan"], "--depths: expected numbers in [0, 1], got nan"),
        (["--depths", "0.5"], "--depths is for --passkey and --needle"),
        (["--limit", "3"], "--include and --limit are for --harness"),
        (["--dtype", "float8"], "unknown dtype 'float8'"),
        (["--suite", "rulers"], "did you mean 'ruler'?"),
        (["--suite", "ruler:vtt"], "unknown task of ruler 'vtt': did you mean 'vt'?"),
        (
            ["--suite", "ruler", "--lengths", "100"],
            "--suite: expected lengths that a prompt and its answer fit, got 100",
        ),
        (["--suite", "ruler", "--squad", "lines.jsonl"], "lines.jsonl: expected SQuAD's JSON"),
        (["--suite", "ruler", "--hotpot", "no.json"], "no.json: expected a JSON file; it is not there"),
        (["--hotpot", "no.json"], "--squad and --hotpot are for --suite ruler"),
        (["--suite", "ruler", "--squad", "nothing"], "nothing: expected a JSON file; a folder"),
        (["--suite", "ruler", "--hotpot", "binary"], "binary: expected a JSON list, got what is no JSON"),
        (["--suite", "ruler", "--hotpot", "lines.jsonl"], "lines.jsonl: expected a JSON list, got dict"),
        (["--suite", "ruler:vt,qa_1", "--hotpot", "no.json"], "--hotpot is for qa_2 of --suite ruler"),
        (["--suite", "ruler:qa_2", "--squad", "no.json"], "--squad is for qa_1 of --suite ruler"),
        (["--suite", "babilong", "--squad", "no.json"], "--squad and --hotpot are for --suite ruler"),
        (["--suite", "babilong"], "--suite babilong: expected a folder of bAbI's tasks, got none; pass it with --babi"),
        (["--suite", "ruler", "--babi", "nothing"], "--babi is for --suite babilong, which is not asked for"),
        (["--suite", "babilong", "--babi", "no"], "no: expected a folder of bAbI's tasks, qa1_..._test.txt and so on"),
        (["--suite", "babilong", "--babi", "short.txt"], "short.txt: expected a folder of bAbI's tasks"),
        (["--suite", "babilong", "--babi", "nothing"], "nothing: expected bAbI's tasks"),
        (["--suite", "babilong:qa3", "--babi", "babi"], "unknown task of bAbI in babi 'qa3': did you mean 'qa2'?"),
        (
            ["--suite", "babilong", "--babi", "babi", "--lengths", "100"],
            "--suite: expected lengths that a prompt and its answer fit, got 100; babilong: not at 100 tokens",
        ),
        (["--device", "cudo"], "unknown device 'cudo'"),
        (["--task", "mqra"], "did you mean 'mqar'?"),
        (["--task", "mqar"], "expected a model of 8192 tokens or more"),
        (["--task", "mqar:vocab_size=256", "--lengths", "63"], "expected an even number"),
        (["--passkey", "--lengths", "30"], "--passkey: expected lengths of"),
        (["--data", "no/such/path"], "no/such/path: expected a file or folder of text; it is not there"),
        (["--data", "empty.txt"], "empty.txt: expected text, got a file that is empty"),
        (["--data", "binary"], "binary: expected text, got a file that is binary"),
        (["--data", "nothing"], "nothing: expected a document of 257 bytes or more"),
        (["--data", "short.txt"], "short.txt: expected a document of 257 bytes or more"),
        (["--data", "short.txt", "--lengths", "5", "9"], "9 take, the longest has 5"),
        (["--data", "broken.jsonl"], "broken.jsonl, line 1: expected a JSON object"),
        (["--data", "broken.parquet"], "broken.parquet: expected a parquet file"),
        (["--data", "lines.jsonl", "--field", "body"], "expected an object with the text under 'body', got text"),
        (["--json", "nothing"], "--json: nothing: expected a file to write to, got a folder"),
    ],
)
def test_a_mistake_is_one_line(folder, stories, tmp_path, capsys, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "broken.jsonl").write_text('{"text": ')
    (tmp_path / "lines.jsonl").write_text('{"text": "x"}')
    (tmp_path / "broken.parquet").write_text("PAR1")
    before = sorted(tmp_path.iterdir())
    assert main(["eval", str(folder), *words]) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and not out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "damage, says",
    [
        ("no folder", "expected a folder with config.json"),
        ("no config", "config.json: expected a JSON file; it is not there"),
        ("foreign config", "expected model_type to be one of"),
        ("wrong config", "expected"),
        ("truncated weights", "expected a safetensors file, got one that cannot be read"),
        ("pickle", "a pickle, which can run code"),
        ("no tokenizer", "tokenizer.json: expected a tokenizer.json of the tokenizers library; it is not there"),
        ("foreign tokenizer", "expected a tokenizer of at most 257 tokens"),
    ],
)
def test_a_model_that_is_not_whole_is_one_line(tmp_path, capsys, damage, says):
    own = tmp_path / "model"
    save(own, small(), Tokenizer.for_bytes())
    config, weights, tokens = own / "config.json", own / "model.safetensors", own / "tokenizer.json"
    if damage == "no folder":
        own = tmp_path / "elsewhere"
    elif damage == "no config":
        config.unlink()
    elif damage == "foreign config":
        config.write_text('{"model_type": "bert"}')
    elif damage == "wrong config":
        config.write_text(config.read_text().replace('"d_model": 32', '"d_model": 48'))
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "pickle":
        weights.rename(own / "pytorch_model.bin")
    elif damage == "no tokenizer":
        tokens.unlink()
    elif damage == "foreign tokenizer":
        tokens.write_text(bpe().to_json())
    assert main(["eval", str(own)]) == 2
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and not out
