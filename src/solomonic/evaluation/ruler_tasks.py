"""The prompts of RULER's thirteen tasks, of any length, and their answers; `ruler.py` scores them.

Every draw depends on the generator alone up to where a longer prompt needs more: the same question at every length.
"""

import math
import re
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from .prompts import LONG, Draft, between
from .questions import Questions
from .retrieval import FILLER, NAMES

NOISE = FILLER.strip()
SENTENCES = re.split(r"(?<=[.]) ", NOISE)
ADJECTIVES = (
    "amber ancient bitter blue bold brave bright broad broken calm careful clever cold copper crooked damp dark deep "
    "distant dry dusty early empty even faint fast fine flat fresh gentle golden grand green grey heavy hidden hollow "
    "honest humble icy idle iron late lively lonely long loud low mellow narrow new noble old open pale patient plain "
    "proud quick quiet rapid rare red rough round rusty salty sharp short silent silver simple slow small smooth soft "
    "solid sour steady steep still stony strange strong sweet swift tall thin tidy tiny upper warm weak white wide wild "
    "windy wise wooden yellow young"
).split()
NOUNS = (
    "anchor apple arrow barn basket beacon bell bench birch boat bottle bridge brook bucket button cabin candle canyon "
    "carpet castle cellar chair cherry clock cloud coat comet corner cradle creek crown curtain desert door drum eagle "
    "engine falcon feather fence ferry field flute forest fountain garden gate glove hammer harbour hat hill horse "
    "island jacket kettle key ladder lake lantern leaf lemon letter lighthouse map maple market meadow mill mirror "
    "mountain needle oak ocean orchard oven paddle palace path pebble pencil pepper pillow plum pocket pond quarry "
    "river road roof rope saddle sail shelf shore spoon stable stair stone street table thimble tower tunnel valley "
    "village violin wagon wall well wheel whistle willow window"
).split()
SURNAMES = "Abara Brandt Castell Dvorak Ekholm Farran Gruber Haddad Ivers Jansen Kaplan Lindqvist Moreau Novak".split()
FAVOURITES = {
    "drink": "apple juice,black tea,cocoa,coffee,ginger beer,lemonade,milk,mint tea".split(","),
    "animal": "badger,crane,hedgehog,lynx,otter,raven,seal,tortoise".split(","),
    "colour": "crimson,emerald,indigo,ochre,scarlet,teal,turquoise,violet".split(","),
    "game": "backgammon,checkers,chess,dominoes,go,hopscotch,marbles,rummy".split(","),
    "fruit": "apricot,banana,fig,grapefruit,mango,papaya,pomegranate,quince".split(","),
}
PARAGRAPH = 600  # characters of a paragraph of the text, and no more than a sentence beyond
CODED = 6  # letters of a word of fwe
ZETA_2 = math.pi**2 / 6


