"""A run: the same losses interrupted, in micro-batches, with a carried state; a folder at its end."""

import hashlib
import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic._utils.progress import Progress
from solomonic.checkpoints.folder import load
from solomonic.checkpoints.tensors import read_tensors, write_tensors
from solomonic.checkpoints.training import load as load_checkpoint
from solomonic.checkpoints.training import save as save_checkpoint
from solomonic.cli import main
from solomonic.training.config import RunConfig

from .texts import SHORT, SMALL, checkpoint, losses_of, same, write_text


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.jsonl")


def train(text, out, *words, small=SMALL) -> int:
    return main(["train", str(text), "--out", str(out), "--steps", "8", *small, *SHORT, *words])


def test_ends_in_a_folder_with_card_and_scores(text, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(text, out, "--held-out", "0.3") == 0
    model, tokenizer = load(out)
    tokens = torch.from_numpy(tokenizer.encode("memory fades"))[None]
    assert torch.isfinite(model(tokens)[0]).all()
    record = json.loads((out / "training.json").read_text())
    assert len(record["losses"]) == 8 and record["losses"][-1] < record["losses"][0]
    assert record["length"] == 16 and record["bits_per_byte"].keys() == {"16", "64", "512"}
    card = (out / "README.md").read_text()
    for fact in (f"{record['parameters']:,} parameters", "text.jsonl", f"{record['bits_per_byte']['64']:.3f}"):
        assert fact in card
    assert list((out / "run" / "logs").glob("events*"))


@pytest.mark.parametrize("words", [[], ["--carry"], ["--model", "transformer"]])
def test_stopped_and_resumed_equals_uninterrupted(text, tmp_path, words, monkeypatch):
    import solomonic.training.text as module

    assert train(text, tmp_path / "whole", *words) == 0
    steps = iter(range(100))
    monkeypatch.setattr(module, "asked_to_stop", lambda: _context(lambda: next(steps) == 4))
    assert train(text, tmp_path / "parts", *words) == 130
    monkeypatch.undo()
    assert len(checkpoint(tmp_path / "parts")[0]["run.losses"]) == 5
    assert train(text, tmp_path / "parts", "--resume", *words) == 0
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert same(checkpoint(tmp_path / "parts")[0], checkpoint(tmp_path / "whole")[0])


def logged(out):
    """tag -> steps, of every record in TensorBoard's files, in the order in which they were written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    paths = (out / "run" / "logs").glob("events*")
    for event in sorted(
        (event for path in paths for event in EventFileLoader(str(path)).Load()), key=lambda event: event.wall_time
    ):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    return found


@pytest.mark.parametrize("saved", ["4", "100"])
def test_a_crash_leaves_every_step_in_the_log_once(text, tmp_path, monkeypatch, saved):
    """After the sixth step of eight: two steps beyond the checkpoint, or before there is one; a record is cut off."""
    import solomonic.training.text as module

    real, calls, words = module.cross_entropy, [], ["--save-every", saved, "--log-every", "1", "--eval-every", "2"]

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) == 7 + (saved == "4"):  # the loss is computed again before a checkpoint
            raise ZeroDivisionError
        return real(*arguments)

    monkeypatch.setattr(module, "cross_entropy", crash)
    with pytest.raises(ZeroDivisionError):
        train(text, tmp_path / "out", *words, "--held-out", "0.3")
    monkeypatch.undo()
    (path,) = (tmp_path / "out" / "run" / "logs").glob("events*")
    assert logged(tmp_path / "out")["loss"] == [1, 2, 3, 4, 5, 6]
    path.write_bytes(path.read_bytes() + b"cut off")
    assert train(text, tmp_path / "out", *words, "--held-out", "0.3", "--resume") == 0
    steps = [1, 2, 3, 4, 5, 6, 7, 8]
    found = logged(tmp_path / "out")
    assert found == dict.fromkeys(("loss", "learning_rate", "tokens_per_second"), steps) | {
        "held_out_bits_per_byte": [2, 4, 6, 8]
    }


def test_a_killed_run_has_logged_what_it_has_saved(text, tmp_path, monkeypatch):
    """TensorBoard's writer keeps two minutes back by itself."""
    import solomonic.checkpoints.training as module

    seen, real = [], module.save

    def save(*arguments):
        seen.append(len(logged(tmp_path / "out")["loss"]))
        real(*arguments)

    monkeypatch.setattr(module, "save", save)
    assert train(text, tmp_path / "out", "--save-every", "3", "--log-every", "1") == 0
    assert seen == [3, 6, 8, 8]


def test_weights_of_another_folder_are_another_run(text, tmp_path, capsys):
    for name, seed in (("a", "0"), ("b", "1")):
        assert train(text, tmp_path / name, "--seed", seed) == 0
    words = ["--from", str(tmp_path / "a")]
    assert train(text, tmp_path / "out", *words, small=[]) == 0
    (tmp_path / "out" / "training.json").unlink()
    assert train(text, tmp_path / "out", "--from", str(tmp_path / "b"), "--resume", small=[]) == 2
    assert "other weights to begin with" in capsys.readouterr().err
    assert train(text, tmp_path / "out", *words, "--resume", small=[]) == 0


def test_tokens_are_compared_once_where_a_run_goes_on(text, tmp_path, monkeypatch):
    real, seen = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, *a: seen.append(Path(file.name).name) or real(file, *a))
    assert train(text, tmp_path / "out") == 0
    assert seen == []  # they have just been written
    (tmp_path / "out" / "training.json").unlink()
    assert train(text, tmp_path / "out", "--resume") == 0
    assert sorted(seen) == ["held_out.tokens", "train.tokens"]


