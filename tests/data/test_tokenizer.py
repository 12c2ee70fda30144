"""Texts become tokens and come back, whatever is in them; bytes are what the tokenizers library makes of our file."""

import json
import random

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from solomonic.data.tokenizer import END, ENDS, Tokenizer, byte_vocab, end_tokens

SAMPLES = [
    "",
    "plain text",
    " spaces  and\ttabs\n\nand lines\r\n",
    "Grüße, Ωmega, 日本語, עברית, 🙂👩‍👩‍👧, e\u0301",
    "\x00\x01\x7f\u0080\xa0\xad\u0100\u200b\ufeff\ufffd\U0010ffff",
    f"a {END} b </s> <|endoftext|> [SEP] <|im_end|>",
    "".join(map(chr, range(0x250))),
]


def any_text(length: int, seed: int) -> str:
    draw = random.Random(seed)
    points = [
        draw.choice([draw.randrange(0x80), draw.randrange(0x800), draw.randrange(0x110000)]) for _ in range(length)
    ]
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


def byte_bpe() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3 and Qwen have it."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator([*SAMPLES, "the cat sat on the mat. the dog did not."] * 20, trainer)
    return inner


def unigram() -> tokenizers.Tokenizer:
    """As T5 has it: its model itself finds a special token in a text, as the likeliest piece."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁the", -2.0), ("▁cat", -3.0), ("at", -3.5)]
    pieces += [(c, -5.0) for c in "▁abcdehinorstum./<>|[]"]
    inner = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.add_special_tokens(["<unk>", "</s>"])
    return inner


def fallback() -> tokenizers.Tokenizer:
    """As Llama 2 and Mistral have it: pieces with ▁, bytes for what is unknown."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁abcdehinorstu./<>"]
    inner = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    return inner


def words() -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "the": 2, "cat": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["[UNK]"])
    return inner


FOREIGN = {"byte BPE": byte_bpe, "unigram": unigram, "byte fallback": fallback, "words": words}
foreign = pytest.mark.parametrize("name", FOREIGN)


@pytest.fixture(scope="module")
def built():
    return {name: make().to_str() for name, make in FOREIGN.items()}


@pytest.mark.parametrize("text", [*SAMPLES, *(any_text(400, seed) for seed in range(5))])
def test_bytes_are_what_the_library_makes_of_our_file(text):
    ours = Tokenizer.for_bytes()
    library = tokenizers.Tokenizer.from_str(ours.to_json())
    library.encode_special_tokens = True
    tokens = ours.encode(text)
    assert tokens.dtype == np.int64 and tokens.tolist() == list(text.encode())
    assert library.encode(text).ids == tokens.tolist()
    assert ours.decode(tokens) == library.decode(tokens.tolist()) == text


def test_bytes_that_are_no_text_stay_as_they_are():
    tokenizer = Tokenizer.for_bytes()
    data = bytes(range(256)) + b"\xe2\x82 \xf0\x9f\x99"
    assert tokenizer.encode(data).tolist() == list(data)
    assert tokenizer.encode(data.decode("utf-8", "surrogateescape")).tolist() == list(data)  # as in `sys.argv`
    assert tokenizer.decode(list(data)) == data.decode("utf-8", "replace")
    assert tokenizer.encode("a\ud800b").tolist() == list(b"a?b")  # as JSON may have it


@foreign
def test_foreign_tokenizers_take_any_text(built, name):
    tokenizer = Tokenizer.from_json(built[name])
    for text in [*SAMPLES, any_text(200, 9), "a\ud800b", b"\xff\xfe".decode("utf-8", "surrogateescape")]:
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.int64 and (tokens < tokenizer.vocab_size).all()
    if name in ("byte BPE", "byte fallback"):
        for text in [*SAMPLES, any_text(200, 9)]:
            text = text.replace("▁", "")
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(b"the \xff").tolist() == tokenizer.encode("the \ufffd").tolist()


