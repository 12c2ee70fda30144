"""The turns of a chat as tokens, by a model's template, without the turns before.

A template is rendered with a mark in the place of every message, so that no message is taken for a part of the
template: a special token in the template becomes that token, one in a message stays text. The text after an answer's
mark is all that a later turn adds, and all that the model reads for it. Rendering has a process of its own (`_render`),
which the system ends where it takes too much time or memory.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .._utils import jsontext
from ..data.tokenizer import Tokenizer

RENDER = str(Path(__file__).with_name("_render.py"))
SECONDS = 20  # by the clock; the processor's time is bounded there
CACHED = 32  # renderings: they depend on the roles of the messages alone, but for the time of day
MARKS = [f"\ue000{i}\ue001" for i in range(3)]
MARK = re.compile("(\ue000[0-9]+\ue001)")


class Turns:
    """`first` and `later` give the tokens of a user's turn, up to where the answer begins.

    ends: tokens at which an answer ends; stop: text at which it ends, "" for none: the beginning of the user's next
    turn, for models that never learnt to end.
    """

    def __init__(self, template: str, tokens: dict[str, str], tokenizer: Tokenizer):
        """`tokens`: the special tokens by the names that the template uses. ValueError for a template that fails."""
        self.tokenizer, self.tokens = tokenizer, tokens
        names = sorted(tokenizer.specials, key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, names)) or "(?!)")  # which is nowhere
        self.template = template
        self._of_roles = self._of_turns if "strftime_now" in template else lru_cache(CACHED)(self._of_turns)
        between = self._later().split(MARKS[2])[0]
        begins = self.special.match(between)
        self.ends = tokenizer.ends | ({tokenizer.specials[begins[0]]} if begins else set())
        self.stop = "" if self.special.search(between) or not between.strip() else between.rstrip()

    def first(self, text: str, system: str | None = None) -> list[int]:
        instructions = [] if system is None else [{"role": "system", "content": MARKS[1]}]
        rendered = self._render([*instructions, {"role": "user", "content": MARKS[0]}])
        if system is not None and MARKS[1] not in rendered:
            raise ValueError("--system: expected a template with a place for it; this model's has none")
        return self._encode(rendered, {MARKS[0]: text, MARKS[1]: system or ""})

    def later(self, text: str) -> list[int]:
        return self._encode(self._later(), {MARKS[2]: text})

    def conversation(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Of all turns at once, (role, text) each, up to where the next answer begins.

        ValueError where the template refuses them or leaves one out.
        """
        rendered = self._of_roles(tuple(role for role, _ in messages))
        return self._encode(rendered, {_mark(i): text for i, (_, text) in enumerate(messages)})

    def _of_turns(self, roles: tuple[str, ...]) -> str:
        """Marks in the places of messages of these roles."""
        rendered = self._render([{"role": role, "content": _mark(i)} for i, role in enumerate(roles)])
        there = set(MARK.findall(rendered))
        for i, role in enumerate(roles):
            if _mark(i) not in there:
                raise ValueError(f"chat_template: expected one with a place for each message, got none for {role}'s")
        return rendered

    def _later(self) -> str:
        """What follows the last answer, a mark in the place of the user's message."""
        roles = zip(("user", "assistant", "user"), MARKS)
        rendered = self._render([{"role": role, "content": mark} for role, mark in roles])
        if list(re.findall("|".join(MARKS), rendered)) != MARKS:
            raise ValueError("chat_template: expected one that gives each message once, in order")
        return rendered.split(MARKS[1])[1]

    def _render(self, messages: list[dict[str, str]]) -> str:
        values = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None} | self.tokens
        asked = json.dumps({"template": self.template, "values": values}).encode()
        try:
            done = subprocess.run(
                [sys.executable, "-P", RENDER], check=False, input=asked, capture_output=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode or not done.stdout:
            raise ValueError(
                "chat_template: expected one that is rendered in seconds, in little memory; this one is not"
            )
        answer = jsontext.parse(done.stdout, "chat_template", dict)
        if "error" in answer:
            raise ValueError(f"chat_template: {answer['error']}")
        return answer["text"]

    def _encode(self, rendered: str, messages: dict[str, str]) -> list[int]:
        """Special tokens of the template are themselves; runs of all other text are encoded in one piece."""
        tokens: list[int] = []
        text = ""
        for part in MARK.split(rendered):
            if part in messages:
                text += messages[part]
                continue
            at = 0
            for special in self.special.finditer(part):
                tokens += self._encode_text(text + part[at : special.start()])
                tokens.append(self.tokenizer.specials[special[0]])
                text, at = "", special.end()
            text += part[at:]
        return tokens + self._encode_text(text)

    def _encode_text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).tolist() if text else []


def _mark(i: int) -> str:
    return f"\ue000{i}\ue001"