def test_progress_is_ten_lines_in_a_pipe(text, tmp_path, capsys):
    assert train(text, tmp_path / "out") == 0
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("train: ") and "compiling" not in line]
    assert "\r" not in said and len(lines) <= 11 and re.match(r"train: 100 %, 8/8 steps in .*; loss \d", lines[-1])


class _context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *error):
        pass


def test_reading_the_text_and_scoring_are_shown(text, tmp_path, monkeypatch):
    """What comes before the first step and after the last one."""
    described, read = [], []
    update = Progress.update

    def counted(self, n=1):
        read.append(n if self.what == "read" else 0)
        update(self, n)

    monkeypatch.setattr(Progress, "update", counted)
    monkeypatch.setattr(Progress, "describe", lambda self, what: described.append(what))
    assert train(text, tmp_path / "out") == 0
    size = sum(len(json.loads(line)["text"].encode()) for line in text.read_text().splitlines())
    assert sum(read) in (size, 2 * size) and described == ["scoring"]  # twice where nothing would be held out


@pytest.mark.parametrize("words", [[], ["--carry"]])
def test_micro_batches_change_the_losses_by_rounding(text, tmp_path, words):
    assert train(text, tmp_path / "one", *words) == 0
    assert train(text, tmp_path / "four", "--accumulate", "4", *words) == 0
    assert losses_of(tmp_path / "four") == pytest.approx(losses_of(tmp_path / "one"), abs=1e-5)


def test_carried_state_changes_what_is_learnt_and_is_in_the_checkpoint(text, tmp_path):
    for carry in ("1", "1000"):
        assert train(text, tmp_path / carry, "--carry", carry) == 0
    one_row, (tensors, _) = checkpoint(tmp_path / "1")[0], checkpoint(tmp_path / "1000")
    assert tensors["run.0.state.position"].shape == (4,) and tensors["run.0.state.position"].max() > 16
    assert {name for name in one_row if name.endswith("state.position")} > {"run.0.state.position"}  # a state a lane
    assert max(x.max() for name, x in one_row.items() if name.endswith("state.position")) == 16
    carried = {name: x for name, x in tensors.items() if ".attention." in name}
    slots = {name: x for name, x in carried.items() if ".slot_" in name}
    assert any(x.any() for name, x in carried.items() if name.endswith(".attention.k"))
    assert any(name.endswith("slot_lost") for name in slots)
    for name, x in slots.items():  # their keys would be of older weights
        assert torch.equal(x, torch.full_like(x, -torch.inf if name.endswith("slot_score") else 0)), name


def test_carrying_full_attention_is_refused(text, tmp_path, capsys):
    assert train(text, tmp_path / "out", "--carry", "--model", "transformer") == 2
    assert "grows without bound" in capsys.readouterr().err


def test_no_checkpoint_is_written_of_weights_that_have_blown_up(text, tmp_path, capsys):
    """The loss of the first step is finite; what is left after it is not."""
    out = tmp_path / "out"
    assert train(text, out, "--lr", "1e20", "--save-every", "1", "--clip", "1e30", "--steps", "30") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"the loss is (nan|inf) at step 2; try a lower --lr than 1e\+20$", said)
    assert not (out / "run" / "checkpoint.safetensors").exists() and not (out / "config.json").exists()


