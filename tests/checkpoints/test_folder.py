"""A model is the folder that it was saved to; a folder that is not whole is one error, and saving loses nothing."""

import json
import shutil

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from solomonic import PRESETS, LanguageModel, ModelConfig, preset
from solomonic.checkpoints.folder import CHAT, fingerprint, load, save, template
from solomonic.data.tokenizer import Tokenizer

from ..laws.cases import MIXER_CASES, assert_same_state

BYTES = Tokenizer.for_bytes()
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}


def small(name: str, **dials) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(preset(name, vocab_size=257, d_model=16, window=5, capacity=4, state_size=4, **dials)).eval()


def folder_of(path, model=None, **options):
    save(path, small("bmojo") if model is None else model, BYTES, **options)
    return path


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_model_comes_back(name, tie, tmp_path):
    model = small(name, tie_embeddings=tie)
    folder_of(tmp_path / "m", model, card="# A model\n")
    loaded, tokenizer = load(tmp_path / "m")
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES | {"README.md"}
    assert loaded.config == model.config and tokenizer.is_bytes and not loaded.training
    assert fingerprint(loaded) == fingerprint(model)
    assert (loaded.head.weight is loaded.embedding.weight) == tie
    assert {n: p.requires_grad for n, p in loaded.named_parameters()} == {n: True for n, _ in model.named_parameters()}
    x = torch.randint(0, 257, (2, 20))
    with torch.no_grad():
        (expected, state), (got, got_state) = model(x), loaded(x)
    assert torch.equal(got, expected)
    assert_same_state(got_state, state, "state")


@pytest.mark.parametrize("case", MIXER_CASES)
def test_every_setting_comes_back(case, tmp_path):
    config = ModelConfig(257, 32, [MIXER_CASES[case]] * 2, d_ff=0, embedding_scale=3.5, norm_eps=1e-3)
    model = LanguageModel(config)
    loaded, _ = load(folder_of(tmp_path, model))
    assert loaded.config == config and fingerprint(loaded) == fingerprint(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_types(dtype, tmp_path):
    model = small("mamba2").to(dtype)
    folder_of(tmp_path, model)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).split(".")[1]
    loaded, _ = load(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {dtype} and fingerprint(loaded) == fingerprint(model)
    assert {p.dtype for p in load(tmp_path, dtype=torch.float32)[0].parameters()} == {torch.float32}


def test_fingerprints_differ_by_weights_settings_and_type():
    model, seen = small("bmojo"), set()
    seen.add(fingerprint(model))
    assert fingerprint(small("bmojo")) in seen
    for other in (small("bmojo", tie_embeddings=True), small("bmojo", score="norm"), small("bmojo").bfloat16()):
        seen.add(fingerprint(other))
    with torch.no_grad():
        model.norm.weight[3] += 1e-6
    seen.add(fingerprint(model))
    wide = LanguageModel(ModelConfig(257, 16, small("bmojo").config.layers, d_ff=0))
    assert len(seen | {fingerprint(wide)}) == 6


def test_a_tied_head_is_stored_once(tmp_path):
    folder_of(tmp_path, small("mamba2", tie_embeddings=True))
    assert "model.head.weight" not in load_file(tmp_path / "model.safetensors")


def test_saving_over_what_was_loaded(tmp_path):
    folder_of(tmp_path, small("bmojo"))
    model, tokenizer = load(tmp_path)
    with torch.no_grad():
        model.norm.weight += 1
    save(tmp_path, model, tokenizer)
    assert fingerprint(load(tmp_path)[0]) == fingerprint(model)


def test_a_tokenizer_that_does_not_fit(tmp_path):
    narrow = LanguageModel(preset("mamba2", vocab_size=256, d_model=16))
    with pytest.raises(ValueError, match="tokenizer of at most 256 tokens, as the model has, got one of 257"):
        save(tmp_path / "m", narrow, BYTES)
    assert not (tmp_path / "m").exists()
    folder_of(tmp_path / "m")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(300)}, unk_token="0"))
    (tmp_path / "m" / "tokenizer.json").write_text(words.to_str())
    with pytest.raises(ValueError, match="at most 257 tokens, as the model has, got one of 300"):
        load(tmp_path / "m")


