"""EleutherAI's lm-evaluation-harness with models of ours, under the name `solomonic`.

    python -m solomonic.evaluation.harness --model solomonic --model_args pretrained=FOLDER --tasks hellaswag

is the harness's own command line, `lm_eval`, which knows one model type more, and whose type `hf` knows our folders.
Releases after 0.4.13 find the type by themselves, through this package's entry point in the group `lm_eval.models`, and
`lm_eval` does as well.

A document of any length is read without windows, and a context that several requests share is read once.
"""

import json
import logging
import sys
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jinja2
import lm_eval.models  # the harness's own types: it looks for them only while it knows none  # noqa: F401
import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from .._utils.progress import Progress
from .._utils.spelling import choose
from ..checkpoints.folder import load
from ..data.tokenizer import Tokenizer
from ..model import LanguageModel
from .score import continuations, read, reading, take

DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one setting
AUTO = 16  # the batch size that "auto" means


@register_model("solomonic")
class Solomonic(TemplateLM):
    """`pretrained`: a folder that `folder.load` reads, or a (model, tokenizer) in memory.

    A text begins with what the tokenizer's post-processor puts before it (in Llama a beginning-of-text token). Where that is
    nothing, the token that ends a document precedes a text without a context. Decoding is greedy.
    `batch_size` rows are read at a time, `chunk` tokens of each; neither changes a result beyond rounding.
    ValueError for a folder that cannot be loaded, or a request to sample.
    """

    def __init__(
        self,
        pretrained: str | tuple[LanguageModel, Tokenizer],
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        chunk: int = 512,
    ):
        super().__init__()
        if isinstance(pretrained, tuple):
            self.model, self._tokenizer = pretrained
        else:
            self.model, self._tokenizer = load(pretrained, _device(device), choose("dtype", dtype, DTYPES))
        self._device = next(self.model.parameters()).device
        size = AUTO if str(batch_size).startswith("auto") else int(batch_size)
        self.batch_size = min(size, max_batch_size or size)
        if self.batch_size < 1 or chunk < 1:
            raise ValueError(f"expected batch_size >= 1 and chunk >= 1, got {batch_size} and {chunk}")
        self.chunk, self._quiet = chunk, False
        plain, framed = (self._tokenizer.inner.encode("a", add_special_tokens=added).ids for added in (False, True))
        self.beginning: list[int] = framed[: framed.index(plain[0])] if plain else []

    @property
    def eot_token_id(self) -> int | None:
        return self._tokenizer.end

    @property
    def prefix_token_id(self) -> int:
        """ValueError where the tokenizer has no token to put before a text."""
        first = self.beginning[-1] if self.beginning else self._tokenizer.end
        if first is None:
            raise ValueError(
                "expected a tokenizer with a token that begins or ends a text, for an empty context; got none"
            )
        return first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **other: Any) -> list[int]:
        beginning = [] if add_special_tokens is False else self.beginning
        return beginning + self._tokenizer.encode(string).tolist()

    def loglikelihood(self, requests: Sequence, disable_tqdm: bool = False) -> list:
        self._quiet = disable_tqdm  # the harness's own bar, over its tokenizer, is for terminals alone
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(self, requests: Sequence, disable_tqdm: bool = False, **other: Any) -> list:
        """Requests are ((context, continuation), tokens of the context, tokens of the continuation)."""
        groups: dict[tuple, list[int]] = {}
        for i, (_, context, _) in enumerate(requests):
            groups.setdefault(tuple(context) or (self.prefix_token_id,), []).append(i)
        scores = self._score([(c, [requests[i][2] for i in members]) for c, members in groups.items()], self._quiet)
        results: list = [None] * len(requests)
        for members, group_scores in zip(groups.values(), scores):
            for i, score in zip(members, group_scores):
                results[i] = score
                self.cache_hook.add_partial("loglikelihood", requests[i][0], score)
        return results

    def loglikelihood_rolling(self, requests: Sequence, disable_tqdm: bool = False) -> list[float]:
        documents = [self._tokenizer.encode(request.args[0]) for request in requests]
        [scores] = self._score([([self.prefix_token_id], documents)], disable_tqdm)
        for request, (log_p, _) in zip(requests, scores):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, log_p)
        return [log_p for log_p, _ in scores]

    def generate_until(self, requests: Sequence, disable_tqdm: bool = False) -> list[str]:
        wanted = []
        for i, (context, settings) in enumerate(request.args for request in requests):
            until, most = _settings(settings)
            wanted.append((self.tok_encode(context) or [self.prefix_token_id], Stop(self._tokenizer, until), most, i))
        wanted.sort(key=lambda one: len(one[0]), reverse=True)
        results = [""] * len(requests)
        with Progress(len(wanted), "text", "generate_until", shown=not disable_tqdm) as bar:
            for first in range(0, len(wanted), self.batch_size):
                part = wanted[first : first + self.batch_size]
                for (_, _, _, i), text in zip(part, self._generate(part)):
                    results[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
                bar.update(len(part))
        return results

    def _score(self, groups: list, disable_tqdm: bool) -> list[list[tuple[float, bool]]]:
        arrays = [(np.array(c, dtype=np.int64), [np.array(a, dtype=np.int64) for a in after]) for c, after in groups]
        with Progress(len(arrays), "context", "loglikelihood", shown=not disable_tqdm) as bar:
            return continuations(self.model, arrays, self.batch_size, self.chunk, bar.update)

    def _generate(self, wanted: Sequence[tuple[list[int], "Stop", int, int]]) -> list[str]:
        """Greedy text after each context, up to the first of its `until`, a token that ends a text, or `most`."""
        texts = [""] * len(wanted)
        tokens: list[list[int]] = [[] for _ in wanted]
        with reading(self.model) as device:
            state = read(self.model, [np.array(context[:-1], dtype=np.int64) for context, *_ in wanted], self.chunk)
            last = torch.tensor([[context[-1]] for context, *_ in wanted], device=device)
            going = [row for row, (_, _, most, _) in enumerate(wanted) if most > 0]
            if going and len(going) < len(wanted):
                kept = torch.tensor(going, device=device)
                last, state = last[kept], state and take(state, kept)
            while going:
                logits, state = self.model(last, state)
                last, still = logits[:, -1:].argmax(-1), []
                for place, (row, token) in enumerate(zip(going, last[:, 0].tolist())):
                    _, until, most, _ = wanted[row]
                    if token in until.ends:
                        continue
                    tokens[row].append(token)
                    texts[row], ended = until.cut(tokens[row])
                    if not ended and len(tokens[row]) < most:
                        still.append(place)
                if len(still) < len(going):
                    going, kept = [going[place] for place in still], torch.tensor(still, device=device)
                    if going:
                        last, state = last[kept], take(state, kept)
        return texts


class Stop:
    """Where a generation stops: at the tokens `ends`, or at the first of the texts `until`.

    A special token, which gives no text, counts by its name: alone it is one of `ends`.
    """

    def __init__(self, tokenizer: Tokenizer, until: Sequence[str]):
        self.tokenizer, specials = tokenizer, tokenizer.specials
        self.ends = tokenizer.ends | {specials[stop] for stop in until if stop in specials}
        self.until = list(until)
        self.spelt = {
            stop: bare for stop in until if stop not in specials and (bare := _without(stop, specials)) != stop
        }

    def cut(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """The text up to the first stop in it, and whether there is one."""
        text = self.tokenizer.decode(tokens)
        ends = [at for stop in self.until if (at := text.find(stop)) >= 0]
        if self.spelt:
            names = self.tokenizer.spelt(tokens)
            ends += [text.rfind(bare) if bare else len(text) for stop, bare in self.spelt.items() if stop in names]
        return text[: min(ends)] if ends else text, bool(ends)


def _without(text: str, names: Collection[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "")
    return text


def known(tasks: Sequence[str], include: str | None = None) -> tuple[TaskManager, list[str]]:
    """The harness's tasks, and those of the folder `include`; the names that `tasks`, which may have *, stand for.

    ValueError for a pattern that matches no task, or a folder that is not there.
    """
    if include is not None and not Path(include).is_dir():
        raise ValueError(f"{include}: expected a folder of tasks; it is not there")
    manager = TaskManager(include_path=include)
    for name in tasks:
        if not manager.match_tasks([name]):
            near = get_close_matches(name, manager.all_tasks, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"expected tasks that `lm_eval ls tasks` lists, got {name!r}{hint}")
    return manager, manager.match_tasks(list(tasks))


def evaluate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    tasks: tuple[TaskManager, list[str]],
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, Any]:
    """The harness's results on the tasks of `known`, on `limit` documents of each at most: plain JSON values.

    ValueError for a task whose templates do not fit its documents.
    """
    manager, names = tasks
    lm = Solomonic((model, tokenizer), batch_size)
    try:
        results = simple_evaluate(lm, tasks=names, task_manager=manager, limit=limit, log_samples=False)
    except jinja2.TemplateError as error:
        raise ValueError(f"a template of {', '.join(names)} cannot be rendered: {error}") from None
    return json.loads(json.dumps(results, default=str))


def shown(results: dict[str, Any]) -> str:
    """The harness's own table."""
    return make_table(results).strip()


def _device(name: str | None) -> torch.device:
    """The device of that name; or, with a warning, the best that there is: the harness names one where the user did not."""
    best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if name is None or torch.device(name).type in (best.type, "cpu"):
        return torch.device(name or best)
    logging.getLogger(__name__).warning("no device %s here: going on with %s", name, best)
    return best


def _settings(settings: dict[str, Any]) -> tuple[list[str], int]:
    """Of a request: the texts at which its generation stops, and the most tokens of it."""
    sample, temperature = settings.get("do_sample"), settings.get("temperature")
    if temperature != 0 and (sample or (sample is None and temperature is not None)):
        raise ValueError(f"expected do_sample=False, for decoding here is greedy, got {settings}; pass --gen_kwargs")
    until = settings.get("until") or []
    most = next((settings[name] for name in LENGTHS if settings.get(name) is not None), 256)
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop], int(most)


__all__ = ["Solomonic", "evaluate", "known", "shown"]

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    from .. import hf  # for --model hf  # noqa: F401

    cli_evaluate()