@pytest.mark.parametrize("bad", [8, 12])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(text, tmp_path, capsys, monkeypatch, bad):
    """In the third step after a checkpoint, and in the step that the next one would be written after."""
    import solomonic.training.text as module

    real, calls = module.cross_entropy, []

    def losses(*arguments):
        calls.append(arguments)
        return real(*arguments) * (float("nan") if len(calls) == bad else 1)

    monkeypatch.setattr(module, "cross_entropy", losses)
    out = tmp_path / "out"
    assert train(text, out, "--save-every", "5", "--log-every", "1", "--steps", "30") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"the loss is nan at step {bad - 1}; try a lower --lr.*last good checkpoint is", said)
    tensors, _ = checkpoint(out)
    assert tensors["run.losses"].isfinite().all() and len(tensors["run.losses"]) == 5
    assert not (out / "config.json").exists()


def test_from_the_weights_of_a_folder(text, tmp_path):
    assert train(text, tmp_path / "first") == 0
    assert train(text, tmp_path / "second", "--from", str(tmp_path / "first"), small=[]) == 0
    assert losses_of(tmp_path / "second")[0] < losses_of(tmp_path / "first")[0]


def test_from_a_file_of_settings(text, tmp_path):
    config = preset("samba", vocab_size=257, d_model=16)
    (tmp_path / "model.json").write_text(json.dumps(config.to_dict()))
    assert train(text, tmp_path / "out", "--model", str(tmp_path / "model.json"), small=[]) == 0
    assert load(tmp_path / "out")[0].config == config


def test_any_tokenizer(text, tmp_path):
    import tokenizers

    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(["memory fades", "window keeps state"] * 9, trainer)
    inner.save(str(tmp_path / "tokenizer.json"))
    assert train(text, tmp_path / "out", "--tokenizer", str(tmp_path / "tokenizer.json")) == 0
    model, tokenizer = load(tmp_path / "out")
    assert tokenizer.vocab_size == model.config.vocab_size == 271
    assert tokenizer.decode(tokenizer.encode("memory fades")) == "memory fades"


def test_resuming_another_run_names_what_differs(text, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(text, out) == 0
    (out / "training.json").unlink()
    before = (out / "run" / "checkpoint.safetensors").read_bytes()
    assert train(text, out, "--resume", "--lr", "5e-3") == 2
    assert "lr 0.002, now 0.005" in capsys.readouterr().err
    assert train(text, out, "--resume", "--d-model", "32") == 2
    assert "another model" in capsys.readouterr().err
    assert (out / "run" / "checkpoint.safetensors").read_bytes() == before


def test_a_run_of_before_a_setting_of_the_layer_goes_on_with_its_words_of_today(text, tmp_path, capsys):
    """Runs of before slots faded in the logits do not name `learned_decay`, which is no for them."""
    out = tmp_path / "out"
    assert train(text, out, "--learned-decay", "no") == 0
    (out / "training.json").unlink()
    tensors, content = checkpoint(out)
    for layer in content["identity"]["model"]["layers"]:
        del layer["learned_decay"]
    save_checkpoint(out / "run" / "checkpoint.safetensors", tensors, content)
    assert train(text, out, "--resume") == 2 and "another model" in capsys.readouterr().err
    assert train(text, out, "--resume", "--learned-decay", "no") == 0


def test_resuming_with_other_data_is_refused_and_before_a_checkpoint_it_is_read(text, tmp_path, capsys):
    out, other = tmp_path / "out", write_text(tmp_path / "other.jsonl", documents=40)
    assert train(text, out) == 0
    (out / "training.json").unlink()
    before = {path.name: path.read_bytes() for path in (out / "run").iterdir() if path.is_file()}
    for path, words in ((other, []), (text, ["--held-out", "0.3"])):
        assert train(path, out, "--resume", *words) == 2
        assert "expected a run on this data" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in (out / "run").iterdir() if path.is_file()}
    (out / "run" / "checkpoint.safetensors").unlink()
    assert train(other, out, "--resume") == 0
    assert train(other, tmp_path / "alone") == 0
    assert losses_of(out) == losses_of(tmp_path / "alone")


