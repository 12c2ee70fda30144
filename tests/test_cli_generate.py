"""`solomonic generate` and `chat` as a person meets them."""

import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.checkpoints.folder import CHAT, load, save
from solomonic.cli import main
from solomonic.cli._turns import Turns
from solomonic.data.tokenizer import Tokenizer
from solomonic.inference.generation import generate, stream
from solomonic.inference.sampling import Sampling
from solomonic.inference.sessions import Session, SessionFile

BYTES = Tokenizer.for_bytes()


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    model = LanguageModel(preset("bmojo", vocab_size=257, d_model=32, n_layers=2))
    with torch.no_grad():
        model.head.weight[256] = 0  # the likeliest of the others is above: a greedy text has no end
    save(tmp_path / "m", model, BYTES)
    return tmp_path / "m"


@pytest.fixture
def piped(monkeypatch):
    def put(data: bytes = b"") -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    put()
    return put


@pytest.fixture
def tokens_read(monkeypatch):
    """The tokens that any model reads from now on, one after the other."""
    seen, forward = [], LanguageModel.forward

    def counted(self, tokens, *args, **options):
        seen.extend(tokens[0].tolist())
        return forward(self, tokens, *args, **options)

    monkeypatch.setattr(LanguageModel, "forward", counted)
    return seen


def run(capsys, *words) -> str:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys, *words) -> str:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


def expected_text(folder, prompt: bytes, count: int, **sampling) -> str:
    model, tokenizer = load(folder)
    tokens = stream(model, Session().then(tokenizer.encode(prompt)), Sampling(**sampling), max_tokens=count)
    return tokenizer.decode([token for token, *_ in tokens]) + "\n"


def test_what_is_written_is_what_the_library_gives(folder, capsys, piped, tmp_path):
    (tmp_path / "prompt").write_bytes(b"Gr\xc3\xbc\xc3\x9fe \xff")
    greedy = ["--temperature", 0, "--max-tokens", 30]
    assert run(capsys, "generate", folder, "Once upon", "a time", *greedy) == expected_text(
        folder, b"Once upon a time", 30
    )
    assert run(capsys, "generate", folder, *greedy, "Once upon a time") == expected_text(
        folder, b"Once upon a time", 30
    )
    in_file = expected_text(folder, b"Gr\xc3\xbc\xc3\x9fe \xff", 30)
    assert run(capsys, "generate", folder, "--file", tmp_path / "prompt", *greedy) == in_file
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "prompt").read_bytes())
    assert run(capsys, "generate", folder, "--file", tmp_path / "marked", *greedy) == in_file
    piped(b"Gr\xc3\xbc\xc3\x9fe \xff")
    assert run(capsys, "generate", folder, *greedy) == in_file
    drawn = run(capsys, "generate", folder, "a", "--seed", 7, "--max-tokens", 30)
    assert drawn == expected_text(folder, b"a", 30, temperature=0.8, top_p=0.95, seed=7)
    assert run(capsys, "generate", folder, "a", "--top-k", 1, "--max-tokens", 30) == expected_text(folder, b"a", 30)
    assert len({run(capsys, "generate", folder, "a", "--max-tokens", 30) for _ in range(3)}) == 3


def test_a_session_goes_on_where_it_stopped_and_reads_nothing_twice(folder, capsys, piped, tmp_path, tokens_read):
    options = ["--temperature", 1, "--seed", 3, "--session", tmp_path / "s"]
    whole = run(capsys, "generate", folder, "Once", "--temperature", 1, "--top-p", 1, "--seed", 3, "--max-tokens", 40)
    tokens_read.clear()
    parts = [run(capsys, "generate", folder, "Once", *options, "--top-p", 1, "--max-tokens", 15)]
    parts += [run(capsys, "generate", folder, *options, "--top-p", 1, "--max-tokens", 25)]
    assert len(tokens_read) == 4 + 39
    torch.manual_seed(0)
    model, _ = load(folder)
    assert SessionFile(tmp_path / "s", model).load().tokens_read == 43
    raw = [part.removesuffix("\n") for part in parts]
    assert "".join(raw).replace("\ufffd", "") == whole.removesuffix("\n").replace("\ufffd", "")
    tokens_read.clear()
    run(capsys, "generate", folder, "Twice", *options, "--max-tokens", 3)
    assert tokens_read[1:6] == list(b"Twice") and len(tokens_read) == 1 + 5 + 2


