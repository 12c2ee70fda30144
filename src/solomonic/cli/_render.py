"""Renders a chat template: a process of its own, for a template is a program of whoever made the model.

    {"template": ..., "values": {...}} on standard input -> {"text": ...} or {"error": ...} on standard output

Jinja's sandbox keeps it from everything but its own loops and texts. Those are bounded by this process: its memory and the
time of its processor, by the system, which ends it whatever it is in the middle of. It imports nothing of the library.
"""

import json
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS, MEMORY, LONGEST = 3, 2**30, 2**24  # of the processor; bytes; characters of the text


def limit() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system: whoever began this process ends it in time
        return
    for what, most in ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_AS, MEMORY)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, hard))


def refuse(message: str):
    raise jinja2.TemplateError(message)


class Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`, around what the model says, is what stands in it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def as_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """As transformers has it: Jinja's own would write what HTML needs."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(template: str, values: dict) -> dict[str, str]:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = as_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        made = environment.from_string(template)
    except (jinja2.TemplateError, RecursionError, MemoryError, ValueError) as error:
        return {"error": f"expected Jinja, got what it cannot read ({str(error) or type(error).__name__})"}
    try:
        text = made.render(**values)
    except Exception as error:  # a template is a program; it may fail in any way
        return {"error": f"expected one that takes these messages; it says {str(error) or type(error).__name__}"}
    return {"text": text} if len(text) <= LONGEST else {"error": f"expected at most {LONGEST:,} characters from it"}


if __name__ == "__main__":
    limit()
    asked = json.loads(sys.stdin.buffer.read())
    sys.stdout.write(json.dumps(render(**asked)))
