"""Training: the same seed gives the same run, interrupted or not; evaluation in chunks equals evaluation at once."""

import numpy as np
import pytest
import torch

from solomonic import LanguageModel, preset
from solomonic.evaluation.tasks import evaluate
from solomonic.tasks import task
from solomonic.tasks.base import Batch
from solomonic.training.config import TrainConfig
from solomonic.training.history import Diverged, Interrupted
from solomonic.training.tasks import fit

RECALL = task("distractor_recall", pairs=2, keys=4, values=4, length=12)
CONFIG = TrainConfig(steps=3, batch_size=4, lr=1e-2)


def small_model(arch="bmojo", seed=0):
    torch.manual_seed(seed)
    return LanguageModel(preset(arch, vocab_size=8, d_model=16, n_layers=1, window=4, capacity=4))


def test_same_seed_same_run():
    config = TrainConfig(steps=6, batch_size=4, lr=1e-2, seed=3)
    first, second = small_model(), small_model()
    assert fit(first, RECALL, config).curve == fit(second, RECALL, config).curve
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)
    assert fit(small_model(), RECALL, TrainConfig(6, 4, 1e-2, seed=4)).curve != fit(small_model(), RECALL, config).curve


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    config = TrainConfig(steps=9, batch_size=4, lr=1e-2)
    whole, resumed = small_model(), small_model()
    expected = fit(whole, RECALL, config)
    file = tmp_path / "cells" / "run.pt"
    seen = []
    with pytest.raises(Interrupted):
        fit(resumed, RECALL, config, file, report=lambda step, loss: seen.append(step), stop=lambda: len(seen) == 4)
    assert file.exists() and seen == [1, 2, 3, 4]
    resumed = small_model(seed=7)
    got = fit(resumed, RECALL, config, file)
    assert (got.step, got.tokens, got.curve) == (expected.step, expected.tokens, [*map(tuple, expected.curve)])
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)


def stopped(file, problem=RECALL, arch="bmojo"):
    with pytest.raises(Interrupted):
        fit(small_model(arch), problem, CONFIG, file, stop=lambda: True)
    return file.read_bytes()


@pytest.mark.parametrize(
    "other, says",
    [
        ({"config": TrainConfig(steps=3, batch_size=4, lr=2e-2)}, "lr 0.01, now 0.02"),
        ({"config": TrainConfig(steps=3, batch_size=4, lr=1e-2, betas=(0.9, 0.99))}, r"betas \[0.9, 0.95\], now"),
        ({"problem": task("distractor_recall", pairs=2, keys=4, values=4, length=16)}, "task length 12, now 16"),
        ({"problem": task("distractor_recall", pairs=2, keys=4, values=4, length=12, easy=0)}, "task easy 0.6, now 0"),
        ({"problem": task("compression", vocab_size=4, length=9)}, "task 'distractor_recall', now 'compression'"),
        ({"arch": "mamba2"}, "another model"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path, other, says):
    before = stopped(tmp_path / "run.pt")
    model = small_model(other.get("arch", "bmojo"))
    weights = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=says):
        fit(model, other.get("problem", RECALL), other.get("config", CONFIG), tmp_path / "run.pt")
    assert (tmp_path / "run.pt").read_bytes() == before
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))


def test_a_checkpoint_of_the_same_options_on_other_data_is_refused(tmp_path):
    (tmp_path / "text").write_text("".join(chr(97 + i * i % 25) for i in range(400)))
    options = {"data": tmp_path / "text", "length": 12, "lengths": (12,)}
    torch.manual_seed(0)
    model = LanguageModel(preset("mamba2", vocab_size=256, d_model=16, n_layers=1))
    with pytest.raises(Interrupted):
        fit(model, task("text", **options), CONFIG, tmp_path / "run.pt", stop=lambda: True)
    assert fit(model, task("text", **options), CONFIG, tmp_path / "run.pt").step == 3
    (tmp_path / "text").write_text("".join(chr(97 + i * i % 23) for i in range(400)))
    with pytest.raises(ValueError, match="task _train"):
        fit(model, task("text", **options), CONFIG, tmp_path / "run.pt")


