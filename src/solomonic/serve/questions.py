"""What a request asks for, in OpenAI's JSON.

No field that would change an answer is ignored: an unknown or unsupported one is an error that names it.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..data.tokenizer import Tokenizer
from ..inference.sampling import Sampling
from ..model import LanguageModel
from .fields import Fields, expected
from .refused import Refused

ANSWERS = 128
"""Of one request, at most: prompts times `n`."""

MESSAGES = 1024

STOPS, STOP_LENGTH = 16, 1000
"""Texts at which an answer ends, and characters of each."""

TOP = 20
"""Likeliest tokens that are named beside the one that was drawn."""

WRITTEN = 16
"""Tokens of a completion that says nothing of them, as OpenAI has it."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Of messages, with the names that chat templates have for them."""

WHO = {"user", "safety_identifier", "prompt_cache_key"}
"""Fields that say who asks; they change nothing."""

COMMON = WHO | {
    "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n",
    "seed", "stop", "logprobs",
}  # fmt: skip
COMPLETION = COMMON | {"prompt", "echo"}
CHAT = COMMON | {"messages", "top_logprobs"}

SAME: dict[str, list[Any]] = {"frequency_penalty": [0], "presence_penalty": [0], "logit_bias": [{}]}
SAME_COMPLETION = SAME | {"suffix": [""], "best_of": [1]}
SAME_CHAT = SAME | {
    "audio": [],
    "function_call": ["none"],
    "functions": [[]],
    "metadata": [{}],
    "modalities": [["text"]],
    "moderation": [],
    "parallel_tool_calls": [True, False],
    "prediction": [],
    "prompt_cache_options": [],
    "prompt_cache_retention": [],
    "reasoning_effort": ["none"],
    "response_format": [{"type": "text"}],
    "service_tier": ["auto", "default"],
    "store": [False],
    "tool_choice": ["none", "auto"],
    "tools": [[]],
    "verbosity": [],
    "web_search_options": [],
}
"""Fields of OpenAI's that are not supported, with the values that change nothing."""


class Conversations(Protocol):
    """How the messages of a chat become tokens. `ends` and `stop`: tokens, and the text, at which an answer ends."""

    @property
    def ends(self) -> Collection[int]: ...

    @property
    def stop(self) -> str: ...

    def conversation(self, messages: list[tuple[str, str]]) -> list[int]:
        """ValueError for messages that the model's template does not take."""


@dataclass(frozen=True)
class Limits:
    """Of one request: tokens that it may write, over all its answers, and that it may give to read."""

    written: int = 4096
    read: int = 1 << 17

    def __post_init__(self) -> None:
        if min(self.written, self.read) < 1:
            raise ValueError(f"limits of a request: expected numbers of tokens >= 1, got {self.written}, {self.read}")

    @property
    def body(self) -> int:
        """Bytes of a request: each token may take 32 of them, and what is around them 64 KiB."""
        return 32 * self.read + (1 << 16)


