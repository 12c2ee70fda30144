"""Serve a model over HTTP: an OpenAI-compatible server of completions and chat.

    solomonic serve runs/books --port 8000

GET /v1/models, POST /v1/completions and /v1/chat/completions, whole or streamed; GET /health says how many requests run
and wait. The server refuses what it cannot do, with the name of the field. The environment variable SOLOMONIC_API_KEY
may hold the key of --api-key, so that no list of processes shows it. Ctrl-C and SIGTERM end the server, and every answer
under way, with exit code 0.
"""

import argparse
import os

from .._utils.spelling import paragraph, warn
from ._numbers import whole
from ._options import add_device, add_dtype, add_model, add_number

READS, MODELS = ("memory",), ("model",)
KEY = "SOLOMONIC_API_KEY"


def arguments(command: argparse.ArgumentParser) -> None:
    from ._generation import add_memory

    add_model(command)
    command.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen at (default 127.0.0.1: this machine)"
    )
    add_number(command, "--port", whole(), 8000, "P", "port; 0 takes any that is free")
    command.add_argument(
        "--name", metavar="NAME", help="name of the model in requests (default: MODEL's last name, or MODEL)"
    )
    command.add_argument("--api-key", metavar="KEY", help="key that requests must have (default: $SOLOMONIC_API_KEY)")
    add_number(command, "--max-tokens", whole(), 4096, "N", "tokens that a request may ask for")
    add_number(command, "--max-prompt", whole(), 131072, "N", "tokens of a prompt, at most")
    add_number(command, "--parallel", whole(), 4, "N", "requests that take turns, token by token")
    add_number(command, "--queue", whole(), 64, "N", "requests that may wait; others get a 429")
    add_device(command)
    add_dtype(command)
    add_memory(command)


def run(args: argparse.Namespace, words: list[str]) -> int:
    from ..checkpoints.folder import load, template
    from ..serve import Limits, Served, Worker, application, bind, listen
    from ._device import device, dtype
    from ._generation import check_memory, remembering
    from ._turns import Turns

    check_memory(args)
    key = _key(args.api_key)
    if args.parallel < 1 or args.queue < 0 or args.max_tokens < 1 or args.max_prompt < 1:
        raise ValueError(
            "expected --parallel, --max-tokens and --max-prompt >= 1 and --queue >= 0, got "
            f"{args.parallel}, {args.max_tokens}, {args.max_prompt} and {args.queue}"
        )
    with bind(args.host, args.port) as bound:
        model, tokenizer = load(args.model, device(args.device), dtype(args.dtype))
        try:
            turns = Turns(*template(args.model), tokenizer)
        except ValueError as error:
            turns = None
            warn(f"no chat, for {' '.join(str(error).split())}")
        with remembering(args, model, tokenizer) as remembers:
            limits = Limits(args.max_tokens, args.max_prompt)
            name = args.name or args.model.resolve().name
            also = frozenset() if args.name else frozenset({str(args.model), str(args.model.resolve())})
            served = Served(name, remembers, tokenizer, turns, limits, also)
            worker = Worker(remembers, tokenizer, args.parallel, args.queue)
            if key is None and not bound.getsockname()[0].startswith(("127.", "::1")):
                warn("whoever reaches this address may ask; --api-key lets only some")
            listen(application(served, worker, key), worker, bound, ready=lambda url: _say(served.name, url))
            if not worker.join(seconds=3):  # a step of a large model; nothing is written in it that could be lost
                os._exit(0)
    return 0


def _say(name: str, url: str) -> None:
    print(paragraph(f"serving {name} at {url}; Ctrl-C ends it"), flush=True)


def _key(option: str | None) -> str | None:
    name, key = ("--api-key", option) if option is not None else (KEY, os.environ.get(KEY))
    if key is not None and not (key and all("!" <= character <= "~" for character in key)):
        raise ValueError(f"{name}: expected a key of visible ASCII characters without spaces, got another")
    return key
