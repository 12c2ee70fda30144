"""The laws hold for the mixer and the task of a stranger, and each catches what it is for, and says what broke."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from solomonic.mixers import MIXERS
from solomonic.mixers.base import Reading
from solomonic.tasks import IGNORE, TASKS, Batch
from solomonic.testing import MixerLaws, check_mixer, check_task, compare
from solomonic.testing.compare import laws_of

from ..plugins import EMA, TASK

EXAMPLES = {"__name__": __name__}
for source in (EMA, TASK):
    exec(source.split("\nMIXERS[")[0].split("\nTASKS[")[0], EXAMPLES)


class PaddingLeaks(EXAMPLES["EMA"]):
    """The state takes padding in."""

    def read(self, x, state, sequences, innovate=False):
        y, _, decay, *_ = super().read(x, state, sequences)
        _, after, *_ = super().read(x, state, replace(sequences, length=None))
        return Reading(y, after, decay)


class StateNotCarried(EXAMPLES["EMA"]):
    """Every call begins from nothing."""

    def read(self, x, state, sequences, innovate=False):
        return super().read(x, None, sequences)


class FutureLeaks(EXAMPLES["EMA"]):
    """Every output has a little of the call's last input."""

    def read(self, x, state, sequences, innovate=False):
        y, *rest = super().read(x, state, sequences)
        return Reading(y + 0.1 * x[:, -1:], *rest)


class ChunksDiffer(EXAMPLES["EMA"]):
    """Outputs depend on how many tokens the call has."""

    def read(self, x, state, sequences, innovate=False):
        y, *rest = super().read(x, state, sequences)
        return Reading(y / x.shape[1], *rest)


class RowsMix(EXAMPLES["EMA"]):
    def read(self, x, state, sequences, innovate=False):
        y, *rest = super().read(x, state, sequences)
        return Reading(y + 0.1 * y.mean(0, keepdim=True), *rest)


class Documents(EXAMPLES["EMA"]):
    """A document goes on from the one before it in its row."""

    def read(self, x, state, sequences, innovate=False):
        return super().read(x, state, replace(sequences, position=sequences.position + 1))


class Detached(EXAMPLES["EMA"]):
    def read(self, x, state, sequences, innovate=False):
        y, after, decay, *_ = super().read(x, state, sequences)
        return Reading(y, {name: leaf.detach() for name, leaf in after.items()}, decay)


class Grows(EXAMPLES["EMA"]):
    """The state is a view of all that was computed."""

    def read(self, x, state, sequences, innovate=False):
        y, after, decay, *_ = super().read(x, state, sequences)
        held = torch.cat([after["y"][:, None], self.value(x)], 1)
        return Reading(y, after | {"y": held[:, 0]}, decay)


class OtherTensor(EXAMPLES["EMA"]):
    """A tensor that is neither a parameter nor a setting."""

    def __init__(self, d_model, config):
        super().__init__(d_model, config)
        self.scale = torch.rand(d_model)

    def read(self, x, state, sequences, innovate=False):
        y, *rest = super().read(x, state, sequences)
        return Reading(y * self.scale, *rest)


class Random(EXAMPLES["EMA"]):
    def read(self, x, state, sequences, innovate=False):
        y, *rest = super().read(x, state, sequences)
        return Reading(y + 0.01 * torch.randn_like(y), *rest)


class Saturates(EXAMPLES["EMA"]):
    """What it says it forgot is not what it forgot."""

    def read(self, x, state, sequences, innovate=False):
        y, after, decay, *_ = super().read(x, state, sequences)
        return Reading(y, after | {"log_decay": 0.5 * after["log_decay"]}, decay)


@pytest.fixture
def known(monkeypatch):
    def known(mixer):
        monkeypatch.setitem(MIXERS, "ema", mixer)

    return known


def test_a_mixer_from_outside_keeps_the_laws(known):
    known(EXAMPLES["EMA"])
    check_mixer("ema", d_model=16, decay=0.8)
    with pytest.raises(ValueError, match="unknown setting of ema 'decoy': did you mean 'decay'"):
        check_mixer("ema", decoy=0.8)
    with pytest.raises(ValueError, match="expected no settings beside a configuration"):
        check_mixer(EXAMPLES["EMAConfig"](), decay=0.8)