@foreign
def test_foreign_tokenizers_encode_as_the_library_does(built, name):
    """But for the names of special tokens."""
    tokenizer, library = Tokenizer.from_json(built[name]), tokenizers.Tokenizer.from_str(built[name])
    for text in ["the cat sat on the mat.", "un mot écrit 日本", *SAMPLES[:5]]:
        assert tokenizer.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["bytes", *FOREIGN])
def test_pieces_are_what_tokens_give_inside_a_text(built, name):
    tokenizer = Tokenizer.for_bytes() if name == "bytes" else Tokenizer.from_json(built[name])
    text = {"words": "the", "unigram": "the cat meat"}.get(name, "on the mat: the cat é日")
    pieces = [tokenizer.piece(token) for token in tokenizer.encode(text).tolist()]
    assert b"".join(pieces).decode().strip() == text
    assert tokenizer.piece(tokenizer.end) is None and tokenizer.piece(10**6) is None


@pytest.mark.parametrize("name", ["bytes", *FOREIGN])
def test_no_text_becomes_a_special_token(built, name):
    tokenizer = Tokenizer.for_bytes() if name == "bytes" else Tokenizer.from_json(built[name])
    unknown = {tokenizer.inner.token_to_id(token) for token in ("<unk>", "[UNK]")}
    assert tokenizer.end in tokenizer.specials.values()
    for special in {*tokenizer.specials, *ENDS}:
        for text in (special, f"the {special} cat", special * 3):
            tokens = set(tokenizer.encode(text).tolist())
            assert not tokens & (set(tokenizer.specials.values()) - unknown), text
            if name in ("bytes", "byte BPE"):
                assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_end_that_its_file_does_not_call_special():
    inner = tokenizers.Tokenizer.from_str(
        Tokenizer.for_bytes().to_json().replace('"special": true', '"special": false')
    )
    tokenizer = Tokenizer(inner)
    assert tokenizer.end == 256 and 256 not in tokenizer.encode(f"a{END}b") and tokenizer.decode([65, 256, 66]) == "AB"


def test_ends():
    assert Tokenizer.for_bytes().end == 256 and Tokenizer.for_bytes().vocab_size == 257
    assert Tokenizer(unigram()).end_name == "</s>" and Tokenizer(byte_bpe()).end_name == "<|im_end|>"
    inner = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    tokenizer = Tokenizer(inner)  # ids with holes
    assert (tokenizer.end_name, tokenizer.end, tokenizer.vocab_size) == (END, inner.token_to_id(END), 8)


def closed(*added: str, special: bool = True) -> tokenizers.Tokenizer:
    """Words, and tokens at the end whose names nobody knows."""
    inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (inner.add_special_tokens if special else inner.add_tokens)([*added])
    return inner


def test_ends_that_a_model_says():
    tokenizer = Tokenizer(closed("<stop>", "<turn>"), [4, 3])
    assert (tokenizer.end, tokenizer.end_name, tokenizer.ends, tokenizer.vocab_size) == (4, "<turn>", {3, 4}, 5)
    tokenizer = Tokenizer(closed("<stop>", "</s>"), [3, 4, 77])  # a name that is known ends a document
    assert (tokenizer.end, tokenizer.ends, tokenizer.vocab_size) == (4, {3, 4, 77}, 5)
    tokenizer = Tokenizer(closed("<stop>", special=False), ["<stop>"])  # named as a special token, so it is one
    assert (tokenizer.end, tokenizer.ends) == (3, {3}) and tokenizer.decode([1, 3]) == "the"
    assert 3 not in tokenizer.encode("the <stop> cat") and tokenizer.spelt([1, 3]) == "the <stop>"
    tokenizer = Tokenizer(closed(), [2])  # an ordinary word stays one
    assert (tokenizer.end, tokenizer.ends, tokenizer.vocab_size) == (2, {2}, 3)
    assert tokenizer.encode("the cat").tolist() == [1, 2] and tokenizer.decode([1, 2]) == "the cat"
    tokenizer = Tokenizer(Tokenizer.for_bytes().inner, [2])  # of the defaults of transformers, for bytes
    assert (tokenizer.end, tokenizer.ends, tokenizer.is_bytes) == (256, {2, 256}, True)


