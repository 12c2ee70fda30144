"""Write on from a prompt, as the tokens come, or from each prompt of a file.

The prompt is an argument, a file or what is piped in. With --session the model's state is kept in a file, and the next
call goes on from there without reading the past again; --max-tokens 0 only reads. With --batch each prompt of a
file gives a line {"prompt", "text", "tokens"}; with --out a second start goes on after the lines that are there.
"""

import argparse
import json
import sys
import time
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._utils.files import locked
from .._utils.progress import Progress
from .._utils.spelling import aside, counted
from ..data.records import FORMS, LOOKED_AT, records, text_lines, unfit, utf8
from ..data.tokenizer import Tokenizer
from ..inference.generation import CHUNK, generate, read, stream
from ..inference.sampling import Sampling
from ..inference.sessions import Session, SessionFile
from ..model import LanguageModel
from ._generation import add_options, held_session, opened, remembering
from ._numbers import whole
from ._options import add_number

LONGEST = 2**30  # bytes of a prompt or of a file of them
PROMPT = "prompt"  # what a record has it under
ESCAPED = "backslashreplace"  # a character that UTF-8 lacks, half of a pair, is \\ud800: JSON's own word for it
READS, MODELS, WRITES = ("file", "batch", "memory"), ("model",), ("out", "session")


def arguments(command: argparse.ArgumentParser) -> None:
    add_options(command, max_tokens=200)
    command.add_argument("prompt", nargs="*", default=[], metavar="PROMPT", help="text to go on from")
    command.add_argument("--file", type=Path, metavar="F", help="read the prompt from this file")
    command.add_argument(
        "--batch",
        type=Path,
        metavar="FILE",
        help='file with a prompt a line, or JSON lines, a JSON list, CSV or parquet with a field "prompt"',
    )
    add_number(command, "--batch-size", whole(), 8, "B", "prompts at a time")
    command.add_argument("--out", type=Path, metavar="FILE", help="file that --batch writes (default: standard output)")
    command.add_argument(
        "--remember",
        metavar="NAME",
        help="write the text to the store of --memory, as the document NAME",
    )
    command.add_argument(
        "--stats", action="store_true", help="print tokens, time and bytes of the state on standard error"
    )


def run(args: argparse.Namespace, words: list[str]) -> int:
    if args.batch is None:
        if args.out is not None:
            raise ValueError("--out is for --batch; to write one text to a file, redirect standard output")
        return _one(args)
    if args.prompt or args.file or args.session or args.remember:
        raise ValueError("--batch has prompts of its own: leave out PROMPT, --file, --session and --remember")
    return _batch(args)


def _one(args: argparse.Namespace) -> int:
    prompt = _prompt(args)
    model, tokenizer, sampling = opened(args)
    with held_session(args), remembering(args, model, tokenizer) as remembers:
        return _written(args, prompt, model, remembers, tokenizer, sampling)


def _written(
    args: argparse.Namespace,
    prompt: str | bytes,
    model: LanguageModel,
    remembers: LanguageModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
) -> int:
    """remembers: the model with its store."""
    saved = SessionFile(args.session, model) if args.session else None
    session = saved.load() if saved else Session()
    if args.remember and session.length:
        raise ValueError("--remember: expected a new --session, for a document is written from its first token on")
    before, session = session.tokens_read, session.then(tokenizer.encode(prompt).tolist())
    if not session.pending:
        raise ValueError("expected a prompt: as an argument, with --file, or piped in")
    text, count, began = tokenizer.stream(), 0, time.perf_counter()
    first = began
    try:
        unread = len(session.pending)
        with Progress(unread - 1, "token", "read", shown=unread > CHUNK, leave=False) as bar:
            for session in read(remembers, session):
                bar.update(unread - len(session.pending) - bar.n)
        first = time.perf_counter()
        tokens = stream(remembers, session, sampling, max_tokens=args.max_tokens, ends=tokenizer.ends)
        for count, (token, _, session) in enumerate(tokens, 1):
            if token not in tokenizer.ends:
                print(text(token), end="", flush=True)
        print(text(None), flush=True)
    except ValueError as error:
        if not isinstance(error, UnicodeError):  # that of the terminal: what was written counts
            saved = None  # the session is as it was
        raise
    finally:
        if saved:
            saved.save(session)
        if args.stats:
            last = time.perf_counter()
            taken = session.tokens_read - before - count
            aside(
                f"read {_rate(taken, first - began)}; wrote {_rate(count, last - first)}; state after "
                f"{counted(session.tokens_read, 'token')}: {counted(session.state_bytes, 'byte')}; seed {sampling.seed}"
            )
    return 0


def _rate(tokens: int, seconds: float) -> str:
    return f"{counted(tokens, 'token')} in {seconds:.2f} s ({tokens / max(seconds, 1e-9):,.0f} tokens/s)"


