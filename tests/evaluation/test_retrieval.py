"""Passkey and needle: the number is where it should be, a model that copies finds it, another one guesses."""

import numpy as np
import pytest
import torch

from solomonic.data.tokenizer import Tokenizer
from solomonic.evaluation.retrieval import CHOICES, KINDS, prompt, retrieval, shortest

from .models import TEXT, Copier, bpe, small

TOKENIZERS = {"bytes": Tokenizer.for_bytes(), "bpe": bpe()}
DOCUMENTS = {name: [t.encode(TEXT[:n]) for n in (50, 0, 400)] for name, t in TOKENIZERS.items()}
WORDS = {"passkey": "The pass key is ", "needle": " opens with "}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_the_number_is_at_its_depth_and_the_prompt_has_its_length(kind, name, depth):
    tokenizer = TOKENIZERS[name]
    for length in (shortest(kind, tokenizer), 500, 2001):
        one = prompt(kind, tokenizer, length, depth, np.random.default_rng(3), DOCUMENTS[name])
        number = tokenizer.decode(one.answers[one.right]).strip()
        assert one.tokens.shape == (length,) and one.tokens.dtype == np.int64
        said = tokenizer.decode(one.tokens[one.place :])
        assert said.startswith("\n") and WORDS[kind] + number in said[:60]
        text = tokenizer.decode(one.tokens)
        assert text.count(WORDS[kind] + number) == 1 and text.endswith(WORDS[kind].rstrip())
        sizes = [len(tokenizer.encode(text[: text.index("\n", 1) + 1])) if kind == "passkey" else 0]
        sizes.append(len(tokenizer.encode(said[: said.index("\n", 1) + 1])))
        sizes.append(len(tokenizer.encode(text[text.rindex("\n") :])))
        assert one.place == sizes[0] + round(depth * (length - sum(sizes)))


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_a_function_of_their_arguments(kind):
    def ask(seed, depth=0.5):
        return prompt(kind, TOKENIZERS["bytes"], 600, depth, np.random.default_rng(seed), DOCUMENTS["bytes"])

    first, again, other, deeper = ask(1), ask(1), ask(2), ask(1, 0.9)
    assert np.array_equal(first.tokens, again.tokens) and first.right == again.right
    assert not np.array_equal(first.tokens, other.tokens)
    assert deeper.place > first.place and sorted(deeper.tokens) == sorted(first.tokens)
    assert all(np.array_equal(a, b) for a, b in zip(first.answers, deeper.answers))


def test_choices_are_different_numbers_and_the_right_one_is_anywhere():
    places = []
    for seed in range(200):
        one = prompt("passkey", TOKENIZERS["bytes"], 300, 0.5, np.random.default_rng(seed))
        words = [TOKENIZERS["bytes"].decode(answer) for answer in one.answers]
        assert len(set(words)) == CHOICES and all(len(word) == 6 and word[0] == " " for word in words)
        places.append(one.right)
    assert set(places) == set(range(CHOICES)) and max(np.bincount(places)) < 50


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_model_that_copies_finds_every_number(kind, name):
    tokenizer, told = TOKENIZERS[name], []
    settings = {"samples": 4, "batch": 3, "chunk": 50, "documents": DOCUMENTS[name], "report": told.append}
    cells = list(retrieval(Copier(tokenizer.vocab_size), tokenizer, kind, (300, 401), (0, 0.5, 1), **settings))
    assert [(cell.length, cell.depth) for cell in cells] == [(n, d) for n in (300, 401) for d in (0, 0.5, 1)]
    assert all(cell.exact == cell.chosen == 1 for cell in cells) and sum(told) == 3 * 4 * (300 + 401)


def test_a_model_that_knows_nothing_guesses():
    tokenizer, model = TOKENIZERS["bytes"], small()
    [cell] = retrieval(model, tokenizer, "passkey", [200], [0.5], samples=80)
    assert cell.exact == 0 and 0 < cell.chosen < 0.3
    torch.nn.init.zeros_(model.head.weight)  # all numbers are as likely
    [cell] = retrieval(model, tokenizer, "passkey", [200], [0.5], samples=80)
    assert cell.exact == 0 and 0 < cell.chosen < 0.3


def test_batches_and_chunks_change_nothing():
    def cells(batch, chunk):
        settings = {"samples": 6, "documents": DOCUMENTS["bytes"], "batch": batch, "chunk": chunk}
        return list(retrieval(small("mamba2"), TOKENIZERS["bytes"], "needle", [200], [0.2, 0.8], **settings))

    assert cells(8, 2048) == cells(1, 64) == cells(4, 31)


@pytest.mark.parametrize(
    "kind, length, depth, documents, says",
    [
        ("needel", 500, 0.5, (), "unknown retrieval 'needel': did you mean 'needle'?"),
        ("passkey", 20, 0.5, (), "passkey: expected a length of .* tokens or more, .* got 20"),
        ("needle", 500, 0.5, (), "expected documents to hide a number in, got none"),
        ("passkey", 500, 1.5, (), r"depth: expected a number in \[0, 1\], got 1.5"),
    ],
)
def test_what_cannot_be_asked(kind, length, depth, documents, says):
    with pytest.raises(ValueError, match=says):
        prompt(kind, TOKENIZERS["bytes"], length, depth, np.random.default_rng(0), documents)
