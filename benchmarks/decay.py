"""Which clock a store's decay should run by: streams whose source changes and comes back, every rule side by side.

    python benchmarks/decay.py markov [--tokens N] [--json FILE]
    python benchmarks/decay.py series --data FOLDER       # with *.csv (timestamp,value) and nab_windows.json
    python benchmarks/decay.py text --model FOLDER --data FILE FILE ...   # of benchmarks/novels.py, and its novels

A small B'MOJO reads each stream once. What leaves its window is written to a store of which each head finds `k` tokens
again, as `solomonic.retrieval.attach` does it; `--check` holds the two against each other. A rule says how a stored token fades:
by which clock, how fast, what is refreshed, what an entry must be to stay under a budget. All rules are rows of one
batch. A rate is given as what a token's logit falls in a token's time of the clock's mean speed, so that all clocks are
offered the same rates; which is best is chosen on streams that are not reported.

    markov  random chains over 16 symbols, three likely successors each; four chains a stream, switch and return known
    series  32 levels, quantiles of the first 15 %; a switch is where a labelled window begins, a return where it ends
    text    texts in turn, read by a model that has learnt to use a store

A hedged rule mixes readers, `solomonic.retrieval.hedge`: the model alone, with the whole store, with the store that fades, and with
what is newest only.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from command_common import existing, existing_file, existing_folder, new_file
from decay_clocks import CLOCKS, Clocks
from decay_streams import (
    BLOCK,
    LEVELS,
    SHARE,
    SYMBOLS,
    Rows,
    Stream,
    markov_rows,
    markov_stream,
    series,
    series_rows,
    text_stream,
    trained,
)
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from solomonic import LanguageModel
from solomonic._utils.files import write
from solomonic.checkpoints.folder import load
from solomonic.memory import open_store
from solomonic.ops.memory_attention import Stored
from solomonic.ops.memory_attention.state import memory_positions
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.hedge import Hedged
from solomonic.retrieval.schema import store_schema

NEWEST = 256  # tokens that a hedged reader of what is new finds


def looks(model: LanguageModel) -> int:
    """The layer with an eidetic memory."""
    (layer,) = (i for i, block in enumerate(model.blocks) if block.mixer.config.capacity)
    return layer


# Rules


@dataclass(frozen=True)
class Rule:
    """clock, rate: of the decay, 0 for none. refresh: an entry's clock is set to now when it is "used", with half of a
    query's attention or more, or only when besides the prediction was better than usual, "good". order: what goes
    first under a budget, the least "weight" or the greatest "age". newest: only that many tokens are found. regime:
    only tokens of the same source are found (a control that knows it, as the clock "switch" does)."""

    clock: str = "tokens"
    rate: float = 0.0
    refresh: str = ""
    order: str = "weight"
    newest: int | None = None
    regime: bool = False
    hedged: str = ""  # with what else

    @property
    def family(self) -> str:
        """The kind of which the best rule is reported."""
        if self.hedged:
            return f"hedged: {self.hedged}" + (f", {self.clock}" if self.rate else "")
        if self.regime:
            return "(only the source's own)"
        if self.newest is not None:
            return "newest only" if self.newest else "no store"
        if not self.rate:
            return "no decay, oldest go first" if self.order == "age" else "no decay"
        known = "(switches known)" if self.clock == "switch" else self.clock
        return known + (f", refreshed if {self.refresh}" if self.refresh else "")


def rules(clocks, rates, refreshed) -> list[Rule]:
    tried = [Rule(newest=0), Rule(), Rule(order="age"), Rule(regime=True)]
    tried += [Rule(newest=n) for n in (128, NEWEST)]
    tried += [Rule(clock, rate) for clock in clocks for rate in rates]
    tried += [Rule(clock, rate, how) for clock in refreshed for how in ("used", "good") for rate in rates]
    return tried


WITH = {"alone, all": (Rule(newest=0), Rule()), "alone, all, newest": (Rule(newest=0), Rule(), Rule(newest=NEWEST))}


def hedge(results: np.ndarray, asked: list[Rule], share: float = 0.03) -> tuple[np.ndarray, list[Rule]]:
    """What `solomonic.retrieval.hedge` makes of the nats (B, N) of readers, for every rule that only fades and its rates."""
    mixed, rules = [], []
    for hedged, others in WITH.items():
        for rule in (rule for rule in asked if rule == Rule(rule.clock, rule.rate)):
            p = np.exp(-results[sorted({asked.index(one) for one in (*others, rule)})])
            weight, mixture = np.full(len(p), 1 / len(p)), np.zeros(p.shape[1])
            for t in range(p.shape[1]):
                mixture[t] = weight @ p[:, t]
                weight = (1 - share) * weight * p[:, t] / mixture[t] + share / len(p)
            mixed.append(-np.log(mixture))
            rules.append(replace(rule, hedged=hedged))
    return np.concatenate([results, mixed]), rules


class Memories:
    """The store of one layer under B rules, each with what it wrote (`ops.sequence.Store`), as `attach` and `memory.Store`
    have it: tokens are written when their block is read, whole entries are found by their best token, and removed."""

    def __init__(self, model: LanguageModel, layer: int, rules: list[Rule], rate: Tensor, k: int, entries: int):
        """rate: (B,) in the clocks' own units. entries: the budget."""
        block = model.blocks[layer].mixer
        heads, dim = block.config.kv_heads, block.project.dim
        self.layer, self.config, self.rules, self.rate, self.k, self.entries = (
            layer,
            block.config,
            rules,
            rate,
            k,
            entries,
        )
        shape = (len(rules), entries + 1, BLOCK)
        self.key, self.value = torch.zeros(2, *shape, heads, dim)
        self.score, self.clock = torch.zeros(2, *shape)
        self.position = torch.full(shape, -1)
        self.regime = torch.full(shape, -1)
        self.real = torch.zeros(shape[:2], dtype=torch.bool)
        self.now = torch.zeros(len(rules))
        self.newest = torch.tensor([2**30 if rule.newest is None else rule.newest for rule in rules])
        self.by_age = torch.tensor([rule.order == "age" for rule in rules])
        self.only = torch.tensor([rule.regime for rule in rules])
        self.used = torch.tensor([bool(rule.refresh) for rule in rules])
        self.good = torch.tensor([rule.refresh == "good" for rule in rules])

    def begin(self, state, regime: int) -> None:
        self.at = 0 if state is None else int(state["position"][0])
        attention = None if state is None else state["layers"][self.layer]["attention"]
        self.held = (
            None
            if state is None
            else memory_positions(attention, state["position"], self.config.block_size, self.config.exact)
        )
        self.current, self.given = regime, None

    def keep(self, k: Tensor, v: Tensor, score: Tensor) -> None:
        self.new = k, v, score

    def _weight(self, top: int) -> Tensor:
        return logsigmoid(self.score[:, :top]) + self.rate[:, None, None] * (
            self.clock[:, :top] - self.now[:, None, None]
        )

    def recall(self, q: Tensor, place) -> Stored | None:
        top = int(self.real.any(0).sum())
        if not top:
            return None
        rows, length, _, dim = q.shape
        position = self.position[:, :top].flatten(1)
        bias = self._weight(top).flatten(1)
        there = self.real[:, :top].repeat_interleave(BLOCK, 1) & (self.at - position <= self.newest[:, None])
        there &= ~self.only[:, None] | (self.regime[:, :top].flatten(1) == self.current)
        key, value = (x[:, :top].flatten(1, 2) for x in (self.key, self.value))
        q_groups = q.unflatten(2, (key.shape[2], -1)) * dim**-0.5
        logit = torch.einsum("btgrd,bsgd->bgrts", q_groups, key).flatten(1, 2)
        logit = logit + bias.masked_fill(~there, -torch.inf)[:, None, None]
        least = logit.topk(min(self.k, logit.shape[-1]), -1).values[..., -1:]
        member = (logit >= least).any(1) & there[:, None]
        seen = (place.position[..., None] - position[:, None] < BLOCK) | (
            (position[:, :, None] == self.held[:, None]).any(-1)[:, None]
        )
        visible = member & there[:, None] & ~seen

        def watch(weight: Tensor) -> None:
            self.given = weight.mean(2).sum(1).view(rows, top, BLOCK).sum(-1)

        key, value, bias = (x[:, None].expand(-1, length, *x.shape[1:]) for x in (key, value, bias))
        return Stored(q, key, value, bias, visible, watch if self.used.any() else None)

    def end(self, ticks: Tensor, good: Tensor, regime: Tensor) -> None:
        """ticks (B, T) of each row's own clock, good (B,): the call was predicted better than usual. regime (T,)."""
        clock = self.now[:, None] + ticks.cumsum(1)
        self.now = clock[:, -1]
        if self.given is not None:
            top = self.given.shape[1]
            fresh = (self.given >= 0.5) & (self.used & (~self.good | good))[:, None] & self.real[:, :top]
            self.clock[:, :top] = torch.where(fresh[..., None], self.now[:, None, None], self.clock[:, :top])
        free = (~self.real).float().argmax(1)
        each = torch.arange(len(self.rules))
        k, v, score = self.new
        self.key[each, free], self.value[each, free], self.score[each, free] = k, v, score
        self.clock[each, free], self.regime[each, free] = clock, regime
        self.position[each, free] = torch.arange(self.at, self.at + BLOCK)
        self.real[each, free] = True
        over = self.real.all(1)
        if over.any():
            weight = torch.where(self.by_age[:, None], self.position[:, :, 0].float(), self._weight(None).amax(-1))
            self.real[each[over], weight[over].argmin(1)] = False


