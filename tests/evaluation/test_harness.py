"""lm-evaluation-harness on local tasks: its numbers are those of a direct computation, and need no network."""

import os

os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}

import json
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch

from solomonic.checkpoints.folder import save
from solomonic.cli import main
from solomonic.data.tokenizer import Tokenizer

from .models import TEXT, Copier, bpe, small

pytest.importorskip("lm_eval")
from solomonic.evaluation import harness
from solomonic.evaluation.harness import Solomonic, evaluate, known

BYTES = Tokenizer.for_bytes()
CHOICES = [
    {"question": "The sky is", "choices": ["blue", "green as grass", "a"], "answer": 0},
    {"question": "Two and two make", "choices": ["four", "five hundred", "f"], "answer": 1},
    {"question": "The sky is", "choices": ["grey", "low", "over the sea"], "answer": 2},
    {"question": "日本の夜は", "choices": ["静か", "長い", "短い"], "answer": 0},
]
DOCUMENTS = [{"text": TEXT[:90]}, {"text": "a"}, {"text": TEXT[30:300]}]
COPIES = [{"question": "abcdefg, abcdefg. abc", "answer": "defg"}, {"question": "one two. one", "answer": " two"}]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}, cache_dir: {folder}/cache}}
test_split: test
metric_list: [{metrics}]
metadata: {{version: 1}}
{rest}
"""
TASKS = {
    "local_choice": (
        CHOICES,
        ["acc", "acc_norm"],
        "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: '{{answer}}'",
    ),
    "local_text": (
        DOCUMENTS,
        ["bits_per_byte", "byte_perplexity"],
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'",
    ),
    "local_copy": (
        COPIES,
        ["exact_match"],
        "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {until: ['.', ','], max_gen_toks: 20, do_sample: false, temperature: 1}",
    ),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with the tasks above."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, (documents, metrics, rest) in TASKS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
        listed = ", ".join(f"{{metric: {metric}}}" for metric in metrics)
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder, metrics=listed, rest=rest))
    return folder


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def direct(model, tokens, first):
    """log p of tokens[first:], from one reading of everything, and the greedy choices there."""
    with torch.no_grad():
        log_p = model(torch.tensor([tokens[:-1]]))[0][0].double().log_softmax(-1)[first - 1 :]
    return log_p.gather(1, torch.tensor(tokens[first:])[:, None]).sum().item(), log_p.argmax(-1).tolist()


def ids(tokenizer, text):
    return tokenizer.encode(text).tolist()


def by_hand(model, tokenizer, context, most, until=()):
    """Greedy text, everything read again for each token."""
    tokens, said = ids(tokenizer, context), []
    while len(said) < most:
        with torch.no_grad():
            said.append(int(model(torch.tensor([tokens + said]))[0][0, -1].argmax()))
        text = tokenizer.decode(said)
        if said[-1] == tokenizer.end or any(stop in text for stop in until):
            break
    ends = [text.index(stop) for stop in until if stop in text]
    return text[: min(ends)] if ends else text


@pytest.mark.parametrize("arch", ["bmojo", "transformer", "mamba2"])
@pytest.mark.parametrize("tokenizer", [BYTES, bpe()], ids=["bytes", "bpe"])
def test_log_likelihoods_are_those_of_a_direct_computation(arch, tokenizer):
    model = small(arch, tokenizer.vocab_size)
    pairs = [("The sky is", " blue"), ("The sky is", " low"), ("", "Übel"), ("Wer? ", "da"), ("日", "本"), ("  ", "x")]
    found = Solomonic((model, tokenizer), chunk=3).loglikelihood(requests(*pairs), disable_tqdm=True)
    for (context, after), (log_p, greedy) in zip(pairs, found):
        first = ids(tokenizer, context.rstrip())
        said = ids(tokenizer, context + after)[len(first) :]
        first = first or [tokenizer.end]
        tokens, before = first + said, len(first)
        expected, choices = direct(model, tokens, before)
        assert log_p == pytest.approx(expected, abs=1e-4) and greedy == (choices == tokens[before:])


@pytest.mark.parametrize("arch", ["bmojo", "transformer", "mamba2"])
def test_a_document_is_read_without_windows(arch):
    model = small(arch)
    texts = [document["text"] for document in DOCUMENTS] + [TEXT]
    found = Solomonic((model, BYTES), chunk=16).loglikelihood_rolling(requests(*((t,) for t in texts)), True)
    for text, log_p in zip(texts, found):
        assert log_p == pytest.approx(direct(model, [BYTES.end, *ids(BYTES, text)], 1)[0], rel=1e-5)


@pytest.mark.parametrize("arch", ["bmojo", "transformer", "mamba2"])
def test_generation_is_greedy_and_stops(arch):
    models = (small(arch, seed=seed) for seed in range(30))  # untrained ones: some end the text at once
    model = next(model for model in models if len(by_hand(model, BYTES, "The sky", 12)) >= 8)
    wanted = [
        ("The sky", {"until": [], "max_gen_toks": 12}),
        ("A", {"until": "\n\n", "max_new_tokens": 3, "temperature": 0.0}),
        ("Two and two make", {"max_gen_toks": 9, "do_sample": False, "temperature": 0.7}),
        ("x", {"max_gen_toks": 0}),
    ]
    found = Solomonic((model, BYTES), batch_size=3, chunk=5).generate_until(requests(*wanted), True)
    expected = [by_hand(model, BYTES, context, most) for (context, _), most in zip(wanted[:3], (12, 3, 9))]
    assert found == [*expected, ""]
    stop = expected[0][4:6]
    for until in ([stop], stop, [stop, expected[0][5:8]]):
        settings = {"until": until, "max_gen_toks": 12}
        [text] = Solomonic((model, BYTES)).generate_until(requests(("The sky", settings)), True)
        assert text == expected[0][: expected[0].index(stop)]


def test_generation_ends_with_the_document():
    lm = Solomonic((Copier(257), BYTES))
    lm.beginning = [*ids(BYTES, "ab!"), BYTES.end]
    assert lm.generate_until(requests(("cab", {"max_gen_toks": 30})), True) == ["!"]


def test_results_do_not_depend_on_the_batch():
    model, pairs = small(), [(c["question"], " " + choice) for c in CHOICES for choice in c["choices"]]
    wanted = [(context, {"max_gen_toks": n, "until": "e"}) for (context, _), n in zip(pairs[::3], (9, 2, 14, 5))]
    scores, texts = [], []
    for batch_size, chunk in ((1, 2048), (5, 4), ("auto", 7), ("64", 1)):
        lm = Solomonic((model, BYTES), batch_size, chunk=chunk)
        scores.append([log_p for log_p, _ in lm.loglikelihood(requests(*pairs), disable_tqdm=True)])
        texts.append(lm.generate_until(requests(*wanted), True))
    np.testing.assert_allclose(scores[1:], [scores[0]] * 3, atol=1e-4)
    assert texts[1:] == [texts[0]] * 3


def test_what_a_tokenizer_puts_before_a_text_is_put_there():
    inner = tokenizers.Tokenizer.from_str(bpe().to_json())
    inner.add_special_tokens(["<s>"])
    first = inner.token_to_id("<s>")
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    tokenizer = Tokenizer(inner)
    model = small(vocab_size=tokenizer.vocab_size)
    lm = Solomonic((model, tokenizer))
    found = lm.loglikelihood(requests(("The sky", " is"), ("", "The sky")), disable_tqdm=True)
    sky, more = ids(tokenizer, "The sky"), ids(tokenizer, "The sky is")
    assert found[0][0] == pytest.approx(direct(model, [first, *more], 1 + len(sky))[0], abs=1e-4)
    assert found[1][0] == pytest.approx(direct(model, [first, *sky], 1)[0], abs=1e-4)
    [rolled] = lm.loglikelihood_rolling(requests(("The sky",)), True)
    assert rolled == pytest.approx(found[1][0], abs=1e-4)


def test_sampling_is_refused():
    lm = Solomonic((small(), BYTES))
    for settings in ({"do_sample": True}, {"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}):
        with pytest.raises(ValueError, match="decoding here is greedy"):
            lm.generate_until(requests(("x", settings)), True)


def test_a_bad_setting_of_the_model():
    with pytest.raises(ValueError, match="expected batch_size >= 1"):
        Solomonic((small(), BYTES), batch_size=0)
    with pytest.raises(ValueError, match="unknown dtype 'float8'"):
        Solomonic("nowhere", dtype="float8")
    with pytest.raises(ValueError, match="nowhere: expected a folder"):
        Solomonic("nowhere")


@pytest.fixture
def no_defaults(monkeypatch):
    """Tasks are those of the folder alone: to read the harness's own takes seconds."""
    monkeypatch.setattr(harness, "TaskManager", partial(harness.TaskManager, include_defaults=False))