def _prompt(args: argparse.Namespace) -> str | bytes:
    if args.prompt and args.file:
        raise ValueError("--file: expected the prompt once, got it as an argument too")
    if args.prompt:
        return " ".join(args.prompt)
    if args.file:
        return _content(args.file).removeprefix(BOM_UTF8)
    return b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read().removeprefix(BOM_UTF8)


def _batch(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise ValueError(f"--batch-size: expected a whole number >= 1, got {args.batch_size}")
    prompts = list(read_prompts(args.batch))
    if not prompts:
        raise ValueError(f"{args.batch}: expected prompts, got none")
    model, tokenizer, sampling = opened(args)
    with remembering(args, model, tokenizer) as remembers:
        return _answers(args, prompts, remembers, tokenizer, sampling)


def _answers(
    args: argparse.Namespace,
    prompts: list[tuple[dict[str, Any], bytes]],
    model: LanguageModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
) -> int:
    ids, records = [tokenizer.encode(prompt).tolist() for _, prompt in prompts], [record for record, _ in prompts]
    with locked(args.out, "writing answers there") if args.out else nullcontext():
        return _answered(args, records, ids, model, tokenizer, sampling)


def _answered(
    args: argparse.Namespace,
    records: list[dict[str, Any]],
    prompts: list[list[int]],
    model: LanguageModel,
    tokenizer: Tokenizer,
    sampling: Sampling,
) -> int:
    done = _done(args.out, records) if args.out else 0
    out = args.out.open("a", encoding="utf-8", errors=ESCAPED) if args.out else sys.stdout
    plain = (out.encoding or "utf-8").lower() not in ("utf-8", "utf8")
    began, count = time.perf_counter(), 0
    try:
        with Progress(len(records), "prompt", "generate", shown=not out.isatty()) as bar:
            bar.update(done)
            for first in range(done, len(records), args.batch_size):
                rows = range(first, min(first + args.batch_size, len(records)))
                drawn = replace(sampling, seed=sampling.seed + first)
                texts = generate(
                    model, [prompts[i] for i in rows], drawn, max_tokens=args.max_tokens, ends=tokenizer.ends
                )
                decoded = [
                    tokenizer.decode(text[:-1] if text[-1:] and text[-1] in tokenizer.ends else text) for text in texts
                ]
                lines = [records[i] | {"text": text, "tokens": ids} for i, text, ids in zip(rows, decoded, texts)]
                out.write("".join(_line(line, plain) + "\n" for line in lines))
                out.flush()
                count += sum(map(len, texts))
                bar.update(len(rows))
    finally:
        if args.out:
            out.close()
    if args.stats:
        taken = sum(map(len, prompts[done:]))
        seconds = time.perf_counter() - began
        aside(f"read {counted(taken, 'token')}, wrote {_rate(count, seconds)}; seed {sampling.seed}")
    return 0


def _content(path: Path) -> bytes:
    """What is in the file or comes out of the pipe. ValueError for more than `LONGEST`, which a device may give."""
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"{path}: expected at most {LONGEST:,} bytes, got more")
    return content


def read_prompts(path: Path) -> Iterator[tuple[dict, bytes]]:
    """Of each prompt of a file what the answer has of it, whatever else a record says too, and the prompt's bytes."""
    content = _content(path)
    if path.suffix.lower() not in FORMS:
        if what := unfit(content[:LOOKED_AT]):
            raise ValueError(f"{path}: expected prompts, got a file that is {what}")
        for _, line in text_lines(content):
            yield {PROMPT: line.decode("utf-8", "surrogateescape")}, line
        return
    for where, _, value in records(path, content, [PROMPT]):
        record = value if isinstance(value, dict) else {PROMPT: value}
        text = record.get(PROMPT)
        if not isinstance(text, str) or not text:
            got = json.dumps(value)
            raise ValueError(f'{where}: expected {{"prompt": "some text"}}, got {got[:60]}')
        yield {key: field for key, field in record.items() if key not in ("text", "tokens")}, utf8(text)


def _line(record: dict, plain: bool = False) -> str:
    return json.dumps(record, ensure_ascii=plain, allow_nan=False)


def _done(out: Path, records: list[dict]) -> int:
    """How many of the records `out` has; a last line that was cut off goes. ValueError for a file of other prompts."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists() and not out.is_file():
        return 0  # a device or a pipe
    *lines, rest = out.read_bytes().split(b"\n") if out.exists() else [b""]
    begins = [_line(record)[:-1].encode("utf-8", ESCAPED) for record in records]
    whole = len(lines) <= len(begins) and all(line.startswith(b) for line, b in zip(lines, begins))
    following = begins[len(lines)] if len(lines) < len(begins) else b""
    if not whole or not (rest.startswith(following) or following.startswith(rest)) or (rest and not following):
        raise ValueError(f"{out}: expected answers to the prompts of this --batch, got others; give another --out")
    if rest:
        with out.open("r+b") as file:
            file.truncate(out.stat().st_size - len(rest))
    return len(lines)
