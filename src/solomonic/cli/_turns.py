"""The turns of a chat as tokens, by a model's template, without the turns before.

A template is rendered with a mark in the place of every message, so that nothing in a message is taken for a part of
the template: a special token in the template becomes that token, one in a message stays text. What stands after
an answer's mark is all that a later turn adds, so that it alone is read.
"""

import re
from datetime import datetime

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..tokenizer import Tokenizer

MARKS = ["\ue000%d\ue001" % i for i in range(3)]


class Turns:
    """`first` and `later` give the tokens of a user's turn, up to where the answer begins.

    ends: tokens at which an answer ends; stop: text at which it ends, "" for none: the beginning of the user's next
    turn, for models that never learnt to end.
    """

    def __init__(self, template: str, tokens: dict[str, str], tokenizer: Tokenizer):
        """`tokens`: the special tokens by the names that the template uses. ValueError for a template that fails."""
        self.tokenizer, self.tokens = tokenizer, tokens
        names = sorted(tokenizer.specials, key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, names)))
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
        try:
            self.template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise ValueError(f"chat_template: expected Jinja, got what it cannot read ({error})") from None
        between = self._later().split(MARKS[2])[0]
        begins = self.special.match(between)
        self.ends = {tokenizer.end} | ({tokenizer.specials[begins[0]]} if begins else set())
        self.stop = "" if self.special.search(between) or not between.strip() else between.rstrip()

    def first(self, text: str, system: str | None = None) -> list[int]:
        instructions = [] if system is None else [{"role": "system", "content": MARKS[1]}]
        rendered = self._render([*instructions, {"role": "user", "content": MARKS[0]}])
        if system is not None and MARKS[1] not in rendered:
            raise ValueError("--system: expected a template with a place for it; this model's has none")
        return self._encode(rendered, {MARKS[0]: text, MARKS[1]: system or ""})

    def later(self, text: str) -> list[int]:
        return self._encode(self._later(), {MARKS[2]: text})

    def _later(self) -> str:
        """What follows the last answer, a mark in the place of the user's message."""
        roles = zip(("user", "assistant", "user"), MARKS)
        rendered = self._render([{"role": role, "content": mark} for role, mark in roles])
        if [m for m in re.findall("|".join(MARKS), rendered)] != MARKS:
            raise ValueError("chat_template: expected one that gives each message once, in order")
        return rendered.split(MARKS[1])[1]

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            return self.template.render(messages=messages, add_generation_prompt=True, **self.tokens)
        except Exception as error:  # a template is a program; it may fail in any way
            raise ValueError(f"chat_template: expected one that takes these messages; it says {error}") from None

    def _encode(self, rendered: str, messages: dict[str, str]) -> list[int]:
        """Special tokens of the template are themselves; runs of all other text are encoded in one piece."""
        runs: list[str | int] = [""]
        for part in re.split(f"({'|'.join(MARKS)})", rendered):
            if part in messages:
                runs[-1] += messages[part]
                continue
            at = 0
            for found in self.special.finditer(part):
                runs[-1] += part[at : found.start()]
                runs += [self.tokenizer.specials[found[0]], ""]
                at = found.end()
            runs[-1] += part[at:]
        tokens: list[int] = []
        for run in runs:
            tokens += [run] if isinstance(run, int) else self.tokenizer.encode(run).tolist() if run else []
        return tokens


def _raise(message: str):
    raise jinja2.TemplateError(message)
