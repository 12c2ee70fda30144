"""Files that are no session of this model: one error each, and the file is as it was."""

import json
import re

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from solomonic.inference.generation import stream
from solomonic.inference.sampling import Sampling
from solomonic.inference.sessions import Session, SessionFile

from ..laws.cases import language_model, leaves


@pytest.fixture
def model():
    return language_model(name="bmojo").eval()


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "a" / "session"
    (*_, (_, _, session)) = stream(model, Session().then(range(20)), Sampling(), max_tokens=3)
    SessionFile(path, model).save(session)
    return path


def about(path) -> dict:
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["solomonic-session"])


def refused(path, model, says):
    before = path.read_bytes()
    with pytest.raises(ValueError) as error:
        SessionFile(path, model).load()
    assert re.search(says, str(error.value)) and str(error.value).startswith(str(path))
    assert path.read_bytes() == before


def test_a_file_that_is_not_there_or_empty_begins_anew(model, tmp_path):
    path = tmp_path / "session"
    assert SessionFile(path, model).load() == Session() and not path.exists()
    path.touch()
    assert SessionFile(path, model).load() == Session()


def test_a_session_that_has_read_nothing(model, tmp_path):
    for session in (Session(), Session().then([3, 4, 5])):
        SessionFile(tmp_path / "session", model).save(session)
        assert SessionFile(tmp_path / "session", model).load() == session


@pytest.mark.parametrize("keep", [1, 7, 9, 200, 0.5, 0.999])
def test_cut_off(path, model, keep):
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    refused(path, model, "cannot be read")


def test_a_byte_that_flipped(path, model):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    refused(path, model, "is damaged")


def test_something_else(path, model):
    path.write_text("Dear diary, I am not a file of tensors.")
    refused(path, model, "cannot be read")
    save_file({"a": torch.zeros(3)}, path)
    refused(path, model, "a file of other tensors")
    save_file({"a": torch.zeros(3)}, path, {"solomonic-session": "[]"})
    refused(path, model, "a file of other tensors")
    save_file({"a": torch.zeros(3)}, path, {"solomonic-session": "{"})
    refused(path, model, "a file of other tensors")


def test_a_folder(model, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        SessionFile(tmp_path, model).load()


def test_of_another_version(path, model):
    save_file(load_file(path), path, {"solomonic-session": json.dumps(about(path) | {"version": 2})})
    refused(path, model, "of version 2; this release reads version 1")


def test_of_another_model(path, model):
    refused(path, language_model(name="samba").eval(), "of another model")
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-3
    refused(path, model, "of another model")


def test_of_another_type(path, model):
    refused(path, model.double(), "another model or --dtype")


def test_a_state_of_another_layout(path, model):
    """As an earlier release of the library might have left it: the same weights, other shapes."""
    state = language_model(name="samba").init_state(1)
    SessionFile(path, model).save(Session(state, (1,)))
    refused(path, model, r"layers\.0\.\S+ (None|\[)")
    state = model.init_state(1)
    state["layers"][0]["attention"]["k"] = torch.zeros(1, 3, 4, 8)
    SessionFile(path, model).save(Session(state, (1,)))
    refused(path, model, r"layers\.0\.attention\.k \[1, 3, 4, 8\], not \[1, 7, 1, 8\]")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_stay_what_they_are(dtype, tmp_path):
    for name in ("bmojo", "gated_kalmanet", "transformer"):
        model = language_model(name=name).to(dtype).eval()
        file = SessionFile(tmp_path / name, model)
        (*_, (_, _, session)) = stream(model, Session().then(range(20)), Sampling(), max_tokens=3)
        file.save(session)
        loaded, kept = dict(leaves(file.load().state)), dict(leaves(session.state))
        assert loaded.keys() == kept.keys()
        for what, expected in kept.items():
            assert loaded[what].dtype == expected.dtype and torch.equal(loaded[what], expected), what


def test_a_session_that_cannot_be_saved_leaves_the_old_one(path, model, full_disk):
    file, before = SessionFile(path, model), path.read_bytes()
    session = file.load()
    (*_, (_, _, longer)) = stream(model, session, Sampling(), max_tokens=3)
    with full_disk(1000), pytest.raises(OSError, match="session"):
        file.save(longer)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["session"]
    file.save(longer)
    assert file.load().tokens_read == session.tokens_read + 3