def test_a_finished_run_is_left_alone(text, tmp_path, capsys):
    assert train(text, tmp_path / "out") == 0
    assert train(text, tmp_path / "out") == 2
    assert "--resume" in capsys.readouterr().err
    assert train(text, tmp_path / "out", "--resume") == 0


@pytest.mark.parametrize("damage", [lambda b: b[:1000], lambda b: b"{}", lambda b: b""])
def test_a_damaged_checkpoint_is_named_and_stays(text, tmp_path, damage, capsys):
    out = tmp_path / "out"
    assert train(text, out) == 0
    (out / "training.json").unlink()
    path = out / "run" / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    assert train(text, out, "--resume") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoint.safetensors" in said and "Traceback" not in said
    assert path.read_bytes() == damaged


def test_a_full_disk_keeps_the_checkpoint_before(text, tmp_path, monkeypatch, capsys, full_disk):
    import solomonic.checkpoints.training as module

    real, calls = module.write_tensors, []

    def full(path, tensors, metadata):
        calls.append(path)
        with full_disk(2000) if len(calls) == 3 else nullcontext():
            real(path, tensors, metadata)

    monkeypatch.setattr(module, "write_tensors", full)
    assert train(text, tmp_path / "out", "--save-every", "2") == 2
    assert "File too large" in capsys.readouterr().err
    tensors, _ = checkpoint(tmp_path / "out")
    assert len(tensors["run.losses"]) == 4
    assert not list((tmp_path / "out").rglob("*.partial"))
    monkeypatch.undo()
    assert train(text, tmp_path / "out", "--save-every", "2", "--resume") == 0
    assert train(text, tmp_path / "whole", "--save-every", "2") == 0
    assert losses_of(tmp_path / "out") == losses_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "words, says",
    [
        (["no/such/file"], "no/such/file"),
        (["text.jsonl", "--model", "bmoj"], "did you mean 'bmojo'?"),
        (["text.jsonl", "--steps", "0"], "steps >= 1"),
        (["text.jsonl", "--accumulate", "3"], "divide, got 4"),
        (["text.jsonl", "--field", "body"], "under 'body', got text"),
        (["text.jsonl", "--tokenizer", "text.jsonl"], "tokenizer.json"),
        (["text.jsonl", "--held-out", "1"], "--held-out"),
        (["text.jsonl", "--length", "100000"], "pass more text"),
        (["text.jsonl", "--model", "no.json"], "no.json: expected a JSON file; it is not there"),
        (["text.jsonl", "--from", "nowhere"], "nowhere"),
        (["garbage.bin"], "binary"),
        (["empty.txt"], "empty"),
        (["folder"], "got none: the files named are empty or binary"),
        (["text.jsonl", "--steps", "0", "--lr", "1"], "lr > 0, got 0, 4 and 1\n"),
    ],
)
def test_a_mistake_is_one_line(text, tmp_path, words, says, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.bin").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    small = [] if "--from" in words or "no.json" in words else SMALL
    assert main(["train", "--out", "out", *small, *SHORT, *words]) == 2
    said = capsys.readouterr().err
    assert says in said and said.strip().count("\n") == 0 and "Traceback" not in said
    if "--length" not in words and "--accumulate" not in words:  # which are said when the text has been read
        assert not (tmp_path / "out").exists()


def test_a_file_of_other_tensors_is_no_checkpoint(tmp_path):
    write_tensors(tmp_path / "a", {"x": torch.ones(2)}, {"y": "1"})
    tensors, metadata = read_tensors(tmp_path / "a")
    assert torch.equal(tensors["x"], torch.ones(2)) and metadata == {"y": "1"}
    with pytest.raises(ValueError, match="expected the checkpoint of a run, got other tensors"):
        load_checkpoint(tmp_path / "a")


def test_a_checkpoint_holds_what_a_model_needs(text, tmp_path):
    assert train(text, tmp_path / "out") == 0
    tensors, saved = checkpoint(tmp_path / "out")
    model = LanguageModel(load(tmp_path / "out")[0].config)
    names = {name.removeprefix("model.") for name in tensors if name.startswith("model.")}
    assert names == set(model.state_dict()) and saved["progress"]["step"] == 8


def test_carry_is_a_number_of_steps():
    with pytest.raises(ValueError, match="expected carry >= 0, got -1"):
        RunConfig(steps=9, batch_size=4, lr=1.0, carry=-1)
