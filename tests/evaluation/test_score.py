"""Log-probabilities of continuations: as if each had been read by itself, and every context read once."""

import numpy as np
import pytest
import torch

from solomonic.evaluation.score import continuations, read, take

from .models import small

ARCHS = ("bmojo", "transformer", "mamba2", "gated_deltanet")


def groups(rng):
    def tokens(n):
        return rng.integers(0, 257, n)

    return [
        (tokens(23), [tokens(4), tokens(1), tokens(9)]),
        (tokens(1), [tokens(30)]),
        (tokens(40), [tokens(2), tokens(0)]),
        (tokens(40), [tokens(3)] * 3),
    ]


def alone(model, context, after):
    """The same number from one reading of everything."""
    whole = torch.from_numpy(np.concatenate([context, after]))[None]
    with torch.no_grad():
        log_p = model(whole)[0][0, len(context) - 1 : -1].double().log_softmax(-1)
    told = torch.from_numpy(after)
    return log_p.gather(1, told[:, None]).sum().item(), bool((log_p.argmax(-1) == told).all())


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("batch, chunk", [(8, 2048), (1, 7), (3, 5)])
def test_as_if_read_by_itself(arch, batch, chunk):
    model, wanted = small(arch), groups(np.random.default_rng(0))
    found = continuations(model, wanted, batch, chunk)
    for (context, after), scores in zip(wanted, found):
        assert len(scores) == len(after)
        for one, (log_p, greedy) in zip(after, scores):
            expected, right = alone(model, context, one)
            assert log_p == pytest.approx(expected, abs=1e-4) and greedy == right


@pytest.mark.parametrize("arch", ARCHS)
def test_greedy_continuations_are_greedy(arch):
    model, context = small(arch), np.random.default_rng(1).integers(0, 257, 12)
    tokens = context.tolist()
    for _ in range(6):
        tokens.append(int(model(torch.tensor([tokens]))[0][0, -1].argmax()))
    said = np.array(tokens[12:])
    other = said.copy()
    other[3] = (other[3] + 1) % 257
    assert [greedy for _, greedy in continuations(model, [(context, [said, other])])[0]] == [True, False]


def test_a_context_is_read_once():
    model, read_tokens = small(), []

    def count(module, arguments, settings, output):
        mask = settings.get("mask")
        read_tokens.append(arguments[0].numel() if mask is None else int(mask.sum()))

    model.register_forward_hook(count, with_kwargs=True)
    rng = np.random.default_rng(0)
    after = [rng.integers(0, 257, n) for n in (3, 5, 2, 7)]
    continuations(model, [(rng.integers(0, 257, 100), after)], batch=3, chunk=32)
    assert sum(read_tokens) == 99 + sum(map(len, after))


@pytest.mark.parametrize("arch", ARCHS)
def test_states_of_rows_of_any_length(arch):
    model, rng = small(arch), np.random.default_rng(0)
    rows = [rng.integers(0, 257, n) for n in (17, 0, 5)]
    token = torch.full((3, 1), 65)
    with torch.no_grad():
        logits, _ = model(token, read(model, rows, chunk=6))
        picked, _ = model(token, take(read(model, rows, chunk=6), torch.tensor([2, 2, 0])))
        for i, row in enumerate(rows):
            expected = model(torch.from_numpy(np.append(row, 65))[None])[0][0, -1]
            torch.testing.assert_close(logits[i, 0], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(picked[:, 0], logits[[2, 2, 0], 0], atol=1e-5, rtol=0)


def test_a_model_in_training_stays_in_training():
    model = small().train()
    continuations(model, [(np.array([1]), [np.array([2])])])
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