def test_local_tasks(tasks, no_defaults):
    model = small()
    manager, names = known(list(TASKS), str(tasks))
    results = evaluate(model, BYTES, (manager, names))["results"]

    right, normed = [], []
    for document in CHOICES:
        question = document["question"]
        choices = [" " + choice for choice in document["choices"]]
        before = len(ids(BYTES, question))
        log_p = np.array([direct(model, ids(BYTES, question + choice), before)[0] for choice in choices])
        right.append(log_p.argmax() == document["answer"])
        sizes = np.array([len(choice) for choice in document["choices"]])
        normed.append((log_p / sizes).argmax() == document["answer"])
    assert results["local_choice"]["acc,none"] == np.mean(right)
    assert results["local_choice"]["acc_norm,none"] == np.mean(normed)

    texts = [document["text"] for document in DOCUMENTS]
    log_p = sum(direct(model, [BYTES.end, *ids(BYTES, text)], 1)[0] for text in texts)
    bits = -log_p / sum(len(text.encode()) for text in texts) / np.log(2)
    assert results["local_text"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)

    assert results["local_copy"]["exact_match,none"] == 0
    copied = evaluate(Copier(257), BYTES, (manager, ["local_copy"]), batch_size=1)["results"]["local_copy"]
    assert copied["exact_match,none"] == 1