@pytest.mark.parametrize(
    "mixer, law, says",
    [
        (PaddingLeaks, "padding", "padding left, row 0 of 30 real tokens: "),
        (StateNotCarried, "chunks_equal_whole", "in calls of one at a time, .*: logits: relative error"),
        (StateNotCarried, "gradient_through_the_state", "gradient by the first call's embeddings: relative error"),
        (FutureLeaks, "causality", "a change from token 6 on changes logits before it: relative error"),
        (ChunksDiffer, "chunks_equal_whole", "in calls of one at a time"),
        (ChunksDiffer, "random_splits", "logits in calls of"),
        (RowsMix, "rows_of_a_batch_do_not_see_each_other", "row 0 of a batch, against it alone"),
        (Documents, "packing", "packed documents, against each alone: logits"),
        (Detached, "detached_state_stops_the_gradient", "the state passes no gradient on|the state is detached"),
        (Grows, "state_bytes", "keeps .*, as a view of something larger"),
        (OtherTensor, "settings_and_weights_are_all_there_is", "a tensor is neither a parameter nor"),
        (Random, "same_call_same_answer", "two calls on the same tokens give other logits"),
        (Saturates, "composing_in_sequence_is_reading_in_a_row", "state of the chunks, against"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_broken_mixer_is_caught_by_its_law(known, mixer, law, says):
    known(mixer)
    laws = MixerLaws()
    laws.mixer, laws.d_model = "ema", 16
    with pytest.raises(AssertionError, match=says):
        laws_of(laws)[law]()


def test_all_broken_laws_are_named_at_once(known, monkeypatch):
    known(FutureLeaks)
    some = ("causality", "state_bytes", "packing")
    monkeypatch.setattr(compare, "laws_of", lambda laws: {name: laws_of(laws)[name] for name in some})
    with pytest.raises(AssertionError, match="mixer ema breaks 2 of 3 laws:\ncausality: .*\npacking: ") as broken:
        check_mixer("ema", d_model=16)
    assert "state_bytes" not in str(broken.value)


Echo = EXAMPLES["Echo"]


class OwnGenerator(Echo):
    def test_batch(self, size, length, rng):
        return super().test_batch(size, length, np.random.default_rng())


class OutOfRange(Echo):
    def test_batch(self, size, length, rng):
        batch = super().test_batch(size, length, rng)
        return Batch(batch.tokens + 1, batch.targets)


class Unchecked(Echo):
    def test_batch(self, size, length, rng):
        return super().test_batch(max(int(size), 1), length, rng)


class NothingScored(Echo):
    def test_batch(self, size, length, rng):
        batch = super().test_batch(size, length, rng)
        return Batch(batch.tokens, torch.full_like(batch.targets, IGNORE))


class OtherChance(Echo):
    def __init__(self, **options):
        super().__init__(**options)
        self.chance = 0.5


def test_a_task_from_outside_keeps_the_laws(monkeypatch):
    monkeypatch.setitem(TASKS, "echo", Echo)
    check_task("echo")
    check_task("echo", vocab_size=5)


@pytest.mark.parametrize(
    "task, says",
    [
        (OwnGenerator, "batch_follows_from_arguments_and_generator: the same arguments and seed give other rows"),
        (OutOfRange, "shapes_and_ranges: tokens from 1 to 8, of 8"),
        (Unchecked, "impossible_arguments_are_refused: a training batch of 0 rows: expected a ValueError"),
        (NothingScored, "shapes_and_ranges: a row without a position that is scored"),
        (OtherChance, "chance_is_that_of_a_guess_among_the_answers: a chance of 0.5 with 8 answers"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_broken_task_is_caught_by_its_law(monkeypatch, task, says):
    monkeypatch.setitem(TASKS, "echo", task)
    with pytest.raises(AssertionError, match=says):
        check_task("echo")