def test_ends_that_nobody_says():
    assert Tokenizer(closed(), most=4).end_name == END
    tokenizer = Tokenizer(closed("<stop>"), most=4)  # no room for one more
    assert (tokenizer.end, tokenizer.end_name, tokenizer.ends, tokenizer.vocab_size) == (None, None, frozenset(), 4)
    assert Tokenizer(closed("<stop>"), ["<gone>", -1], most=4).ends == frozenset()


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"config": {"eos_token_id": 3}}, [3]),
        ({"config": {"eos_token_id": 3}, "generation_config": {"eos_token_id": [4, 3]}}, [4, 3]),
        ({"config": {"eos_token_id": [3]}, "generation_config": {"temperature": 1}}, [3]),
        ({"tokenizer_config": {"eos_token": {"content": "<a>"}}, "config": {"eos_token_id": None}}, ["<a>"]),
        ({"tokenizer_config": {"eos_token": "<a>"}, "config": {"eos_token_id": 3}}, [3, "<a>"]),
        ({}, []),
    ],
)
def test_where_a_folder_says_them(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert end_tokens(tmp_path) == expected
    (tmp_path / "tokenizer.json").write_text(closed("<b>", "<a>").to_str())
    tokenizer = Tokenizer.load(tmp_path)
    ends = {one if isinstance(one, int) else 4 for one in expected}
    assert tokenizer.ends == (ends or {tokenizer.inner.token_to_id(END)})


@pytest.mark.parametrize("said", [True, 1.0, "3", [3, None], {"a": 1}, [[3]]])
def test_ends_that_are_no_tokens(tmp_path, said):
    (tmp_path / "tokenizer.json").write_text(closed().to_str())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
    with pytest.raises(ValueError, match="generation_config.json: expected eos_token_id to be token ids"):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("said", [-1, 99_999, [3, 300]])
def test_an_end_token_that_there_is_not_is_named(tmp_path, capsys, said):
    (tmp_path / "tokenizer.json").write_text(Tokenizer.for_bytes().inner.to_str())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
    odd = said if isinstance(said, int) else said[-1]
    Tokenizer.load(tmp_path)
    assert f"eos_token_id {odd} is none of the 257 tokens" in capsys.readouterr().err
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 256]}))
    Tokenizer.load(tmp_path)
    assert not capsys.readouterr().err


def streamed(tokenizer, tokens) -> list[str]:
    step = tokenizer.stream()
    return [step(token) for token in [*tokens, None]]


@pytest.mark.parametrize("name", ["bytes", "byte BPE", "unigram", "byte fallback"])
def test_streaming_is_decoding(built, name):
    tokenizer = Tokenizer.for_bytes() if name == "bytes" else Tokenizer.from_json(built[name])
    for text in [*SAMPLES, any_text(150, 3)]:
        tokens = tokenizer.encode(text).tolist()
        assert "".join(streamed(tokenizer, tokens)) == tokenizer.decode(tokens)
    ends = [tokenizer.end, *tokenizer.encode("the").tolist(), tokenizer.end, *tokenizer.encode(" cat").tolist()]
    assert "".join(streamed(tokenizer, ends)) == tokenizer.decode(ends)


def test_streaming_gives_a_character_when_it_is_whole():
    parts = streamed(Tokenizer.for_bytes(), "aé🙂".encode())
    assert parts == ["a", "", "é", "", "", "", "🙂", ""]
    assert streamed(Tokenizer.for_bytes(), [0xE2, 0x82]) == ["", "", "\ufffd"]