def test_a_book_is_read_once(folder, capsys, piped, tmp_path, tokens_read):
    book = bytes(range(65, 90)) * 100
    (tmp_path / "book").write_bytes(book)
    session = ["--session", tmp_path / "s"]
    assert run(capsys, "generate", folder, "--file", tmp_path / "book", *session, "--max-tokens", 0) == "\n"
    assert bytes(tokens_read) == book[:-1]
    run(capsys, "generate", folder, "Who?", *session, "--max-tokens", 2, "--temperature", 0)
    assert bytes(tokens_read[:2504]) == book + b"Who?" and len(tokens_read) == 2505


def test_a_reading_that_is_interrupted_goes_on_without_the_prompt(folder, capsys, piped, tmp_path, monkeypatch):
    (tmp_path / "book").write_bytes(b"abcdefghij" * 500)
    words = ["generate", folder, "--temperature", 0, "--max-tokens", 20]
    expected = run(capsys, *words, "--file", tmp_path / "book")
    forward, calls = LanguageModel.forward, []

    def interrupted(self, tokens, *args, **options):
        calls.append(tokens.shape[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, tokens, *args, **options)

    monkeypatch.setattr(LanguageModel, "forward", interrupted)
    assert main([str(w) for w in [*words, "--file", tmp_path / "book", "--session", tmp_path / "s"]]) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == "solomonic: interrupted" and "2,048/4,999 tokens" in err
    assert run(capsys, *words, "--session", tmp_path / "s") == expected and calls == [2048, 2048, 903, 903, *[1] * 20]


def test_a_model_that_fails_leaves_the_session_as_it_was(folder, capsys, piped, tmp_path, monkeypatch):
    run(capsys, "generate", folder, "Once", "--session", tmp_path / "s", "--max-tokens", 3)
    before, forward = (tmp_path / "s").read_bytes(), LanguageModel.forward

    def overflows(self, *args, **options):
        logits, state = forward(self, *args, **options)
        return logits * float("nan"), state

    monkeypatch.setattr(LanguageModel, "forward", overflows)
    said = refused(capsys, "generate", folder, "more", "--session", tmp_path / "s")
    assert "expected finite logits, got nan" in said and (tmp_path / "s").read_bytes() == before


def test_stats(folder, capsys, piped, tmp_path):
    assert main(["generate", str(folder), "abcdef", "--max-tokens", "4", "--stats", "--seed", "9"]) == 0
    model, _ = load(folder)
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"read 5 tokens in \S+ s \(\S+ tokens/s\); wrote 4 tokens in \S+ s \(\S+ tokens/s\); "
        rf"state after 9 tokens: {model.state_bytes(9):,} bytes; seed 9\n",
        said,
    )