@dataclass(frozen=True)
class Source:
    """What prompts are made of: a text, and where they are given, questions for qa_1 and qa_2."""

    text: str
    questions: tuple[Questions | None, Questions | None] = (None, None)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("text: expected a text that prompts are filled with, got an empty one; pass more text")

    @cached_property
    def words(self) -> list[str]:
        """Words for cwe: those of the lists here, then other words of the text, in alphabetical order."""
        ours = sorted({*ADJECTIVES, *NOUNS})
        return ours + sorted({*re.findall(r"\b[a-z]{4,10}\b", self.text)} - {*ours})

    def stretch(self, size: int, rng: np.random.Generator) -> str:
        """`size` characters from a random place on, from the beginning again where the text ends."""
        start = int(rng.integers(len(self.text)))
        part = self.text[start : start + size]
        return (
            part + self.text * ((size - len(part)) // len(self.text)) + self.text[: (size - len(part)) % len(self.text)]
        )


def _niah(
    rng: np.random.Generator,
    source: Source,
    length: int,
    haystack: str,
    key: str = "word",
    value: str = "number",
    keys: int = 1,
    values: int = 1,
    asked: int = 1,
) -> Draft:
    """A sentence for each of `values` values of `keys` keys, and a question about `asked` of the keys."""
    made = list(dict.fromkeys(_one(key, rng) for _ in range(4 * keys)))[:keys]
    of = {k: [_one(value, rng) for _ in range(values)] for k in made}
    sentences = [f"The secret {value} of {k} is {v}." for k in made for v in of[k]]
    sentences = [sentences[i] for i in rng.permutation(len(sentences))]
    depths, content_seed = np.sort(rng.random(len(sentences))), rng.integers(2**32)
    chosen = [made[i] for i in rng.permutation(keys)[:asked]]
    answers = [v for k in chosen for v in of[k]]
    if haystack == "text":
        units, most = _text_with(source, length, sentences, depths, rng)
    else:
        units, most = _lines_with(haystack, key, value, made, length, sentences, depths, int(content_seed))
    one, what = len(answers) == 1, _joined(chosen)
    head = f"A secret {value} is" if one else f"Secret {value}s are"
    verb, plural = ("is", "") if one else ("are", "s")
    question = (
        f"Which secret {value}{plural} of {what} {verb} in the text above? The secret {value}{plural} of {what} {verb}"
    )

    def text(n: int) -> str:
        return (
            f"{head} hidden in the text below. Remember what is said there, it will be asked.\n{units(n)}\n{question}"
        )

    return Draft(text, answers, " " + _joined(answers), most)


def _text_with(
    source: Source, length: int, sentences: list[str], depths: np.ndarray, rng: np.random.Generator
) -> tuple[Callable[[int], str], int]:
    """Units are sentences or lines of the text; `sentences` stand between them."""
    text = source.stretch(8 * length + 1000, rng)
    ends = [0, *(match.end() for match in re.finditer(r"[.!?]\s+|\n+", text))]
    if ends[-1] < len(text):
        ends.append(len(text))

    def units(n: int) -> str:
        at = [ends[int(depth * (n + 1))] for depth in depths]
        parts = (text[a:b] for a, b in zip([0, *at], [*at, ends[n]]))
        return "".join(part + f"{sentence} " * bool(sentence) for part, sentence in zip(parts, [*sentences, ""]))

    return units, len(ends) - 1


def _lines_with(
    haystack: str,
    key: str,
    value: str,
    made: list[str],
    length: int,
    sentences: list[str],
    depths: np.ndarray,
    seed: int,
) -> tuple[Callable[[int], str], int]:
    """Units are lines: one sentence over and over, or other needles; `sentences` stand between them."""
    lines: list[str] = [NOISE] * length if haystack == "noise" else []
    rng = np.random.default_rng(seed)

    def units(n: int) -> str:
        while len(lines) < n:
            if (other := _one(key, rng)) not in made:
                lines.append(f"The secret {value} of {other} is {_one(value, rng)}.")
        return "\n".join(between(lines[:n], sentences, depths))

    return units, length


def _one(kind: str, rng: np.random.Generator) -> str:
    if kind == "word":
        return f"{ADJECTIVES[rng.integers(len(ADJECTIVES))]}-{NOUNS[rng.integers(len(NOUNS))]}"
    return str(rng.integers(10**6, 10**7)) if kind == "number" else str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _vt(rng: np.random.Generator, source: Source, length: int, hops: int = 4) -> Draft:
    """One chain in sentences that repeat, after a short example with its answer. A unit is a sentence."""
    example, answers = _chain(rng, hops, 3)
    main, variables = _chain(rng, hops, 5)
    head = f"{example(hops + 1)} {' '.join(answers)}\n\n"
    return Draft(lambda n: head + main(n), variables, " " + " ".join(variables), length, hops + 1)


def _chain(rng: np.random.Generator, hops: int, letters: int) -> tuple[Callable[[int], str], list[str]]:
    value, depths = rng.integers(10000, 100000), np.sort(rng.random(hops + 1))
    names: list[str] = []
    while len(names) < hops + 1:
        name = "".join(rng.choice(list(string.ascii_uppercase), letters))
        names += [name] * (name not in names)
    given = [str(value), *(f"VAR {name}" for name in names)]
    lines = [f"VAR {name} = {what}" for name, what in zip(names, given)]

    def text(n: int) -> str:
        body = "\n".join(between((SENTENCES * (n // len(SENTENCES) + 1))[:n], lines, depths))
        return (
            f"Variables are assigned in the text below. Keep in mind which holds what.\n\n{body}\n"
            f"Which variables hold the value {value} in the text above? By the assignments of the text, {len(names)} "
            f"variables hold the value {value}:"
        )

    return text, names


def _cwe(rng: np.random.Generator, source: Source, length: int, common: int = 10) -> Draft:
    """Ten words come often, the others seldom, after an example with its answer. A unit is a word that may come often or not."""
    long = length >= LONG  # RULER: from 4,096 on, of which a tokenizer of bytes has not enough
    order = [source.words[i] for i in rng.permutation(len(source.words))]
    sizes = (40, 10, 3) if long else (20, 3, 1)
    shown = _listed(order[: sizes[0]], common, *sizes[1:], seed=int(rng.integers(2**32)))
    head = f"{shown} {_numbered(order[:common])}\n"
    others, seed = order[sizes[0] :], int(rng.integers(2**32))

    def text(n: int) -> str:
        return head + _listed(others[:n], common, *((30, 3) if long else (6, 1)), seed=seed)

    return Draft(text, others[:common], " " + _numbered(others[:common]), len(others), common + 1)


def _listed(words: list[str], common: int, often: int, seldom: int, seed: int) -> str:
    every = words[:common] * often + words[common:] * seldom
    order = np.random.default_rng(seed).permutation(len(every))
    return (
        "Some words of the numbered list below come more often than the others. Keep in mind which.\n"
        f"{_numbered([every[i] for i in order])}\n"
        f"Which {common} words come most often in the list above? The {common} words that come most often are:"
    )


def _numbered(words: list[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def _fwe(rng: np.random.Generator, source: Source, length: int) -> Draft:
    """The word of rank k comes n k^-2 / zeta(2) times; the first is noise, the next three are asked. A unit is a word."""
    vocabulary, least, seed = max(20, length // 50), 100, int(rng.integers(2**32))
    letters = rng.integers(26, size=(2 * vocabulary, CODED))
    coded = list(dict.fromkeys("".join(string.ascii_lowercase[i] for i in row) for row in letters))[:vocabulary]
    words = np.array(["...", *coded[1:]])

    def text(n: int) -> str:
        counts = (n / ZETA_2 / np.arange(1, len(words) + 1) ** 2.0).astype(int)
        row = np.random.default_rng(seed).permutation(np.repeat(words, counts))
        return (
            "The text below is made of coded words, some of which come more often than others. Count them.\n"
            f"{' '.join(row)}\n"
            "Which three coded words come most often in the text above, the dots left aside? They are:"
        )

    return Draft(text, coded[1:4], " " + " ".join(coded[1:4]), length, least)


def _qa(rng: np.random.Generator, source: Source, length: int, hops: int) -> Draft:
    """A question, its paragraphs and others. A unit is a paragraph that is none of the question's, those near it first."""
    given = source.questions[hops - 1]
    if given is None:
        question, answers, gold, others = _made(rng, source, length, hops)
    else:
        asked = given.questions[int(rng.integers(len(given.questions)))]
        question, answers = asked.text, asked.answers
        gold = [given.paragraphs[i] for i in asked.gold]
        rest = np.setdiff1d(np.arange(len(given.paragraphs)), [*asked.gold, *asked.near])
        pick = [*rng.permutation(asked.near), *rng.permutation(rest)][: length // 8 + 1]
        others = [given.paragraphs[int(i)] for i in pick]
    depths = np.sort(rng.random(len(gold)))
    gold = [gold[i] for i in rng.permutation(len(gold))]
    order = np.arange(len(others)) if given is None else rng.permutation(len(others))

    def text(n: int) -> str:
        paragraphs = between([others[i] for i in order if i < n], gold, depths)
        body = "\n\n".join(f"Document {i}:\n{one}" for i, one in enumerate(paragraphs, 1))
        ask = "Answer the question by what the documents say, with the answer alone."
        return f"{ask}\n\n{body}\n\n{ask}\n\nQuestion: {question}\nAnswer:"

    return Draft(text, answers, " " + max(answers, key=len), len(others), 0)


def _made(
    rng: np.random.Generator, source: Source, length: int, hops: int
) -> tuple[str, list[str], list[str], list[str]]:
    """A made question, its answers, its paragraphs, and others: each is of the text, with a fact of a person's in it."""
    things = list(FAVOURITES)
    people = [f"{name} {surname}" for name in NAMES for surname in SURNAMES]
    people = [people[i] for i in rng.permutation(len(people))]
    person, thing = people[hops - 1], things[rng.integers(len(things))]
    answer = str(rng.choice(FAVOURITES[thing]))
    facts = [f"The favourite {thing} of {person} is {answer}."]
    whose = person
    if hops == 2:
        facts, whose = [*facts, f"{person} is the neighbour of {people[0]}."], f"the neighbour of {people[0]}"
    number = len(facts) + length // 64 + 1
    text = source.stretch((PARAGRAPH + 400) * number, rng)
    paragraphs, start = [], 0
    for i in range(number):
        if i < len(facts):
            fact = facts[i]
        else:
            other, what = people[hops + i % (len(people) - hops)], things[rng.integers(len(things))]
            fact = f"The favourite {what} of {other} is {rng.choice(FAVOURITES[what])}."
        ends = [match.end() for match in re.finditer(r"[.!?\n]\s+", text[start : start + PARAGRAPH])] or [PARAGRAPH]
        middle, end = start + ends[rng.integers(len(ends))], start + ends[-1]
        paragraphs.append(f"{text[start:middle].strip()} {fact} {text[middle:end].strip()}".strip())
        start = end
    return f"What is the favourite {thing} of {whose}?", [answer], paragraphs[:hops], paragraphs[hops:]


TASKS: dict[str, tuple[Callable[..., Draft], int]] = {
    "niah_single_1": (partial(_niah, haystack="noise"), 128),
    "niah_single_2": (partial(_niah, haystack="text"), 128),
    "niah_single_3": (partial(_niah, haystack="text", value="uuid"), 128),
    "niah_multikey_1": (partial(_niah, haystack="text", keys=4), 128),
    "niah_multikey_2": (partial(_niah, haystack="needles"), 128),
    "niah_multikey_3": (partial(_niah, haystack="needles", key="uuid", value="uuid"), 128),
    "niah_multivalue": (partial(_niah, haystack="text", values=4), 128),
    "niah_multiquery": (partial(_niah, haystack="text", keys=4, asked=4), 128),
    "vt": (_vt, 30),
    "cwe": (_cwe, 120),
    "fwe": (_fwe, 50),
    "qa_1": (partial(_qa, hops=1), 32),
    "qa_2": (partial(_qa, hops=2), 32),
}
"""The thirteen tasks: what drafts a prompt, and the tokens that RULER lets a model generate."""


__all__ = ["TASKS", "Source"]