@torch.inference_mode()
def read(model, stream: Stream, rules: list[Rule], speed: dict[str, float], k: int, entries: int | None):
    """Nats (B, N) of every token under each rule, and the mean speed of each clock where there is no decay."""
    layer, length = looks(model), len(stream.tokens) // BLOCK * BLOCK
    which = torch.tensor([CLOCKS.index(rule.clock) for rule in rules])
    rate = torch.tensor([rule.rate / speed.get(rule.clock, 1.0) if rule.rate else 0.0 for rule in rules])
    memories = Memories(model, layer, rules, rate, k, entries or length // BLOCK)
    stores, clocks = [memories if i == layer else None for i in range(len(model.blocks))], Clocks(len(rules))
    regime = torch.from_numpy(stream.regime)
    switched = torch.cat([torch.zeros(1, dtype=torch.bool), regime.diff() != 0])
    state, last, nats, ran, forgot = None, None, [], torch.zeros(len(CLOCKS)), torch.zeros(len(rules))
    for begin in range(0, length, BLOCK):
        part = torch.from_numpy(stream.tokens[begin : begin + BLOCK])
        memories.begin(state, int(regime[begin]))
        x, state = model.hidden(model.embed(part.expand(len(rules), -1)), state, stores=stores)
        logits = model.head(x)
        known = logits[:, :-1] if last is None else torch.cat([last[:, None], logits[:, :-1]], 1)
        nll = cross_entropy(known.transpose(1, 2), part[-known.shape[1] :].expand(len(rules), -1), reduction="none")
        nll = torch.cat([torch.zeros(len(rules), BLOCK - known.shape[1]), nll], 1)
        last = logits[:, -1]
        now = state["layers"][layer]["fading"]["log_decay"].mean(1)
        good = nll.mean(1) < clocks.mean
        ticks = clocks.ticks(nll, now - forgot, switched[begin : begin + BLOCK])
        forgot = now
        ran += ticks[:, rules.index(Rule())].sum(1) if Rule() in rules else 0
        memories.end(ticks[which, torch.arange(len(rules))], good, regime[begin : begin + BLOCK])
        nats.append(nll)
    return torch.cat(nats, 1).numpy(), dict(zip(CLOCKS, (ran / length).tolist()))


# Reports


def speeds(model, stream: Stream) -> dict[str, float]:
    _, measured = read(model, stream, [Rule(newest=0), Rule()], {}, 1, None)
    return {clock: max(speed, 1e-6) for clock, speed in measured.items()}


def choose(tables: list[np.ndarray], rules: list[Rule]) -> dict[str, int]:
    """Of each family, the rule with the least nats; tables (B,) of one stream each."""
    mean, best = np.mean(tables, 0), {}
    for i, rule in enumerate(rules):
        if rule.family not in best or mean[i] < mean[best[rule.family]]:
            best[rule.family] = i
    return best


def table(streams, results, rules, near: int, folds, against: str) -> list[dict]:
    """folds: (streams to choose on, streams to report); results: nats (B, N) of each stream.

    Means over reported streams, and the difference from the rule `against` with its standard error over them."""
    skip, rows = BLOCK, {}
    masks = [{name: m[: r.shape[1]] for name, m in s.parts(near).items()} for s, r in zip(streams, results)]
    for mask in masks:
        for part in mask.values():
            part[:skip] = False

    def mean(i, part):
        return results[i][:, masks[i][part]].mean(1)

    for tune, report in folds:
        best = choose([mean(i, "all") for i in tune], rules)
        for family, which in best.items():
            row = rows.setdefault(family, {"rule": family, "rate": [], "parts": {}})
            row["rate"].append(rules[which].newest or rules[which].rate)
            for part in ("all", "new", "back", "rest"):
                row["parts"].setdefault(part, [])
                row["parts"][part] += [
                    (float(mean(i, part)[which]), float(mean(i, part)[best[against]]))
                    for i in report
                    if masks[i][part].any()
                ]
    for row in rows.values():
        for part, pairs in row["parts"].items():
            ours, fixed = np.array(pairs).T if pairs else (np.array([np.nan]),) * 2
            less = ours - fixed
            error = less.std(ddof=1) / math.sqrt(len(less)) if len(less) > 1 else float("nan")
            row["parts"][part] = {"nats": ours.mean(), "less": less.mean(), "error": error}
    return sorted(rows.values(), key=lambda row: row["parts"]["all"]["nats"])


def show(rows: list[dict], title: str, against: str) -> None:
    print(f"\n{title}; less than: {against}\n")
    print("| rule | rate | all | new | back | rest | all, less | new, less | back, less |\n" + "|---" * 9 + "|")
    for row in rows:
        part = row["parts"]
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(row["rate"])))
        cells = " | ".join(f"{part[name]['nats']:.3f}" for name in ("all", "new", "back", "rest"))
        less = " | ".join(f"{part[p]['less']:+.4f} ± {part[p]['error']:.4f}" for p in ("all", "new", "back"))
        print(f"| {row['rule']} | {rates} | {cells} | {less} |")
    print(flush=True)


