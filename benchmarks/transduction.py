"""Labelled sets for `solomonic transduce`, and text to train a model on that shows it the form and not the classes.

    python benchmarks/transduction.py --shakespeare FILE --books DIR --babi DIR --out data

writes into data/

    actions.*.jsonl   bAbI sentences with what is done in them
    books.*.jsonl     sentences of three novels with the book
    names.*.jsonl     names of two words, each of one of the novels alone, with the book
    form.jsonl        episodes of Shakespeare for `solomonic train`: a few classes under names drawn anew for each

each set in a training and a test half without a text in common. docs/transduction.md has the commands that follow, and
the results.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

BOOKS = {"bleak-house": "bleak house", "ulysses": "ulysses", "war-and-peace": "war and peace"}
SHORT = {file: name.split()[0] for file, name in BOOKS.items()}
ACTIONS = {
    "move": ("moved", "went", "journeyed", "travelled"),
    "take": ("got", "grabbed", "picked", "took"),
    "drop": ("discarded", "dropped", "left", "put"),
}
EXAMPLE = "{}\n=> {}\n"


def form(text: str, count: int, draw: random.Random) -> list[dict[str, str]]:
    """Episodes: each class is a word that its texts have in common; three in four documents, the rest plain text."""
    words = re.findall(r"[A-Za-z']+", text)
    places = defaultdict(list)
    for at, word in enumerate(words):
        places[word.lower()].append(at)
    keys = [word for word, at in places.items() if len(word) > 3 and len(at) > 5]
    unseen = {word for name in (*ACTIONS, *BOOKS.values()) for word in name.split()}
    names = [word for word in places if 2 < len(word) < 9 and word.isalpha() and word not in unseen]
    found = []
    for number in range(count):
        if number % 4 == 3:
            start = draw.randrange(len(text) - 256)
            found.append({"text": text[start : start + 256]})
            continue
        classes = list(zip(draw.sample(keys, n := draw.randint(2, 4)), draw.sample(names, n)))
        lines = []
        for _ in range(draw.randint(6, 14)):
            key, name = draw.choice(classes)
            at = draw.choice(places[key])
            lines.append(
                EXAMPLE.format(" ".join(words[max(0, at - draw.randint(0, 2)) : at + 1 + draw.randint(0, 2)]), name)
            )
        found.append({"text": "".join(lines)})
    return found


def names(folder: Path, each: int, draw: random.Random) -> list[tuple[str, str]]:
    """Two capitalised words that stand side by side three times or more in one of the books, never in another."""
    counts = {
        file: Counter(
            re.findall(r"(?<=[a-z,;] )[A-Z][a-z]+ [A-Z][a-z]+(?![\w-])", " ".join(body(folder, file).split()))
        )
        for file in BOOKS
    }
    found = []
    for file in BOOKS:
        others = {name for other in BOOKS if other != file for name in counts[other]}
        mine = sorted(name for name, n in counts[file].items() if n > 2 and name not in others)
        found += [(name, SHORT[file]) for name in draw.sample(mine, min(each, len(mine)))]
    return found


def body(folder: Path, file: str) -> str:
    """Without the licence at both ends."""
    text = (folder / f"{file}.txt").read_text(encoding="utf-8-sig")
    return text[len(text) // 20 : -len(text) // 20]


def books(folder: Path, each: int, draw: random.Random) -> list[tuple[str, str]]:
    found = []
    for file, name in BOOKS.items():
        text = " ".join(body(folder, file).split())
        sentences = {s for s in re.split(r"(?<=[.!?]) ", text) if 40 <= len(s) <= 120}
        found += [(sentence, name) for sentence in draw.sample(sorted(sentences), each)]
    return found


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shakespeare", type=Path, required=True, metavar="FILE")
    parser.add_argument("--books", type=Path, required=True, metavar="DIR", help="with " + ", ".join(BOOKS))
    parser.add_argument("--babi", type=Path, required=True, metavar="DIR", help="bAbI tasks, qa*.txt")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--episodes", type=int, default=20_000, metavar="N")
    parser.add_argument("--each", type=int, default=200, metavar="N", help="sentences of each book (200)")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    written = {"form": form(chosen.shakespeare.read_text(), chosen.episodes, draw)}
    for name, examples in (
        ("books", books(chosen.books, chosen.each, draw)),
        ("actions", actions(chosen.babi)),
        ("names", names(chosen.books, 100, random.Random(0))),
    ):
        for part, those in zip(("train", "test"), split(examples, draw)):
            written[f"{name}.{part}"] = [{"text": text, "label": label} for text, label in those]
            print(name, part, dict(Counter(label for _, label in those)))
    for name, rows in written.items():
        (chosen.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