@pytest.mark.parametrize("said", [True, False])
def test_a_full_vocabulary_with_an_end_of_its_own(tmp_path, said):
    """It gets no token more; what the files say is what a copy says."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(255)}, unk_token="0"))
    inner.add_special_tokens(["<stop>", "<turn>"])
    folder_of(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text(inner.to_str())
    for file in ("config.json", "generation_config.json"):
        edit(tmp_path / "m" / file, eos_token_id=[255, 256] if said and file == "generation_config.json" else None)
    edit(tmp_path / "m" / "tokenizer_config.json", eos_token=None)
    weights = tmp_path / "m" / "model.safetensors"
    save_file(load_file(weights), weights)  # as others write it, without digests
    model, tokenizer = load(tmp_path / "m")
    assert tokenizer.vocab_size == model.config.vocab_size == 257
    assert (tokenizer.end, tokenizer.ends) == ((255, {255, 256}) if said else (None, frozenset()))
    save(tmp_path / "copy", model, tokenizer)
    assert load(tmp_path / "copy")[1].ends == tokenizer.ends
    for file in ("config", "generation_config"):
        ids = json.loads((tmp_path / "copy" / f"{file}.json").read_text())
        assert (ids["eos_token_id"], ids["pad_token_id"]) == (([255, 256], 255) if said else (None, None))


def test_an_ordinary_token_that_ends_texts_stays_one(tmp_path):
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(257)}, unk_token="0"))
    tokenizer = Tokenizer(inner, [7])
    save(tmp_path, small("bmojo"), tokenizer)
    again = load(tmp_path)[1]
    assert again.ends == tokenizer.ends == {7} and again.encode("7").tolist() == [7] and again.decode([7]) == "7"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off(file, keep, tmp_path):
    folder_of(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=file):
        load(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_is_missing(file, tmp_path):
    folder_of(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"{file}.* there"):
        load(tmp_path)


def test_no_folder(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").write_text("text")
        with pytest.raises(ValueError, match="expected a folder with config.json and model.safetensors"):
            load(path)


def test_pickles_are_not_read(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin, a pickle, which can run code"):
        load(tmp_path)


def test_weights_of_another_model(tmp_path):
    folder_of(tmp_path / "a", small("bmojo"))
    folder_of(tmp_path / "b", small("samba"))
    folder_of(tmp_path / "c", small("bmojo", n_layers=3))
    for other, says in (("b", "expected the tensor model.blocks.0"), ("c", "no place for")):
        shutil.copy(tmp_path / other / "model.safetensors", tmp_path / "a")
        with pytest.raises(ValueError, match=says):
            load(tmp_path / "a")


def test_tensors_of_another_shape_or_kind(tmp_path):
    folder_of(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for wrong in (torch.zeros(17), torch.zeros(16, dtype=torch.int32)):
        save_file(tensors | {"model.norm.weight": wrong}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match="model.norm.weight: expected .16,. floats"):
            load(tmp_path)


ODD = [None, "4", 2.5, -1, 0, True, [], {}, [1], "x" * 50, 1e400, 10**12, 10**30]


def test_odd_settings_are_one_error(tmp_path):
    """Every setting of a config.json in turn, replaced by what it cannot be: a ValueError, or it does not matter."""
    folder_of(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    raised = []

    def tried(settings, what) -> None:
        (tmp_path / "config.json").write_text(json.dumps(settings))
        try:
            load(tmp_path)
        except ValueError:
            pass
        except Exception as error:
            raised.append((*what, type(error).__name__, str(error)))

    def places(value, path=()):
        yield path
        if isinstance(value, dict):
            for key in value:
                yield from places(value[key], (*path, key))
        if isinstance(value, list):
            yield from places(value[0], (*path, 0))

    for path in places(config):
        for odd in ODD:
            changed = json.loads(json.dumps(config))
            at = changed
            for key in path[:-1]:
                at = at[key]
            if path:
                at[path[-1]] = odd
            tried(changed if path else odd, (path, odd))
    assert not raised


def test_settings_that_nobody_knows(tmp_path):
    folder_of(tmp_path)
    edit(tmp_path / "config.json", model_type="gpt2")
    with pytest.raises(ValueError, match="model_type to be one of solomonic, .*got model_type 'gpt2'"):
        load(tmp_path)
    config = small("bmojo").config.to_dict()
    edit(tmp_path / "config.json", model_type="solomonic", model=config | {"d_modell": 3})
    with pytest.raises(ValueError, match="unknown setting of the model 'd_modell': did you mean 'd_model'"):
        load(tmp_path)
    config["layers"][0]["windo"] = 3
    edit(tmp_path / "config.json", model=config)
    with pytest.raises(ValueError, match="unknown setting of bmojo 'windo': did you mean 'window'"):
        load(tmp_path)


@pytest.mark.parametrize("size", [0, 1000, 20_000])
def test_a_full_disk_leaves_the_old_folder(size, tmp_path, full_disk):
    model = small("bmojo")
    folder_of(tmp_path / "m", model)
    before = contents(tmp_path / "m")
    with full_disk(size), pytest.raises(OSError):
        folder_of(tmp_path / "m", small("samba"))
    assert contents(tmp_path / "m") == before
    assert fingerprint(load(tmp_path / "m")[0]) == fingerprint(model)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("file", sorted(FILES - {"model.safetensors"}))
def test_a_save_that_stops_between_files_leaves_files_whole(file, error, tmp_path, monkeypatch):
    folder_of(tmp_path)
    before = contents(tmp_path)
    replaced = []

    def replace(source, target):
        if target.name == file:
            raise error
        replaced.append(target.name)
        shutil.move(source, target)

    model = small("bmojo", score="norm")
    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(type(error)):
        folder_of(tmp_path, model)
    monkeypatch.undo()
    after = contents(tmp_path)
    assert after.keys() == before.keys() and replaced[0] == "model.safetensors"
    assert all(after[name] == before[name] for name in FILES - set(replaced))
    folder_of(tmp_path, model)
    assert fingerprint(load(tmp_path)[0]) == fingerprint(model)


def test_templates(tmp_path):
    assert template(tmp_path) == (CHAT, {"bos_token": "", "eos_token": ""})
    folder_of(tmp_path)
    assert template(tmp_path) == (CHAT, dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|end|>"))
    path = tmp_path / "tokenizer_config.json"
    edit(path, pad_token=None)
    edit(path, chat_template="A", bos_token={"content": "<s>", "special": True})
    assert template(tmp_path) == ("A", {"bos_token": "<s>", "eos_token": "<|end|>"})
    edit(
        path,
        chat_template=[{"name": "tool_use", "template": "T"}, {"name": "default", "template": "B"}],
        eos_token=None,
    )
    assert template(tmp_path) == ("B", {"bos_token": "<s>", "eos_token": ""})
    edit(path, unk_token="<unk>", mask_token={"content": "<mask>"})
    assert template(tmp_path)[1] == {"bos_token": "<s>", "eos_token": "", "unk_token": "<unk>", "mask_token": "<mask>"}
    edit(path, chat_template=[{"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}])
    with pytest.raises(ValueError, match="expected a template named default in chat_template, got tool_use, rag"):
        template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("C")
    assert template(tmp_path)[0] == "C"


@pytest.mark.parametrize(
    "content", ["{", "[]", '"a"', '{"chat_template": 7}', '{"chat_template": [7]}', '{"eos_token": 1}']
)
def test_templates_that_cannot_be_read(content, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer_config.json: expected"):
        template(tmp_path)