@pytest.mark.parametrize("damage", [lambda b: b[:500], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_a_damaged_checkpoint_is_refused_and_stays(tmp_path, damage):
    from solomonic.checkpoints.training import Damaged

    (tmp_path / "run.pt").write_bytes(damage(stopped(tmp_path / "run.pt")))
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(Damaged, match="run.pt"):
        fit(small_model(), RECALL, CONFIG, tmp_path / "run.pt")
    assert (tmp_path / "run.pt").read_bytes() == before


def test_divergence_is_an_error():
    model = small_model()
    with torch.no_grad():
        model.norm.weight.fill_(torch.inf)
    with pytest.raises(Diverged, match="step 1.*lower learning rate"):
        fit(model, RECALL, TrainConfig(steps=2, batch_size=2, lr=1e-3))


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=100, batch_size=1, lr=1.0, warmup=0.1)
    rates = [config.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1.0) and rates[-1] < 1e-3 and rates[10:] == sorted(rates[10:], reverse=True)


def test_fading_memories_are_dropped_at_first_and_not_at_last():
    config = TrainConfig(steps=100, batch_size=4000, lr=1.0, fading_dropout=0.6)
    for step, share in ((0, 0.6), (25, 0.3), (49, 0.012)):
        assert config.dropped(step).float().mean() == pytest.approx(share, abs=0.03)
    assert config.dropped(50) is None and TrainConfig(100, 4, 1.0, fading_dropout=0.0).dropped(0) is None
    assert torch.equal(config.dropped(7), config.dropped(7)) and not torch.equal(config.dropped(7), config.dropped(8))


def test_rows_that_are_cut_are_dropped_whole():
    """A batch may have more rows, and shorter ones."""
    config = TrainConfig(steps=100, batch_size=4, lr=1.0, fading_dropout=0.6)
    whole = config.dropped(3)
    assert torch.equal(config.dropped(3, 4), whole) and torch.equal(config.dropped(3, 10), whole.repeat(3)[:10])
    assert torch.equal(config.dropped(3, 5, slice(2, 4)), whole[2:].repeat(3)[:5])

    class Halves(type(RECALL)):
        def train_batch(self, size, rng, progress=1.0):
            batch = super().train_batch(size, rng, progress)
            return Batch(*(torch.cat(x.chunk(2, 1)) for x in (batch.tokens[:, -4:], batch.targets[:, -4:])))

    problem = Halves(pairs=2, keys=4, values=4, length=12)
    assert fit(small_model(), problem, TrainConfig(2, 4, 1e-3, fading_dropout=1.0)).step == 2


def test_what_is_dropped_is_not_read():
    """A dropped row is read as by a layer of attention alone, with an open gate, and another row as ever."""
    model, tokens = small_model(), torch.randint(0, 8, (2, 20))
    logits, state = model(tokens, dropped=torch.tensor([True, False]))
    torch.testing.assert_close(logits[1], model(tokens)[0][1])
    mixer = model.blocks[0].mixer
    for leaf in mixer.fading.outputs:
        torch.nn.init.zeros_(leaf.weight)
    assert not torch.allclose(logits[0], model(tokens)[0][0], atol=1e-3)
    torch.nn.init.constant_(mixer.gate.bias, 30.0)
    torch.testing.assert_close(logits[0], model(tokens)[0][0])
    with pytest.raises(ValueError, match=r"dropped: expected \(2,\) torch.bool"):
        model(tokens, dropped=torch.tensor([True]))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_to_drop_is_one(share):
    with pytest.raises(ValueError, match="0 <= fading_dropout <= 1"):
        TrainConfig(steps=1, batch_size=1, lr=1.0, fading_dropout=share)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}])
def test_settings_below_their_bound(settings):
    with pytest.raises(ValueError, match="expected steps >= 1"):
        TrainConfig(**{"steps": 1, "batch_size": 1, "lr": 1.0} | settings)


@pytest.mark.parametrize("settings", [{"warmup": 1.1}, {"weight_decay": -0.1}, {"clip": -1.0}, {"betas": (0.9, 1.0)}])
def test_settings_of_the_optimizer_out_of_bounds(settings):
    with pytest.raises(ValueError, match="expected 0 <= warmup <= 1"):
        TrainConfig(steps=1, batch_size=1, lr=1.0, **settings)


def test_learning_happens():
    model = small_model("transformer")
    before = np.nanmean(evaluate(model, RECALL, 12, 64))
    curve = fit(model, RECALL, TrainConfig(steps=60, batch_size=32, lr=1e-2)).curve
    assert curve[-1][1] < 0.8 * curve[0][1]
    assert before < 0.45


@pytest.mark.parametrize("arch", ["transformer", "bmojo", "mamba2"])
def test_evaluation_in_chunks_equals_evaluation_at_once(arch):
    model = small_model(arch)
    text = task("distractor_recall", pairs=2, keys=4, values=4, length=40)
    whole = evaluate(model, text, 40, 32, batch_size=8, chunk=40)
    assert np.isnan(whole[0]).sum() == 38  # two keys are asked
    assert np.allclose(whole, evaluate(model, text, 40, 32, batch_size=8, chunk=7), equal_nan=True)
    written = task("palindrome", symbols=2, length=30, scratchpad=True)  # a wrong token counts against later chunks
    whole = evaluate(model, written, 30, 64, batch_size=8, chunk=30)
    assert np.allclose(whole, evaluate(model, written, 30, 64, batch_size=8, chunk=3), equal_nan=True)
    mean = whole.mean(0)
    assert (np.diff(mean[~np.isnan(mean)]) <= 0).all()
