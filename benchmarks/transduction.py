"""A model that has learnt to answer by labelled examples, and labelled sets for `solomonic transduce` that it has not seen.

    python benchmarks/transduction.py data --books DIR --babi DIR --out data
    python benchmarks/transduction.py model --shakespeare FILE --books DIR --out model [--steps N]

`data` writes, each in a training and a test half without a text in common,

    actions.*.jsonl   bAbI sentences with what is done in them
    books.*.jsonl     sentences of three novels with the book
    names.*.jsonl     names of two words, each of one of the novels alone, with the book

`model` trains a B'MOJO on episodes: classes under names drawn anew for each, told by one of a few words among others that
tell nothing. A row has some examples and finds those in the other rows of its episode (`ops.neighbours`), as a question finds
stored ones: the first answer of a row has nothing else to go by. Episodes grow, from texts of one word and two classes. No
text, class or name of the sets is in them. docs/transduction.md has the commands that follow, and the results.
"""

import argparse
import json
import random
import re
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from command_common import existing_file, existing_folder, new_folder
from lookup_common import bpe, looking
from torch.nn.functional import cross_entropy

from solomonic import LanguageModel, preset
from solomonic.checkpoints import folder
from solomonic.data.tokenizer import Tokenizer
from solomonic.retrieval.neighbours import Neighbours
from solomonic.tasks.base import IGNORE
from solomonic.training.config import TrainConfig
from solomonic.training.lookup import LookupRows
from solomonic.training.optimizer import build_optimizer
from solomonic.training.rows import Rows, TokenizedText

BOOKS = {"bleak-house": "bleak house", "ulysses": "ulysses", "war-and-peace": "war and peace"}
SHORT = {file: name.split()[0] for file, name in BOOKS.items()}
ACTIONS = {
    "move": ("moved", "went", "journeyed", "travelled"),
    "take": ("got", "grabbed", "picked", "took"),
    "drop": ("discarded", "dropped", "left", "put"),
}
TOKENS, LONG = 3072, 480  # of a step, and of an episode
VOCABULARY, LOOKS, FOUND = 2048, 1, 4  # the layer that looks things up, and how many tokens a head finds


class Words:
    """What episodes are made of: words of a text, and where they stand."""

    def __init__(self, text: str):
        self.words = re.findall(r"[A-Za-z']+", text)
        self.places = defaultdict(list)
        for at, word in enumerate(self.words):
            self.places[word.lower()].append(at)
        self.keys = [word for word, at in self.places.items() if len(word) > 3 and 5 < len(at) < 600]
        unseen = {word for name in (*ACTIONS, *BOOKS.values()) for word in name.split()}
        self.names = [w for w in self.places if 2 < len(w) < 9 and w.isalpha() and w not in unseen]


class Episode:
    """grown: from 0, two classes told by one word each and nothing else in a text, to 1, four told by three each."""

    def __init__(self, words: Words, grown: float, draw: random.Random):
        self.words, self.draw = words, draw
        most = 1 + round(2 * grown)
        named = draw.sample(words.names, draw.randint(2, 2 + round(2 * grown)))
        self.classes = [(draw.sample(words.keys, draw.randint(1, most)), name) for name in named]
        self.others = draw.sample(words.keys, draw.randint(4, 12))
        self.longest = round(6 * max(0.0, grown - 0.15) / 0.85)
        self.made = draw.random() < 0.5  # of words that come again in other classes, or as they stand in the text

    def example(self) -> tuple[str, str]:
        draw, half = self.draw, self.longest // 2
        keys, name = draw.choice(self.classes)
        key = draw.choice(keys)
        if self.made:
            text = [draw.choice(self.others) for _ in range(draw.randint(0, self.longest))]
            text.insert(draw.randint(0, len(text)), key)
        else:
            at = draw.choice(self.words.places[key])
            text = self.words.words[max(0, at - draw.randint(0, half)) : at + 1 + draw.randint(0, half)]
        return f"{' '.join(text)}\n=> ", f"{name}\n"