@dataclass(frozen=True)
class Served:
    """turns: None for a model that has no chat template of use. also: other names that requests may call it."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    turns: Conversations | None = None
    limits: Limits = field(default_factory=Limits)
    also: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Question:
    """Answer i of prompt p has the number p n + i, and the seed of `sampling` plus that, as a row of `generate` has.

    echoes: the texts of the prompts, where each answer begins with its prompt's.
    """

    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling
    max_tokens: int
    n: int = 1
    ends: Collection[int] = ()
    stops: tuple[str, ...] = ()
    top: int | None = None  # likeliest tokens to name beside each; None: no log probabilities at all
    stream: bool = False
    include_usage: bool = False
    offsets: tuple[int, ...] = ()  # characters of each prompt
    echoes: tuple[str, ...] = ()


def completion(body: bytes, served: Served) -> Question:
    """Parse a request for completions. Refused where `served` cannot answer it."""
    fields = Fields(body, COMPLETION, SAME_COMPLETION)
    _model(fields, served)
    n = fields.whole("n", 1, 1, ANSWERS)
    prompts = _prompts(fields, served, n)
    top = fields.whole("logprobs", None, 0, TOP)
    texts = tuple(prompt if isinstance(prompt, str) else served.tokenizer.decode(prompt) for prompt in prompts)
    tokens = [_encode(prompt, served) for prompt in prompts]
    offsets = tuple(map(len, texts))
    question = _question(fields, served, tokens, n, WRITTEN, served.tokenizer.ends, (), top, offsets)
    if not fields.flag("echo"):
        return question
    if (named := n * sum(map(len, tokens)) * ((top or 0) + 1)) > served.limits.read:
        raise Refused(
            f"echo: expected at most {served.limits.read:,} tokens of prompts, times n and logprobs + 1, got {named:,}",
            field="echo",
        )
    return replace(question, echoes=texts)


def chat(body: bytes, served: Served) -> Question:
    """Parse a request for a chat. Refused where `served` cannot answer it."""
    fields = Fields(body, CHAT, SAME_CHAT)
    _model(fields, served)
    n = fields.whole("n", 1, 1, ANSWERS)
    messages = _messages(fields)
    top = fields.whole("top_logprobs", None, 0, TOP)
    if not fields.flag("logprobs"):
        if top is not None:
            raise expected("top_logprobs", "logprobs to be true beside it", top)
    elif top is None:
        top = 0
    if served.turns is None:
        raise Refused("messages: this model has no chat template of use; ask /v1/completions", field="messages")
    try:
        tokens = served.turns.conversation(messages)
    except ValueError as error:
        raise Refused(f"messages: {error}", field="messages") from None
    stops = (served.turns.stop,) if served.turns.stop else ()
    return _question(fields, served, [tokens], n, served.limits.written, served.turns.ends, stops, top, (0,))


def _model(fields: Fields, served: Served) -> None:
    name = fields.text("model")
    if name not in {served.name, *served.also}:
        raise no_model(name, served)


def no_model(name: str, served: Served) -> Refused:
    message = f"model: expected {served.name!r}, the only one here, got {name[:200]!r}"
    return Refused(message, 404, "model", "model_not_found")


def _question(
    fields: Fields,
    served: Served,
    prompts: list[list[int]],
    n: int,
    written: int,
    ends: Collection[int],
    stops: tuple[str, ...],
    top: int | None,
    offsets: tuple[int, ...],
) -> Question:
    """written: tokens of an answer where the request does not say it."""
    name = "prompt" if "prompt" in fields.values else "messages"
    if not all(prompts):
        raise Refused(f"{name}: expected at least one token to go on from, got an empty text", field=name)
    if (read := sum(map(len, prompts))) > served.limits.read:
        raise Refused(
            f"{name}: expected at most {served.limits.read:,} tokens, got {read:,}; the server's --max-prompt says so",
            field=name,
            code="context_length_exceeded",
        )
    for who in WHO:
        fields.text(who, "")
    stream, asked, specials = fields.flag("stream"), _stops(fields), served.tokenizer.specials
    if odd := next((s for s in asked if s not in specials and any(name in s for name in specials)), None):
        raise expected("stop", "texts, or special tokens alone: a special token in a text gives no text", odd)
    return Question(
        prompts=tuple(map(tuple, prompts)),
        sampling=_sampling(fields),
        max_tokens=_max_tokens(
            fields, served.limits.written // (n * len(prompts)), written, fields.get("echo") is True
        ),
        n=n,
        ends=frozenset(ends) | {specials[stop] for stop in asked if stop in specials},
        stops=(*asked, *stops),
        top=top,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        offsets=offsets,
    )


def _sampling(fields: Fields) -> Sampling:
    top_p = fields.number("top_p", 1.0, 0, 1)
    if top_p == 0:
        raise expected("top_p", "a number above 0; temperature 0 is for the likeliest token", 0)
    seed = fields.whole("seed", None, -(1 << 63), (1 << 63) - 1)
    return Sampling(
        temperature=fields.number("temperature", 1.0, 0, 2),
        top_k=fields.whole("top_k", None, 1, (1 << 63) - 1),
        top_p=top_p,
        seed=secrets.randbits(32) if seed is None else seed,
    )


def _max_tokens(fields: Fields, most: int, default: int, none: bool) -> int:
    """none: whether 0 will do, as the prompt alone is asked for."""
    name = "max_completion_tokens" if "max_completion_tokens" in fields.values else "max_tokens"
    other = fields.get("max_tokens", fields.get(name))
    value = fields.get(name, min(default, most))
    if other is not None and (type(other), other) != (type(value), value):
        raise expected("max_tokens", "the number that max_completion_tokens has, or none", other)
    if type(value) is not int or not (0 if none else 1) <= value <= most:
        what = f"a whole number from 1 to {most}, which is what each answer of this request may have (--max-tokens)"
        raise expected(name, what if most else "fewer answers: the server's --max-tokens has not one for each", value)
    return value


def _stops(fields: Fields) -> list[str]:
    value = fields.get("stop", [])
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > STOPS:
        raise expected("stop", f"text, or a list of at most {STOPS} texts", value)
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= STOP_LENGTH:
            raise expected("stop", f"texts of 1 to {STOP_LENGTH} characters", stop)
    return stops


def _include_usage(fields: Fields, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not stream:
        raise expected("stream_options", "an object, beside stream: true", options)
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation") or type(value) not in (bool, type(None)):
            raise expected("stream_options", "include_usage, true or false", {name: value})
    if options.get("include_obfuscation"):
        raise Refused("stream_options.include_obfuscation: not supported here; leave it out", field="stream_options")
    return bool(options.get("include_usage"))


def _prompts(fields: Fields, served: Served, n: int) -> list[str] | list[list[int]]:
    value = fields.get("prompt")
    prompts: list[Any]
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
        prompts = [value]
    elif isinstance(value, list) and value and len({type(item) for item in value}) == 1:
        prompts = value
    else:
        raise expected("prompt", "text, a list of texts, or lists of token ids", value)
    if n * len(prompts) > ANSWERS:
        raise expected("prompt", f"at most {ANSWERS} answers to ask for, prompts times n", value)
    for prompt in prompts:
        if isinstance(prompt, list):
            size = served.model.config.vocab_size
            for token in prompt:
                if type(token) is not int or not 0 <= token < size:
                    raise expected("prompt", f"token ids from 0 to {size - 1}", token)
        elif not isinstance(prompt, str):
            raise expected("prompt", "text, a list of texts, or lists of token ids", prompt)
    return prompts


def _encode(prompt: str | list[int], served: Served) -> list[int]:
    return served.tokenizer.encode(prompt).tolist() if isinstance(prompt, str) else prompt


def _messages(fields: Fields) -> list[tuple[str, str]]:
    """(role, text) of each."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MESSAGES:
        raise expected("messages", f"a list of 1 to {MESSAGES} messages", messages)
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _message(name: str, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise expected(name, 'an object {"role", "content"}', message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise expected(f"{name}.role", f"one of {', '.join(ROLES)}", role)
    for other, value in message.items():
        if other not in ("role", "content") and value not in (None, []):
            raise Refused(f"{name}: its field {other[:60]!r} is not supported here; leave it out", field=name)
    if isinstance(content, list):
        content = "".join(_part(f"{name}.content[{i}]", part) for i, part in enumerate(content))
    if not isinstance(content, str):
        raise expected(f"{name}.content", "text, or a list of parts of text", content)
    return ROLES[role], content


def _part(name: str, part: Any) -> str:
    if not (isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"):
        raise expected(name, 'an object {"type": "text", "text"}', part)
    if not isinstance(part["text"], str):
        raise expected(f"{name}.text", "text", part["text"])
    return part["text"]


__all__ = ["Limits", "Question", "Served", "chat", "completion", "no_model"]
