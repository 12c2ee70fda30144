"""A damaged or forged session is refused in one error, or goes on as the sound one does."""

import json
from functools import cache

import torch
from hypothesis import given
from hypothesis import strategies as st

from solomonic import LanguageModel, preset
from solomonic.checkpoints.tensors import digest, map_tensors, read_tensors, write_tensors
from solomonic.inference.generation import stream
from solomonic.inference.sampling import Sampling
from solomonic.inference.sessions import KEY, Session, SessionFile
from solomonic.model import state_tensors

from . import cases, no_hang

ABOUT = st.sampled_from(
    ["", "null", "[]", "{", "[" * 50_000, '{"a":' * 50_000, "{}", '{"version": NaN}', '{"version": 1e999}', "9" * 5000]
)


@cache
def model(name: str) -> LanguageModel:
    torch.manual_seed(0)
    dials = dict(d_model=16, n_layers=2, window=5, capacity=4, state_size=4)
    return LanguageModel(preset(name, vocab_size=50, **dials)).eval()


@cache
def session(name: str) -> Session:
    (*_, (_, _, session)) = stream(model(name), Session().then(range(20)), Sampling(), max_tokens=3)
    return session


def goes_on(name: str, path) -> tuple[str, list]:
    """What the file gives: the tokens that follow and the state's digest, or the one error."""
    with no_hang():
        try:
            found = SessionFile(path, model(name)).load()
            if not found.pending:
                return "new", []
            tokens = [token for token, _, _ in stream(model(name), found, Sampling(), max_tokens=5)]
            return "goes on", [*tokens, digest(dict(state_tensors(found.state)), {})]
        except ValueError as error:
            return "refused", [str(error)]


def test_damaged_bytes(tmp_path):
    name, path = "bmojo", tmp_path / "session"
    SessionFile(path, model(name)).save(session(name))
    whole, expected = path.read_bytes(), goes_on(name, path)
    assert expected[0] == "goes on"

    @cases(60)
    @given(st.data())
    def tried(data):
        content = bytearray(whole)
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "zeros", "more", "twice"]))
        if how == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del content[max(at, 1) :]
        elif how == "zeros":
            content[at : at + 64] = bytes(len(content[at : at + 64]))
        elif how == "more":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            content = content * 2
        path.write_bytes(content)
        got = goes_on(name, path)
        assert got == expected or (got[0] == "refused" and str(path) in got[1][0])

    tried()


def test_forged_states(tmp_path):
    """With digests that are right: of another tool, or of an earlier release."""
    path = tmp_path / "session"

    @cases(100)
    @given(st.data(), st.sampled_from(["bmojo", "transformer", "mamba3"]))
    def tried(data, name):
        state = session(name).state
        tensors = dict(state_tensors(state)) | {"pending": torch.tensor(session(name).pending, dtype=torch.int64)}
        key = data.draw(st.sampled_from(sorted(tensors)))
        how = data.draw(st.sampled_from(["missing", "type", "shape", "other", "value", "empty"]))
        if how == "missing":
            del tensors[key]
        elif how == "type":
            kinds = [torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.bool]
            kind = data.draw(st.sampled_from([kind for kind in kinds if kind != tensors[key].dtype]))
            tensors[key] = tensors[key].to(kind)
        elif how == "shape":
            tensors[key] = tensors[key][None].clone()
        elif how == "other":
            tensors[data.draw(st.text(st.characters(codec="utf-8"), max_size=9)) + "x"] = tensors[key].clone()
        elif how == "empty":
            tensors[key] = tensors[key].flatten()[:0].clone()
        elif tensors[key].dtype == torch.int64:
            tensors[key] = torch.full_like(tensors[key], data.draw(st.sampled_from([-1, 10**9, 2**62, -(2**63)])))
        else:
            tensors[key] = torch.full_like(tensors[key], data.draw(st.sampled_from([torch.nan, torch.inf, 3e38])))
        file = SessionFile(path, model(name))
        about = {"version": 1, "model": file.fingerprint, "contents": digest(tensors)}
        write_tensors(path, tensors, {KEY: json.dumps(about)})
        what, _ = goes_on(name, path)
        assert what == "refused" or (how == "value" and what == "goes on") or (how == "empty" and key == "pending")

    tried()


def test_forged_metadata(tmp_path):
    name, path = "bmojo", tmp_path / "session"
    SessionFile(path, model(name)).save(session(name))
    tensors, metadata = read_tensors(path)
    about = json.loads(metadata[KEY])

    @cases(60)
    @given(st.data())
    def tried(data):
        if data.draw(st.booleans()):
            text = data.draw(ABOUT)
        else:
            key = data.draw(st.sampled_from(sorted(about)))
            values = st.sampled_from([None, 2, 1.0, "x", [], {}, 10**400, "\N{SNOWMAN}", "deleted"])
            forged = about | {key: data.draw(values)}
            if forged[key] == "deleted":
                del forged[key]
            text = json.dumps(forged)
        write_tensors(path, tensors, {KEY: text})
        assert map_tensors(path)[1][KEY] == text
        what, said = goes_on(name, path)
        assert what == "refused" or json.loads(text) == about, said

    tried()
