"""Training with a store of the batch: what a row finds is what an attached store gives, and nothing gives a copy away."""

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.cli import main
from solomonic.memory import open_store
from solomonic.retrieval.attach import Attached
from solomonic.retrieval.neighbours import Neighbours
from solomonic.retrieval.schema import store_schema
from solomonic.training.lookup import IGNORE, LookupRows, lookup_layers
from solomonic.training.rows import Rows, TokenizedText

from ..laws.cases import shake
from .texts import SHORT, SMALL, losses_of, write_text

V, END = 50, 49


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = preset("bmojo", vocab_size=V, d_model=32, n_layers=2, window=6, capacity=5, block=1, n_kv_heads=2, conv=3)
    model = LanguageModel(config)
    shake(model, 0.1)
    return model.eval()


def stores(model, may_see, k=3):
    return [Neighbours(may_see, k, admit) for admit in lookup_layers(model)]


def rows(seed=0, length=64, batch_size=6, share=0.5, steps=600, count=3000):
    values = np.random.default_rng(7).integers(0, END, count)
    starts = np.array([0, 700, 2100])
    values[starts] = END
    text = Rows(TokenizedText(values, starts, count), length, batch_size, seed, carry=False)
    return LookupRows(text, share, steps, V, END)


def test_a_row_finds_what_an_attached_store_of_the_other_rows_gives(model):
    tokens = torch.randint(V, (3, 40), generator=torch.Generator().manual_seed(1))
    may_see = ~torch.eye(3, dtype=torch.bool)
    may_see[0, 2] = False
    with torch.no_grad():
        alone = model(tokens)[0]
        logits, _ = model(tokens, stores=stores(model, may_see))
        # the first layer's keys are of the tokens alone; what they find changes the second layer's
        last = [None, Neighbours(may_see, 3, True)]
        expected = model(tokens, stores=last)[0]
        for row in range(3):
            with open_store("ram:", store_schema(model, [1], "float32"), write=True) as store:
                attached = Attached(model, store, k=3)
                for other in may_see[row].nonzero()[:, 0].tolist():
                    with store.document(f"{other}") as writing:
                        writer = attached.write(writing)
                        _, state = writer(tokens[other : other + 1])
                        writer.finish(state)
                got = attached(tokens[row : row + 1])[0]
            assert (got - alone[row : row + 1]).abs().max() > 1e-2
            torch.testing.assert_close(got, expected[row : row + 1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits, expected)


def test_gradients_reach_what_is_found_and_nothing_else(model):
    x = torch.randn(2, 12, 32, requires_grad=True)
    may_see = torch.tensor([[False, True], [False, False]])
    y, _ = model.hidden(x, stores=[None, Neighbours(may_see, 2, True)])
    y[0].sum().backward()
    assert x.grad[1].abs().sum() > 0
    x.grad = None
    y, _ = model.hidden(x, stores=[None, Neighbours(may_see, 2, True)])
    y[1].sum().backward()
    assert x.grad[0].abs().sum() == 0


def test_rows_that_see_nothing_are_as_without_a_store(model):
    tokens = torch.randint(V, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = model(tokens)[0], model(tokens, stores=stores(model, torch.zeros(2, 2, dtype=torch.bool)))[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_random_rows_ask_for_what_they_hold():
    found = rows()
    assert found.warm == 150 and rows(steps=30).warm == 10 and rows(steps=5000).warm == 500
    for step in (0, 60, 149):
        batch = found.batch(step)
        assert batch.may_see is None and 0.8 * 6 * 64 <= batch.tokens.size <= 6 * 64
        assert END not in batch.tokens
        asked = batch.targets != IGNORE
        assert asked.any(1).all() and (batch.targets[:, :-1] == batch.tokens[:, 1:])[asked[:, :-1]].all()
        for row, where in zip(batch.tokens.tolist(), asked):
            first, last = np.flatnonzero(where)[[0, -1]]
            passage = row[first : last + 1]
            assert any(row[i : i + len(passage)] == passage for i in range(first))


def test_the_last_rows_hold_passages_of_the_first_which_find_none_of_them():
    found = rows()
    batch = found.batch(found.warm + 3)
    plain = found.rows.batch(3)
    assert (batch.tokens[:3] == plain.tokens[:3]).all() and (batch.targets[:3] == plain.targets[:3]).all()
    runs = {tuple(row[i : i + 16]) for row in batch.tokens[:3].tolist() for i in range(len(row) - 15)}
    for row in batch.tokens[3:].tolist():
        assert any(tuple(row[i : i + 16]) in runs for i in range(len(row) - 15))
    assert (batch.tokens[:, 1:] == batch.targets[:, :-1]).all()
    assert not batch.may_see[:3, 3:].any() and not batch.may_see.diagonal().any() and batch.may_see[3:].sum() == 15
    again = rows().batch(found.warm + 3)
    assert all((getattr(again, name) == getattr(batch, name)).all() for name in ("tokens", "targets", "segments"))


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.0}, {"length": 16}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="lookup: expected"):
        rows(**options)


def run(text, out, *words) -> int:
    short = [*SHORT, "--length", "32"]
    return main(["train", str(text), "--out", str(out), "--steps", "6", *SMALL, *short, "--lookup", "0.5", *words])


def test_a_run_learns_so_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    from contextlib import nullcontext

    import solomonic.training.text as module

    text = write_text(tmp_path / "text.jsonl")
    assert run(text, tmp_path / "whole") == 0
    steps = iter(range(100))
    monkeypatch.setattr(module, "asked_to_stop", lambda: nullcontext(lambda: next(steps) == 3))
    assert run(text, tmp_path / "parts") == 130
    monkeypatch.undo()
    assert run(text, tmp_path / "parts", "--resume") == 0
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--carry"], "leave --carry or --lookup out"),
        (["--capacity", "0"], "eidetic memory"),
        (["--accumulate", "4"], "two rows or more"),
        (["--lookup", "1.5"], "a share in"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, words, said):
    assert run(write_text(tmp_path / "text.jsonl"), tmp_path / "out", *words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1