@pytest.mark.parametrize("name", ["bytes", "byte BPE"])
@pytest.mark.parametrize("seed", range(5))
def test_streaming_bytes_that_are_no_text(built, name, seed):
    """What an untrained model writes; the library's own stream may fail here."""
    tokenizer = Tokenizer.for_bytes() if name == "bytes" else Tokenizer.from_json(built[name])
    tokens = np.random.default_rng(seed).integers(0, tokenizer.vocab_size, 500).tolist()
    assert "".join(streamed(tokenizer, tokens)) == tokenizer.decode(tokens)


def test_streaming_waits_for_few_tokens(built):
    """So that the time of a token does not depend on how many came before."""
    for tokenizer in (Tokenizer.for_bytes(), Tokenizer.from_json(built["byte BPE"])):
        middle = tokenizer.inner.token_to_id(next(c for c, b in byte_vocab().items() if b == 0x80))
        parts = streamed(tokenizer, [middle] * 200)
        longest = max(len(run) for run in "".join("x" if part else "." for part in parts).split("x"))
        assert longest <= 16


@foreign
def test_files_come_back(built, name, tmp_path):
    tokenizer = Tokenizer.from_json(built[name])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        again = Tokenizer.load(path)
        assert (again.end, again.vocab_size, again.specials) == (
            tokenizer.end,
            tokenizer.vocab_size,
            tokenizer.specials,
        )
        assert not again.is_bytes and again.to_json() == tokenizer.to_json()
        assert again.encode(SAMPLES[3]).tolist() == tokenizer.encode(SAMPLES[3]).tolist()


def test_the_file_of_bytes_comes_back_as_bytes(tmp_path):
    (tmp_path / "tokenizer.json").write_text(Tokenizer.for_bytes().to_json(), encoding="utf-8")
    again = Tokenizer.load(tmp_path)
    assert again.is_bytes and again.end == 256 and again.to_json() == Tokenizer.for_bytes().to_json()


def test_what_only_looks_like_bytes_is_not():
    for change in (
        lambda inner: setattr(inner, "normalizer", normalizers.Lowercase()),
        lambda inner: setattr(inner, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    ):
        inner = tokenizers.Tokenizer.from_str(Tokenizer.for_bytes().to_json())
        change(inner)
        tokenizer = Tokenizer(inner)
        assert not tokenizer.is_bytes
        assert tokenizer.encode("A b").tolist() == inner.encode("A b").ids != list(b"A b")


def test_settings_of_padding_and_truncation_do_not_cut_a_text():
    inner = byte_bpe()
    inner.enable_truncation(3)
    inner.enable_padding(length=50)
    tokenizer = Tokenizer.from_json(inner.to_str())
    assert tokenizer.decode(tokenizer.encode(SAMPLES[3])) == SAMPLES[3]


BROKEN = {
    "not JSON": "{",
    "nothing": "",
    "something else": '{"model_type": "llama"}',
    "a list": "[1, 2]",
    "another model": '{"version": "1.0", "model": {"type": "Magic"}}',
    "no vocabulary": '{"version": "1.0", "model": {"type": "BPE", "merges": []}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_of_something_else(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="tokenizer.json: expected a tokenizer.json of the tokenizers library"):
        Tokenizer.load(tmp_path)
    assert path.read_text() == content


def test_files_that_are_cut_off():
    content = Tokenizer.for_bytes().to_json()
    for size in range(0, len(content) - 2, 97):
        with pytest.raises(ValueError, match="it says"):
            Tokenizer.from_json(content[:size])


def test_vocabularies_with_odd_values():
    settings = json.loads(Tokenizer.for_bytes().to_json())
    for key, value in (("vocab", {"a": -1}), ("vocab", ["a"]), ("merges", [["a", "nowhere"]]), ("merges", "x y")):
        odd = settings | {"model": settings["model"] | {key: value}}
        with pytest.raises(ValueError, match="it says"):
            Tokenizer.from_json(json.dumps(odd))


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="it is not there"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not text"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_added_tokens_that_are_not_special_stay_tokens():
    inner = byte_bpe()
    inner.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer = Tokenizer(inner)
    assert inner.token_to_id("<tool>") in tokenizer.encode("a <tool> b") and "<tool>" not in tokenizer.specials