class Episodes:
    """What a step reads: rows of some episodes, where answers are scored, and a few of plain text."""

    def __init__(self, text: str, tokenizer: Tokenizer):
        self.words, self.tokenizer, self.plain = Words(text), tokenizer, tokenizer.encode(text)
        self.draw = random.Random(0)

    def row(self, episode: Episode, length: int) -> tuple[list[int], list[int]]:
        tokens, targets = [], []
        while len(tokens) <= length:
            question, answer = (self.tokenizer.encode(part).tolist() for part in episode.example())
            tokens += question + answer
            targets += [IGNORE] * len(question) + answer
        return tokens[: length + 1], targets[: length + 1]

    def batch(self, grown: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """tokens, targets (B, T), may_see (B, B), and (B,) whether a row is of an episode."""
        length = self.draw.choice([24, 48] if grown < 0.5 else [24, 48, 96])
        each, rows, of = max(2, min(16, LONG // length)), [], []
        for number in range(max(1, TOKENS * 5 // 6 // (length * each))):
            episode = Episode(self.words, grown, self.draw)
            rows += [self.row(episode, length) for _ in range(each)]
            of += [number] * each
        for _ in range(max(1, TOKENS // 6 // length)):
            at = self.draw.randrange(len(self.plain) - length - 1)
            rows.append((self.plain[at : at + length + 1].tolist(),) * 2)
            of.append(-1)
        tokens, targets, of = (torch.tensor(x) for x in (*zip(*rows), of))
        may_see = (of[:, None] == of) & ~torch.eye(len(of), dtype=torch.bool)
        return tokens[:, :-1], targets[:, 1:], may_see, of >= 0


def model(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    text = args.shakespeare.read_text()
    tokenizer = Tokenizer(bpe([text, *(body(args.books, file)[:200_000] for file in BOOKS)], VOCABULARY))
    episodes = Episodes(text, tokenizer)
    torch.manual_seed(0)
    config = preset(
        "bmojo", vocab_size=VOCABULARY, d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, window=32, capacity=96, conv=4
    )
    net = LanguageModel(looking(config, LOOKS))
    train = TrainConfig(args.steps, 1, 6e-3, fading_dropout=1.0)
    optimizer = build_optimizer(net, train)
    plain = Rows(TokenizedText(episodes.plain, np.array([0]), len(text)), 384, 12, seed=0)
    copying = LookupRows(plain, 0.5, 10 * WARM, VOCABULARY, tokenizer.end)
    began, right = time.monotonic(), []
    for step in range(args.steps):
        stores = answers = None
        if step < WARM:
            batch = copying.batch(step)
            tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        else:
            grown = min(1.0, (step - WARM) / (0.7 * (args.steps - WARM)))
            tokens, targets, may_see, answers = episodes.batch(grown)
            stores = [Neighbours(may_see, FOUND, True) if i == LOOKS else None for i in range(len(net.blocks))]
        for group in optimizer.param_groups:
            group["lr"] = train.rate(step)
        dropped = replace(train, batch_size=len(tokens)).dropped(step)
        logits, _ = net(tokens, stores=stores, dropped=dropped)
        weight = (targets != IGNORE).float()
        if answers is not None:
            weight = torch.where(answers[:, None], weight, 0.3)
            begins = (targets != IGNORE) & answers[:, None]
            begins[:, 1:] &= targets[:, :-1] == IGNORE
            right.append((logits.argmax(-1) == targets)[begins].float().mean().item())
        nats = cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")
        optimizer.zero_grad()
        (nats * weight).sum().div(weight.sum()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), train.clip)
        optimizer.step()
        if step % 50 == 49:
            shown = f", answers that begin right {np.mean(right[-50:]):.3f}" if right else ""
            print(f"step {step + 1} of {args.steps}{shown}, {time.monotonic() - began:.0f} s", flush=True)
    folder.save(args.out, net.eval(), tokenizer)


WARM = 150
"""Steps on random tokens of which a passage comes back (`pretrain.lookup`), before the first episode."""


def names(folder: Path, each: int, draw: random.Random) -> list[tuple[str, str]]:
    """Two capitalised words that stand side by side three times or more in one of the books, never in another."""
    counts = {
        file: Counter(
            re.findall(r"(?<=[a-z,;] )[A-Z][a-z]+ [A-Z][a-z]+(?![\w-])", " ".join(body(folder, file).split()))
        )
        for file in BOOKS
    }
    labelled = []
    for file in BOOKS:
        others = {name for other in BOOKS if other != file for name in counts[other]}
        mine = sorted(name for name, n in counts[file].items() if n > 2 and name not in others)
        labelled += [(name, SHORT[file]) for name in draw.sample(mine, min(each, len(mine)))]
    return labelled


def body(folder: Path, file: str) -> str:
    """Without the licence at both ends."""
    text = (folder / f"{file}.txt").read_text(encoding="utf-8-sig")
    return text[len(text) // 20 : -len(text) // 20]


def books(folder: Path, each: int, draw: random.Random) -> list[tuple[str, str]]:
    labelled = []
    for file, name in BOOKS.items():
        text = " ".join(body(folder, file).split())
        sentences = {s for s in re.split(r"(?<=[.!?]) ", text) if 40 <= len(s) <= 120}
        labelled += [(sentence, name) for sentence in draw.sample(sorted(sentences), each)]
    return labelled


def actions(folder: Path) -> list[tuple[str, str]]:
    sentences = set()
    for file in sorted(folder.glob("qa*.txt")):
        sentences |= {line.split(" ", 1)[1] for line in file.read_text().splitlines() if "?" not in line}
    label = {verb: name for name, verbs in ACTIONS.items() for verb in verbs}
    return [(sentence, label[sentence.split()[1]]) for sentence in sorted(sentences)]


def split(examples: list[tuple[str, str]], draw: random.Random) -> tuple[list, list]:
    """Half and half, no text in both."""
    assert len({text for text, _ in examples}) == len(examples)
    draw.shuffle(examples)
    return examples[: len(examples) // 2], examples[len(examples) // 2 :]


def data(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for name, examples in (
        ("books", books(args.books, args.each, draw)),
        ("actions", actions(args.babi)),
        ("names", names(args.books, 100, random.Random(0))),
    ):
        for part, those in zip(("train", "test"), split(examples, draw)):
            rows = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in those)
            (args.out / f"{name}.{part}.jsonl").write_text(rows)
            print(name, part, dict(Counter(label for _, label in those)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for what in (data, model):
        command = commands.add_parser(what.__name__)
        command.set_defaults(call=what)
        command.add_argument(
            "--books", type=existing_folder, required=True, metavar="DIR", help="with " + ", ".join(BOOKS)
        )
        command.add_argument("--out", type=new_folder, required=True, metavar="DIR")
        if what is data:
            command.add_argument(
                "--babi", type=existing_folder, required=True, metavar="DIR", help="bAbI tasks, qa*.txt"
            )
            command.add_argument("--each", type=int, default=200, metavar="N", help="sentences of each book (200)")
        else:
            command.add_argument("--shakespeare", type=existing_file, required=True, metavar="FILE")
            command.add_argument("--steps", type=int, default=1500, metavar="N")
    args = parser.parse_args()
    existing_folder(args.books, *(f"{name}.txt" for name in BOOKS))
    args.call(args)


if __name__ == "__main__":
    main()