def test_one_token_is_no_tokens(folder, capsys, piped, tmp_path):
    assert main(["generate", str(folder), "ab", "--max-tokens", "1", "--stats"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("read 1 token in ") and "wrote 1 token in " in said and "after 2 tokens: " in said
    piped(b"/state\n")
    assert run(capsys, "chat", folder) == "0 bytes after 0 tokens\n"


def test_a_long_prompt_shows_how_far_it_is_read(folder, capsys, piped, tmp_path):
    (tmp_path / "book").write_text("abc " * 600)
    for name, lines in (("book", ["read: 85 %, 2,048/2,399 tokens", "read: 100 %, 2,399/2,399 tokens"]), ("short", [])):
        (tmp_path / "short").write_text("abc")
        words = ["generate", folder, "--file", tmp_path / name, "--session", tmp_path / f"{name}.session"]
        assert main([*map(str, words), "--max-tokens", "0"]) == 0
        assert [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()] == lines


def test_types(folder, capsys, piped, tmp_path):
    for dtype in ("bfloat16", "float32"):
        run(capsys, "generate", folder, "a", "--dtype", dtype, "--max-tokens", 3, "--session", tmp_path / dtype)
    said = refused(capsys, "generate", folder, "a", "--dtype", "bfloat16", "--session", tmp_path / "float32")
    assert "another model or --dtype" in said


PROMPTS = ["one", "two is longer", "drei é", "four", "5"]


@pytest.fixture
def batch(tmp_path):
    (tmp_path / "prompts.txt").write_text("\n\n".join(PROMPTS), encoding="utf-8")
    lines = [json.dumps({"id": i, "prompt": prompt, "text": "old"}) for i, prompt in enumerate(PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "prompts.txt"


@pytest.mark.parametrize("size", [1, 2, 8])
def test_batches(folder, capsys, batch, size):
    options = ["--max-tokens", 12, "--seed", 4, "--batch-size", size]
    model, tokenizer = load(folder)
    texts = generate(
        model,
        [tokenizer.encode(p).tolist() for p in PROMPTS],
        Sampling(0.8, top_p=0.95, seed=4),
        max_tokens=12,
        ends=(256,),
    )
    expected = [{"prompt": p, "text": tokenizer.decode(text), "tokens": text} for p, text in zip(PROMPTS, texts)]
    lines = run(capsys, "generate", folder, "--batch", batch, *options).splitlines()
    assert [json.loads(line) for line in lines] == expected
    lines = run(capsys, "generate", folder, "--batch", batch.with_suffix(".jsonl"), *options).splitlines()
    assert [json.loads(line) for line in lines] == [{"id": i} | line for i, line in enumerate(expected)]


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_text_ends_where_the_model_says(folder, capsys, batch, piped, file):
    """At any token of a list of them, which is not shown: also one that is an ordinary token of the text."""
    words = ["--temperature", 0, "--max-tokens", 40]
    text = run(capsys, "generate", folder, "hi", *words)
    stop = next(c for c in text.strip() if text.index(c) > 3 and c < "\x80")
    for name in {"generation_config.json", file}:
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | {"eos_token_id": [256, ord(stop)] if name == file else None}))
    assert run(capsys, "generate", folder, "hi", *words) == text[: text.index(stop)] + "\n"
    batch.write_text("hi\n")
    [line] = map(json.loads, run(capsys, "generate", folder, "--batch", batch, *words).splitlines())
    assert (line["text"], line["tokens"][-1]) == (text[: text.index(stop)], ord(stop))
    assert Turns(CHAT, {}, load(folder)[1]).ends == {256, ord(stop)}


def test_a_batch_goes_on_where_it_stopped(folder, capsys, batch, tmp_path, tokens_read):
    out = tmp_path / "new" / "out.jsonl"
    words = ["generate", folder, "--batch", batch, "--max-tokens", 6, "--seed", 4, "--batch-size", 2, "--out", out]
    assert run(capsys, *words) == ""
    whole = out.read_bytes()
    assert whole.count(b"\n") == 5
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))
    assert main([*map(str, words)]) == 0
    said = [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [f"generate: {100 * n // 5} %, {n}/5 prompts" for n in (1, 3, 5)]
    tokens_read.clear()
    assert run(capsys, *words) == "" and out.read_bytes() == whole and not tokens_read
    ends = [i + 1 for i in range(len(whole)) if whole[i : i + 1] == b"\n"]
    for size in (0, 1, 5, ends[0] - 1, ends[0], ends[0] + 30, ends[2] + 14, len(whole) - 1):
        out.write_bytes(whole[:size])
        run(capsys, *words)
        assert out.read_bytes() == whole, size


@pytest.mark.parametrize("content", ["my notes", "my notes\n", '{"prompt": "other", "text": ""}\n', "\n"])
def test_a_file_of_something_else_is_not_written_to(folder, capsys, batch, tmp_path, content):
    (tmp_path / "out").write_text(content)
    said = refused(capsys, "generate", folder, "--batch", batch, "--out", tmp_path / "out")
    assert "expected answers to the prompts of this --batch" in said and (tmp_path / "out").read_text() == content


@pytest.mark.parametrize(
    "words, says",
    [
        (["generate", "{m}"], "expected a prompt: as an argument, with --file, or piped in"),
        (["generate", "{m}", "a", "--max-tokens", "-1"], "--max-tokens: expected a whole number >= 0, got -1"),
        (["generate", "{m}", "a", "--temperature", "-1"], "temperature: expected a number >= 0"),
        (["generate", "{m}", "a", "--top-p", "0"], "top_p: expected 0 < top_p <= 1"),
        (["generate", "{m}", "a", "--top-k", "0"], "top_k: expected a whole number >= 1"),
        (["generate", "{m}", "a", "--dtype", "float8"], "unknown dtype 'float8'"),
        (["generate", "{m}", "a", "--device", "cudo"], "unknown device 'cudo'"),
        (["generate", "{m}", "a", "--file", "x"], "--file: expected the prompt once"),
        (["generate", "{m}", "--file", "{t}/nowhere"], "nowhere"),
        (["generate", "{m}", "--file", "{t}/nowhere"], "solomonic: {t}/nowhere: No such file or directory\n"),
        (["generate", "{m}", "--file", "{t}"], "solomonic: {t}: Is a directory\n"),
        (["generate", "{m}", "a", "--out", "x"], "--out is for --batch"),
        (["generate", "{m}", "a", "--batch", "x"], "--batch has prompts of its own"),
        (["generate", "{m}", "--batch", "{t}/nowhere"], "nowhere"),
        (["generate", "{m}", "--batch", "{t}/bad.jsonl"], "bad.jsonl, line 2: expected a JSON object"),
        (
            ["generate", "{m}", "--batch", "{t}/empty.jsonl"],
            'line 1: expected {"prompt": "some text"}, got {"prompt": ""}',
        ),
        (
            ["generate", "{m}", "--batch", "{t}/bad.jsonl", "--batch-size", "0"],
            "--batch-size: expected a whole number >= 1",
        ),
        (["generate", "{t}/nowhere", "a"], "expected a folder with config.json"),
        (["generate", "{m}", "a", "--session", "{m}/model.safetensors"], "which is of MODEL"),
        (["generate", "{m}", "a", "--session", "{m}/config.json"], "which is of MODEL"),
        (["generate", "{m}", "a", "--session", "{t}"], "got a folder"),
        (["chat", "{t}/nowhere"], "expected a folder with config.json"),
        (["chat", "{m}", "--max-tokens", "0"], "--max-tokens: expected a whole number >= 1"),
        (["chat", "{m}", "--session", "{m}/config.json"], "which is of MODEL"),
    ],
)
def test_a_mistake_is_one_line_and_loses_nothing(folder, capsys, piped, tmp_path, words, says):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt"\n')
    (tmp_path / "empty.jsonl").write_text('{"prompt": ""}\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = refused(capsys, *(word.format(m=folder, t=tmp_path) for word in words))
    assert says.replace("{t}", str(tmp_path)) in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def started(*words, **options):
    """A process of its own, in which Ctrl-C means what it does in a terminal, however the tests were started."""
    command = [sys.executable, "-m", "solomonic", *map(str, words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes)


def test_ctrl_c_saves_the_session_up_to_the_last_token(folder, tmp_path):
    """And the text comes as it is written: some is there long before the last token could be."""
    words = ["generate", folder, "Hello", "--temperature", "0", "--max-tokens", 10**9, "--session", tmp_path / "s"]
    process = started(*words)
    written = b""
    while len(written) < 300:
        piece = os.read(process.stdout.fileno(), 100)
        assert piece
        written += piece
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130 and err == b"solomonic: interrupted\n"
    model, tokenizer = load(folder)
    session = SessionFile(tmp_path / "s", model).load()
    count = session.tokens_read - 4  # tokens written: all were read but the last
    expected = list(stream(model, Session().then(b"Hello"), Sampling(), max_tokens=count))
    assert session.pending == expected[-1][2].pending
    text = expected_text(folder, b"Hello", count).encode().removesuffix(b"\n")
    assert text.startswith((written + out)[:-16]) and len(text) - len(written + out) <= 16


def test_whoever_reads_the_output_may_stop(folder):
    process = started("generate", folder, "Hello", "--temperature", "0", "--max-tokens", 10**9)
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.wait(timeout=600) == 141 and process.stderr.read() == b""


def chat(capsys, piped, folder, typed: str, *words) -> str:
    piped(typed.encode())
    return run(capsys, "chat", folder, "--max-tokens", 12, "--temperature", 1, "--seed", 5, *words)


def test_a_chat_goes_on_next_day_without_reading_the_past(folder, capsys, piped, tmp_path, tokens_read):
    whole = chat(capsys, piped, folder, "hello\nhow are you?\nbye\n")
    expected, one_sitting = list(tokens_read), len(tokens_read)
    tokens_read.clear()
    session = ["--session", tmp_path / "s"]
    parts, sizes = [], []
    for line in ("hello\n", "how are you?\n", "bye\n"):
        parts.append(chat(capsys, piped, folder, line, *session))
        sizes.append(len(tokens_read))
    assert "".join(parts) == whole and tokens_read == expected and sizes[-1] == one_sitting
    # each day: the new turn, the template around it, the answer's tokens, and no more
    days = [sizes[0], sizes[1] - sizes[0], sizes[2] - sizes[1]]
    assert days[0] <= len("user: hello\nassistant: ") + 12
    assert days[2] <= 1 + len("\nuser: bye\nassistant: ") + 12
    assert b"hello" not in bytes(t for t in tokens_read[sizes[0] :] if t < 256)


def test_commands_of_the_chat(folder, capsys, piped, tokens_read):
    model, _ = load(folder)
    out = chat(capsys, piped, folder, "/state\n\n/foo\nhello\n/state\n/reset\n/state\n/quit\nnever read\n")
    assert out.startswith("0 bytes after 0 tokens\nunknown command '/foo': expected one of /quit, /reset, /state\n")
    assert re.search(rf"\n{model.state_bytes(1):,} bytes after \d+ tokens\n0 bytes after 0 tokens\n$", out)
    assert b"never" not in bytes(t for t in tokens_read if t < 256)
    assert bytes(tokens_read).startswith(b"user: hello\nassistant: ")


def test_the_system_speaks_first(folder, capsys, piped, tmp_path, tokens_read):
    chat(capsys, piped, folder, "hi\n", "--system", "Be kind.", "--session", tmp_path / "s")
    assert bytes(tokens_read).startswith(b"system: Be kind.\nuser: hi\nassistant: ")
    assert "--system: expected a new session" in refused(
        capsys, "chat", folder, "--system", "x", "--session", tmp_path / "s"
    )


@pytest.mark.parametrize(
    "template, says",
    [
        ("{% for", "expected Jinja"),
        ("{{ messages[7].content.upper() }}", "it says"),
        ("{{ raise_exception('no roles here') }}", "no roles here"),
        ("hello", "each message once, in order"),
        ("{{ messages[-1]['content'] }}", "each message once, in order"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely"),
    ],
)
def test_templates_that_do_not_work(folder, capsys, piped, template, says):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    assert re.search(says, refused(capsys, "chat", folder))


def test_a_session_is_saved_after_every_turn(folder, tmp_path):
    """Though the process is killed after it."""
    words = ["chat", folder, "--max-tokens", "5", "--session", tmp_path / "s"]
    process, (model, _) = started(*words, stdin=subprocess.PIPE), load(folder)
    for line in (b"one\n/state\n", b"two\n/state\n"):
        process.stdin.write(line)
        process.stdin.flush()
        while not (said := re.search(rb"bytes after (\d+) tokens\n", process.stdout.readline())):
            assert process.poll() is None
        assert SessionFile(tmp_path / "s", model).load().tokens_read == int(said[1])
    process.kill()
    process.communicate()
    assert SessionFile(tmp_path / "s", model).load().tokens_read == int(said[1])