def check(model, stream: Stream, clock: str, theirs: str, rate: float, k: int, hedged: bool = False) -> float:
    """The largest difference in nats between `read` and the library on a store without a budget."""
    layers, asked = [looks(model)], [Rule(newest=0), Rule(), Rule(newest=NEWEST), Rule(clock, rate)]
    ours, _ = read(model, stream, asked, {}, k, None)
    ours = hedge(ours, asked)[0][-1] if hedged else ours[-1]
    length = len(ours)
    tokens, parts, state = torch.from_numpy(stream.tokens[:length])[None], [], None
    store = open_store("ram:", store_schema(model, layers, "float32"), write=True)
    with torch.inference_mode(), store, store.document(stream.name) as writing:
        reader = attached = Attached(model, store, k=k, rate=rate, writing=writing, clock=theirs)
        if hedged:
            whole, newest = (Attached(model, store, k=k, own=writing.id, newest=n) for n in (None, NEWEST))
            reader = Hedged([model, whole, newest, attached])
        for part in tokens.split(256, 1):
            logits, state = reader(part, state)
            parts.append(logits)
        attached.finish(state["readers"][-1] if hedged else state)
    nats = cross_entropy(torch.cat(parts, 1)[0, :-1], tokens[0, 1:], reduction="none")
    return float((nats - torch.from_numpy(ours[1:])).abs().max())


