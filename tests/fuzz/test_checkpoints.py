"""A damaged checkpoint of a run is refused, damaged tokens are made again, and a run ends in the weights that it would have had."""

import json
import shutil
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from solomonic.checkpoints import training as checkpoint
from solomonic.checkpoints.tensors import read_tensors, write_tensors
from solomonic.training import rows as text

from . import cases, command

WORDS = "train d.txt --model bmojo --d-model 16 --n-layers 1 --window 4 --capacity 2 --state-size 4 --length 16".split()
WORDS += "--batch-size 2 --cpu --eval-tokens 64 --steps 4 --save-every 2 --eval-every 4 --out".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that ended, and the same as it was in its middle."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "d.txt").write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(200)))
        assert command(*WORDS, folder / "whole")[0] == 0
        stopped = _stopped(folder / "half")
        assert stopped and not (folder / "half" / "training.json").exists()
        yield folder


def _stopped(out):
    """Trains until the first checkpoint, and no further."""
    from solomonic.training import text as training
    from solomonic.training.history import Interrupted

    def stop(path, tensors, progress):
        save(path, tensors, progress)
        raise Interrupted("stopped")

    save = checkpoint.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.checkpoints, "save", stop)
        return command_code(*WORDS, out) == 130


def command_code(*words):
    from solomonic.cli import main

    return main([str(word) for word in words])


def _copy(runs):
    out = runs / "tried"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(runs / "half", out)
    return out


def _weights(folder):
    return {name: x.tolist() for name, x in load_file(folder / "model.safetensors").items()}


def test_the_sound_one_goes_on_to_the_same_weights(runs):
    out = _copy(runs)
    assert command(*WORDS, out, "--resume")[0] == 0 and _weights(out) == _weights(runs / "whole")
    assert not [p for p in out.rglob("*") if p.name.endswith((".partial", ".lock"))]


@cases(25)
@given(st.data())
def test_any_damage_is_refused_or_does_no_harm(runs, data):
    out = _copy(runs)
    path = (
        out
        / "run"
        / data.draw(st.sampled_from(["checkpoint.safetensors", "train.tokens", "held_out.tokens", "tokens.json"]))
    )
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "zeros", "more"]))
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at:]
    elif kind == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    else:
        content[at:at] = b"\1" * 8
    path.write_bytes(content)
    if path.name.endswith(".tokens") or path.name == "tokens.json":
        with pytest.warns(UserWarning) if content != (runs / "half" / "run" / path.name).read_bytes() else _nothing():
            code, _, _ = command(*WORDS, out, "--resume")
        assert code == 0 and _weights(out) == _weights(runs / "whole")
        return
    code, _, said = command(*WORDS, out, "--resume")
    if code == 0:
        assert _weights(out) == _weights(runs / "whole")
    else:
        assert code == 2 and "checkpoint.safetensors" in said and not (out / "model.safetensors").exists()


class _nothing:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("missing", ["model.", "optimizer.", "run."])
def test_one_that_lacks_something_is_refused(runs, missing):
    """Also where the digest is that of what is left."""
    out = _copy(runs)
    path = out / "run" / "checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    name = next(name for name in sorted(tensors) if name.startswith(missing))
    del tensors[name]
    write_tensors(path, tensors, metadata)
    code, _, said = command(*WORDS, out, "--resume")
    assert code == 2 and not (out / "model.safetensors").exists(), said


def test_a_file_of_another_writer_is_no_checkpoint(runs):
    out = _copy(runs)
    path = out / "run" / "checkpoint.safetensors"
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    del header["__metadata__"]["solomonic-digest"]
    text_ = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text_)) + text_ + raw[8 + size :])
    code, _, said = command(*WORDS, out, "--resume")
    assert code == 2 and "damaged" in said


def test_tokens_say_what_they_are_of(runs):
    assert text.origin(runs / "half" / "run") is not None
    assert len(text.read(runs / "half" / "run").train.values) > 100