def test_from_the_command_line(tasks, tmp_path, capsys):
    save(tmp_path / "model", small(), BYTES)
    words = ["eval", str(tmp_path / "model"), "--include", str(tasks), "--harness", "local_copy", "local_cho*"]
    assert main([*words, "--limit", "2", "--json", str(tmp_path / "result.json")]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["harness"]["results"].keys() == {"local_copy", "local_choice"} and "text" not in found
    assert found["harness"]["n-samples"]["local_choice"]["effective"] == 2
    out = capsys.readouterr().out
    assert "|local_copy" in out and "|local_choice" in out and "acc_norm" in out


def test_a_task_nobody_knows_is_one_line(tasks, tmp_path, capsys, no_defaults):
    save(tmp_path / "model", small(), BYTES)
    words = ["eval", str(tmp_path / "model"), "--harness", "local_chioce", "--include"]
    assert main([*words, str(tasks)]) == 2
    err = capsys.readouterr().err
    assert "got 'local_chioce'; did you mean 'local_choice'?" in err and err.count("\n") == 1
    assert main([*words, str(tmp_path / "nowhere")]) == 2
    assert "nowhere: expected a folder of tasks" in capsys.readouterr().err


def test_a_template_that_cannot_be_rendered(tasks, tmp_path, no_defaults):
    (tmp_path / "broken.yaml").write_text((tasks / "local_text.yaml").read_text().replace("{{text}}", "{{text"))
    with pytest.raises(ValueError, match="a template of local_text cannot be rendered"):
        evaluate(small(), BYTES, known(["local_text"], str(tmp_path)))


@pytest.mark.parametrize("kind", ["solomonic", "hf"])
def test_the_harness_own_command_line(tasks, tmp_path, kind):
    """By the module that teaches the harness our name: it knows its own as well, of which `hf` reads our folders."""
    save(tmp_path / "model", small(), BYTES)
    chunk = ",chunk=64" if kind == "solomonic" else ""
    words = ["--model", kind, "--model_args", f"pretrained={tmp_path / 'model'},dtype=float32{chunk}"]
    words += ["--tasks", "local_choice", "--include_path", str(tasks), "--batch_size", "4"]
    words += ["--output_path", str(tmp_path / "results"), "--log_samples"]
    command = [sys.executable, "-m", "solomonic.evaluation.harness", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "|local_choice|" in done.stdout and "acc_norm" in done.stdout
    [samples] = tmp_path.rglob("samples*.jsonl")
    for line in map(json.loads, samples.read_text().splitlines()):
        document = line["doc"]
        before = len(ids(BYTES, document["question"]))
        for choice, [log_p, _] in zip(document["choices"], line["filtered_resps"]):
            tokens = ids(BYTES, document["question"] + " " + choice)
            assert float(log_p) == pytest.approx(direct(small(), tokens, before)[0], abs=1e-4)


def test_the_harness_knows_the_name():
    from lm_eval.api.registry import get_model

    assert get_model("solomonic") is Solomonic
    assert get_model("hf").__name__ == "HFLM"


def spelled(text: str, tokenizer: Tokenizer) -> list[int]:
    """Special tokens in the text are themselves."""
    names, parts = tokenizer.specials, re.split("(<[^>]+>)", text)
    return [token for part in parts for token in ([names[part]] if part in names else ids(tokenizer, part))]


def test_stops_that_are_special_tokens():
    """They give no text; alone, with text around them, and those that the model itself ends at."""
    inner = tokenizers.Tokenizer.from_str(bpe().to_json())
    inner.add_special_tokens(["<turn>", "<stop>"])
    tokenizer = Tokenizer(inner, [inner.token_to_id("<|end|>"), inner.token_to_id("<stop>")])
    copied = "ab!\n<turn>\nab?<stop>ab."
    lm = Solomonic((Copier(tokenizer.vocab_size), tokenizer))
    lm.beginning = spelled(copied, tokenizer)
    for until, expected in (
        ([], "!\n\nab?"),
        (["<turn>"], "!\n"),
        (["\n<turn>", "?"], "!"),
        (["<turn>\nab", "never"], "!\n"),
        (["\n<stop>"], "!\n\nab?"),
        (["<|end|>"], "!\n\nab?"),
        (["\n"], "!"),
    ):
        [text] = lm.generate_until(requests(("ab", {"until": until, "max_gen_toks": 30})), True)
        assert text == expected, until