def main() -> None:
    global BLOCK
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=("markov", "series", "text"))
    parser.add_argument("--data", type=existing, nargs="+", help="series: a folder; text: files")
    parser.add_argument(
        "--model", type=existing_folder, help="text: a folder with a model of one layer that looks things up"
    )
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument(
        "--tokens", type=int, default=2000, help="of a stream; of a series, those about its last windows"
    )
    parser.add_argument("--entries", type=int, default=40, help=f"a store's budget, of {BLOCK} tokens each; 0 for none")
    parser.add_argument("--clocks", nargs="+", choices=CLOCKS, default=CLOCKS)
    parser.add_argument("--refreshed", nargs="*", choices=CLOCKS, default=["tokens", "overflow 5"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.004, 0.016, 0.064])
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of training")
    parser.add_argument(
        "--check", action="store_true", help="hold the first 600 tokens against solomonic.retrieval.attach"
    )
    parser.add_argument("--json", type=new_file)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.kind == "markov":
        task, steps, batch, near = Rows("markov", SYMBOLS, markov_rows), 500, 16, 64
        streams = [markov_stream(seed, args.tokens) for seed in range(args.streams)]
    elif args.kind == "series":
        if not args.data:
            parser.error("series: --data FOLDER is needed, with *.csv and nab_windows.json")
        labelled = series(existing_folder(args.data[0], "nab_windows.json"))
        task = Rows("series", LEVELS, series_rows([x[: int(SHARE * len(x))] for _, x, _ in labelled]))
        steps, batch, near = 220, 8, 128
        streams = []
        for name, x, regime in labelled:
            end = np.flatnonzero(regime)[-1] + args.tokens // 5
            part = slice(max(int(SHARE * len(x)), end - args.tokens), end)
            streams.append(Stream(name, x[part], regime[part]))
    else:
        if not args.data or not args.model:
            parser.error("text: --model FOLDER and --data FILES are needed")
        texts = [existing_file(path).read_bytes() for path in args.data]
        model, tokenizer = load(existing_folder(args.model, "config.json"))
        BLOCK, near = model.blocks[looks(model)].mixer.config.block_size, 256
        parts = [tokenizer.encode(text[len(text) // 3 :]) for text in texts]  # what benchmarks/novels.py leaves out
        streams = [text_stream(parts, seed, args.tokens) for seed in range(args.streams)]
    if args.kind != "text":
        model = trained(task, args.steps or steps, batch, 1e-2)
    if args.check:
        first = replace(streams[0], tokens=streams[0].tokens[:600], regime=streams[0].regime[:600])
        for clock, theirs, hedged in (
            ("tokens", "tokens", False),
            ("surprise", "surprise", False),
            ("overflow 5", "change", False),
            ("overflow 5", "change", True),
        ):
            most = check(model, first, clock, theirs, 0.05, args.k, hedged)
            print(f"{clock}, hedged {hedged}: differs from the library by {most:.1e} nats at most", flush=True)
    speed, asked, results = speeds(model, streams[0]), rules(args.clocks, args.rates, args.refreshed), []
    print("speeds, a token: " + ", ".join(f"{clock} {s:.4g}" for clock, s in speed.items()), flush=True)
    for stream in streams:
        began = time.monotonic()
        nats, mixed = hedge(read(model, stream, asked, speed, args.k, args.entries or None)[0], asked)
        results.append(nats)
        known = "" if stream.best is None else f", who knows the source {stream.best[BLOCK:].mean():.3f}"
        print(f"{stream.name}: {results[-1].shape[1]} tokens, {time.monotonic() - began:.0f} s{known}", flush=True)
    each = range(len(streams))
    folds = [([j for j in each if j != i] or [i], [i]) for i in each]
    for against in ("no decay", "tokens"):
        rows = table(streams, results, [*asked, *mixed], near, folds, against)
        show(rows, f"{args.kind}, {args.entries or 'all'} entries, after a switch: {near} tokens", against)
    if args.json:
        write(args.json, json.dumps({"speeds": speed, "rows": rows}, indent=1, default=float))


if __name__ == "__main__":
    main()
