"""The laws of `mixers/base.py` on a model of two layers, in float32, to 1e-4 of the largest value."""

import json
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.formats import solomonic as ours
from ..mixers import MIXERS, Mixer, MixerConfig, config_from_dict
from ..model import LanguageModel, ModelConfig, State, map_state, state_tensors
from ..ops.composition import METHODS
from .compare import (
    VOCABULARY,
    assert_close,
    assert_same_gradients,
    assert_same_state,
    check,
    expect,
    expect_refused,
    gradients_of,
    shake,
    tokens,
)

LENGTH = 45
CUTS = {
    "one at a time": [1] * LENGTH,
    "halves": [22, 23],
    "window boundaries": [7, 7, 14, 17],
    "odd": [1, 5, 13, 2, 24],
    "long then single": [40, 1, 1, 1, 1, 1],
    "chunk boundaries": [32, 1, 12],
}
CHUNKS = [9, 1, 22, 6]
"""Lengths of chunks that are read apart: shorter and longer than most windows; boundaries of no block."""


def build_model(config: ModelConfig) -> LanguageModel:
    """With every parameter away from its initial value, so that no law holds by a zero."""
    torch.manual_seed(0)
    model = LanguageModel(config)
    shake(model, 0.1)
    return model


def run(model: LanguageModel, x: Tensor, cuts: list[int], state: State | None = None) -> tuple[Tensor, State]:
    logits = []
    for part in x.split(cuts, 1):
        y, state = model(part, state)
        logits.append(y)
    assert state is not None  # there is a part
    return torch.cat(logits, 1), state


def loss(logits: Tensor, state: State) -> Tensor:
    """A scalar that depends on all logits and all of the state's floats."""
    total = (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()
    for _, tensor in state_tensors(state):
        if tensor.is_floating_point():
            finite = tensor[tensor.isfinite()]
            total = total + (finite * torch.linspace(1, 2, finite.numel())).sum() / max(1, finite.numel())
    return total


def chunks(lengths: list[int] = CHUNKS, batch: int = 2) -> list[Tensor]:
    return [tokens(batch, n, seed=40 + i) for i, n in enumerate(lengths)]


def read(model: LanguageModel, parts: list[Tensor]) -> list[State]:
    return [model(part)[1] for part in parts]


def faded(model: LanguageModel, state: State) -> dict[str, Tensor]:
    """The leaves that the order of chunks does not matter to."""
    fades = {name for module in model.modules() if isinstance(module, Mixer) for name in module.fades}
    own = (*(f".{name}" for name in fades), ".log_decay", ".position")
    return {name: x for name, x in state_tensors(state) if name.endswith(own)}


def check_reading_in_a_row(model: LanguageModel, lengths: list[int]) -> None:
    """Composing in sequence is reading in a row, for a model of one layer without seams.

    All but the keys and values of fading outputs, which depend on the fading state; so do logits where there are.
    """
    with torch.no_grad():
        parts = chunks(lengths)
        _, expected = model(torch.cat(parts, 1))
        got = model.compose(read(model, parts), "sequence")
        own = [{name: x for name, x in state_tensors(s) if not name.endswith("_fading")} for s in (got, expected)]
        assert_same_state(own[0], own[1], "state of the chunks, against that of reading them in a row")
        if len(own[1]) == len(list(state_tensors(expected))):
            more = tokens(2, 30, seed=60)
            assert_close(model(more, got)[0], model(more, expected)[0], "logits that follow")


class ModelLaws:
    """The laws, each a method; a subclass has the `model`, newly made and the same at every call."""

    def model(self) -> LanguageModel:
        raise NotImplementedError

    @property
    def is_bounded(self) -> bool:
        return self.model().bounded

    def test_same_call_same_answer(self) -> None:
        model, x = self.model(), tokens(2, LENGTH)
        with torch.no_grad():
            first, second = model(x)[0], model(x)[0]
        expect(torch.equal(first, second), "two calls on the same tokens give other logits")

    def test_chunks_equal_whole(self) -> None:
        model, x = self.model(), tokens(2, LENGTH)
        expected, expected_state = model(x)
        loss(expected, expected_state).backward()
        gradients = gradients_of(model)
        for name, cut in CUTS.items():
            model.zero_grad()
            got, state = run(model, x, cut)
            loss(got, state).backward()
            where = f"in calls of {name}, {cut}: "
            assert_close(got, expected, f"{where}logits")
            assert_same_state(state, expected_state, f"{where}state")
            assert_same_gradients(gradients_of(model), gradients, where)

    def test_random_splits(self) -> None:
        model, x = self.model(), tokens(1, LENGTH)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            expected, expected_state = model(x)
            for _ in range(4):
                ends = torch.randperm(LENGTH - 1, generator=generator)[:5].sort().values + 1
                cuts = torch.diff(ends, prepend=torch.tensor([0]), append=torch.tensor([LENGTH])).tolist()
                got, state = run(model, x, cuts)
                assert_close(got, expected, f"logits in calls of {cuts}")
                assert_same_state(state, expected_state, f"state in calls of {cuts}")

    def test_causality(self) -> None:
        model, x = self.model(), tokens(2, LENGTH)
        with torch.no_grad():
            expected, _ = model(x)
            for t in (0, 6, 7, 20, LENGTH - 1):
                changed = x.clone()
                changed[:, t:] = (changed[:, t:] + 1) % VOCABULARY
                got, _ = model(changed)
                assert_close(got[:, :t], expected[:, :t], f"a change from token {t} on changes logits before it")
                expect(
                    not torch.allclose(got[:, t:], expected[:, t:], atol=1e-3),
                    f"a change from token {t} on changes no logits after it",
                )

    def test_rows_of_a_batch_do_not_see_each_other(self) -> None:
        model, x = self.model(), tokens(3, LENGTH)
        with torch.no_grad():
            logits, state = model(x)
            for row in range(3):
                alone, own = model(x[row : row + 1])
                assert_close(logits[row : row + 1], alone, f"row {row} of a batch, against it alone")
                for (name, got), (_, want) in zip(state_tensors(state), state_tensors(own)):
                    assert_close(got[row : row + 1], want, f"row {row} of a batch, against it alone: {name}")

    def test_padding(self) -> None:
        """Rows of 30, 11 and 0 real tokens after a state of ragged rows; the padding holds tokens that do not exist."""
        for side in ("left", "right", "both", "holes"):
            self._check_padding(side)

    def _check_padding(self, side: str) -> None:
        model = self.model()
        lengths, T = [30, 11, 0], 34
        first, second = tokens(3, 9, seed=4), tokens(3, 30, seed=5)
        mask = torch.zeros(3, T, dtype=torch.bool)
        generator = torch.Generator().manual_seed(6)
        for row, n in enumerate(lengths):
            places = {"left": range(T - n, T), "right": range(n), "both": range(2, 2 + n)}
            mask[row, list(places[side]) if side in places else torch.randperm(T, generator=generator)[:n]] = True
        padded = torch.full((3, T), -7)
        for row, n in enumerate(lengths):
            padded[row, mask[row]] = second[row, :n]
        before_mask = torch.tensor([[True] * 9, [False] * 4 + [True] * 5, [True] * 7 + [False] * 2])
        with torch.no_grad():
            _, before = model(first, mask=before_mask)
            logits, after = model(padded, before, mask=mask)
            more, _ = model(tokens(3, 4, seed=7), after)
            for row, n in enumerate(lengths):
                where = f"padding {side}, row {row} of {n} real tokens"
                alone = torch.cat([first[row][before_mask[row]], second[row, :n]])[None]
                expected, state = model(alone)
                assert_close(logits[row, mask[row]], expected[0, before_mask[row].sum() :], f"{where}: logits")
                for (name, got), (_, want) in zip(state_tensors(after), state_tensors(state)):
                    if got.dim() > 1 and got.shape[1] > want.shape[1]:
                        got = got[:, -want.shape[1] or got.shape[1] :]  # unbounded: the longest row's, older ones zero
                    assert_close(got[row], want[0], f"{where}: {name}")
                continued, _ = model(tokens(3, 4, seed=7)[row : row + 1], state)
                assert_close(more[row], continued[0], f"{where}: logits that follow")

    def test_packing(self) -> None:
        """Documents of many lengths in one row equal each alone; gradients, the last one's state, a later cut too."""
        model = self.model()
        lengths = [1, 9, 2, 21, 7, 5]
        documents = [tokens(1, n, seed=10 + n) for n in lengths]
        packed = torch.cat([*documents], 1)
        segments = torch.repeat_interleave(torch.tensor([3, 4, 6, 7, 8, 9]), torch.tensor(lengths))[None]
        expected = []
        total = torch.zeros(())
        for document in documents:
            logits, state = model(document)
            expected.append(logits)
            total = total + logits.square().sum()
        total.backward()
        gradients = gradients_of(model)
        model.zero_grad()
        got, got_state = model(packed, segments=segments)
        got.square().sum().backward()
        where = "packed documents, against each alone: "
        assert_close(got, torch.cat(expected, 1), f"{where}logits")
        assert_same_state(got_state, state | {"segment": got_state["segment"]}, f"{where}state")
        assert_same_gradients(gradients_of(model), gradients, where)
        with torch.no_grad():
            for cut in (1, 10, 11, 25, 33, 40):
                first, between = model(packed[:, :cut], segments=segments[:, :cut])
                second, end = model(packed[:, cut:], between, segments=segments[:, cut:])
                assert_close(torch.cat([first, second], 1), torch.cat(expected, 1), f"{where}logits cut at {cut}")
                assert_same_state(end, got_state, f"{where}state cut at {cut}")

    def test_packing_and_padding_together(self) -> None:
        model = self.model()
        x, segments = tokens(2, 26, seed=20), torch.tensor([[0] * 11 + [1] * 15, [0] * 20 + [5] * 6])
        mask = torch.ones(2, 26, dtype=torch.bool)
        mask[0, 3:8] = mask[1, :9] = mask[1, 24:] = False
        with torch.no_grad():
            logits, state = model(x, mask=mask, segments=segments)
            more, _ = model(tokens(2, 8, seed=21), state)
            for row in range(2):
                for document in segments[row].unique():
                    real = mask[row] & (segments[row] == document)
                    expected, alone = model(x[row, real][None])
                    assert_close(logits[row, real], expected[0], f"row {row}, document {document}: logits")
                continued, _ = model(tokens(2, 8, seed=21)[row : row + 1], alone)
                assert_close(more[row], continued[0], f"row {row}: logits that follow")

    def test_chunks_of_flat_text(self) -> None:
        """Runs of one token leave predictors of the fading output with rounding errors alone: those must not choose."""
        model = self.model()
        x = torch.tensor([[1] * 60 + [2] * 60 + [3] * 20 + list(range(4, 20)) * 2])
        with torch.no_grad():
            expected, _ = model(x)
            got, _ = run(model, x, [23] * 7 + [11])
            assert_close(got, expected, "logits")

    def test_state_bytes(self) -> None:
        model = self.model()
        sizes = []
        with torch.no_grad():
            for length in (1, 8, 40, 90):
                _, state = model(tokens(3, length))
                taken = sum(t.numel() * t.element_size() for _, t in state_tensors(state))
                held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, t in state_tensors(state)}
                said = model.state_bytes(length, batch=3)
                expect(taken == said, f"a state of {taken} bytes after {length} tokens, {said} by `init_state`")
                whole = sum(held.values())
                expect(whole == taken, f"a state of {taken} bytes keeps {whole}, as a view of something larger")
                sizes.append(taken)
        if self.is_bounded:
            expect(len(set(sizes)) == 1, f"a bounded state of {sizes} bytes after 1, 8, 40 and 90 tokens")
        else:
            expect(sorted(set(sizes)) == sizes, f"an unbounded state of {sizes} bytes after 1, 8, 40 and 90 tokens")

    def test_gradient_through_the_state(self) -> None:
        """The loss of a second call, differentiated by what was read in the first: as if both had been one call."""
        model = self.model()
        x = tokens(2, 30, seed=30)

        def gradient(cuts: list[int]) -> Tensor:
            shift = torch.zeros(2, 18, model.config.d_model, requires_grad=True)
            seen = iter([0, 18] if len(cuts) == 2 else [0])

            def add(module: Any, inputs: Any, embedded: Tensor) -> Tensor | None:
                if next(seen) == 0:
                    return torch.cat([embedded[:, :18] + shift, embedded[:, 18:]], 1)
                return None

            hook = model.embedding.register_forward_hook(add)
            logits, _ = run(model, x, cuts)
            hook.remove()
            found = torch.autograd.grad(logits[:, 18:].square().sum(), shift, allow_unused=True)[0]
            return torch.zeros_like(shift) if found is None else found

        whole = gradient([30])
        reaches = (whole[:, -1].abs().amax(-1) > 0).all()
        expect(reaches, "what the first call read last has no gradient by the loss of the second")
        assert_close(gradient([18, 12]), whole, "gradient by the first call's embeddings")

    def test_detached_state_stops_the_gradient(self) -> None:
        """The first call's rows of the embedding get a gradient through the state, and none once it is detached."""
        model = self.model()
        first, second = torch.arange(12)[None], torch.arange(20, 30)[None]
        for detached in (False, True):
            model.zero_grad()
            _, state = model(first)
            expect(any(t.requires_grad for _, t in state_tensors(state)), "the state is detached")
            logits, _ = model(second, map_state(Tensor.detach, state) if detached else state)
            logits[..., 40:].square().sum().backward()  # a tied head would reach the rows of the tokens it predicts
            gradient = model.embedding.weight.grad
            assert gradient is not None  # of the second call
            what = "a detached state passes a gradient on" if detached else "the state passes no gradient on"
            expect((gradient[:12].abs().max() == 0) == detached, what)

    def test_settings_and_weights_are_all_there_is(self) -> None:
        """What config.json and the weights keep makes the same model: no tensor is made of anything else."""
        model, x = self.model(), tokens(2, LENGTH)
        settings = json.loads(json.dumps(ours.describe(model.config)))
        config, weights = ours.translate(settings, {f"{ours.PREFIX}{k}": v for k, v in model.state_dict().items()})
        expect(config == model.config, f"settings as JSON give {config}, not {model.config}")
        with torch.device("meta"):
            again = LanguageModel(config)
        again.load_state_dict(weights, assign=True)
        with torch.no_grad():
            expected = model(x)[0]
            try:
                got = again(x)[0]
            except (RuntimeError, NotImplementedError) as error:  # of a tensor that holds nothing
                raise AssertionError(
                    f"a tensor is neither a parameter nor made of the settings in a call: {error}"
                ) from None
        expect(torch.equal(got, expected), "the model of the same settings and weights gives other logits")

    def test_one_state_composes_to_itself(self) -> None:
        model = self.model()
        if not model.bounded:
            expect_refused(lambda: model.compose(read(model, chunks())), "expected a bounded state", "compose")
            return
        with torch.no_grad():
            for part in chunks():
                for how in METHODS:
                    (state,) = read(model, [part])
                    assert_same_state(model.compose([state], how), state, f"one state, composed by {how}")

    def test_order_does_not_matter_to_what_fades(self) -> None:
        model = self.model()
        if not model.bounded:
            return
        with torch.no_grad():
            states = read(model, chunks())
            for how in ("picaso", "soup"):
                expected = faded(model, model.compose(states, how))
                for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
                    got = faded(model, model.compose([states[i] for i in order], how))
                    assert_same_state(got, expected, f"composed by {how} in the order {order}")

    def test_composing_in_sequence_is_associative(self) -> None:
        model = self.model()
        if not model.bounded:
            return
        with torch.no_grad():
            states = read(model, chunks())
            expected = model.compose(states, "sequence")
            for cut in (1, 2, 3):
                parts = [model.compose(part, "sequence") for part in (states[:cut], states[cut:])]
                assert_same_state(model.compose(parts, "sequence"), expected, f"composed in two, cut at {cut}")

    def test_rows_are_composed_alone(self) -> None:
        """Chunks of ragged rows, one of them empty; the model goes on from the composition in both rows alike."""
        model = self.model()
        if not model.bounded:
            return
        lengths = [[9, 3], [2, 11], [14, 0], [5, 5]]
        with torch.no_grad():
            ragged: list[State] = []
            alone: list[list[State]] = [[], []]
            for x, (a, b) in zip(chunks([max(n) for n in lengths]), lengths):
                mask = torch.arange(x.shape[1]) < torch.tensor([[a], [b]])
                ragged.append(model(x, mask=mask)[1])
                for row, n in enumerate((a, b)):
                    alone[row].append(model(x[row : row + 1, :n])[1] if n else model.init_state(1))
            for how in METHODS:
                got, more = model.compose(ragged, how), tokens(2, 12, seed=61)
                logits, _ = model(more, got)
                for row in range(2):
                    where, expected = f"row {row}, composed by {how}, against it alone", model.compose(alone[row], how)
                    mine = {name: x[row : row + 1] for name, x in state_tensors(got)}
                    assert_same_state(mine, dict(state_tensors(expected)), where)
                    following = model(more[row : row + 1], expected)[0]
                    assert_close(logits[row : row + 1], following, f"{where}: logits that follow")

    def test_gradient_through_the_composition(self) -> None:
        """What follows depends on every chunk, the second of which is shorter than a window, and is differentiated by it."""
        model = self.model()
        if not model.bounded:
            return
        for how in METHODS:
            states = read(model, chunks([6, 3]))
            kept = [[t for _, t in state_tensors(state) if t.requires_grad] for state in states]
            logits, _ = model(tokens(2, 5, seed=62), model.compose(states, how))
            for i, state in enumerate(kept):
                gradients = torch.autograd.grad(logits.square().sum(), state, retain_graph=True, allow_unused=True)
                where = f"composed by {how}: the gradient by chunk {i}"
                expect(all(g.isfinite().all() for g in gradients if g is not None), f"{where} is not finite")
                expect(any(g is not None and g.abs().max() > 0 for g in gradients), f"{where} is zero")


class MixerLaws(ModelLaws):
    """The laws of one mixer.

    mixer: its configuration, or its name for the default one. d_model: the width of the layer. approximate: whether composing in
    sequence is an approximation, as for the delta rule; else it has to be reading in a row, but for the seams of short
    convolutions, of which the weights of rows before the present one are zero (`conv.weight`).
    """

    mixer: MixerConfig | str
    d_model: int = 32
    approximate: bool = False

    def _build(self, layers: int) -> LanguageModel:
        config = MIXERS[self.mixer].Config() if isinstance(self.mixer, str) else self.mixer
        return build_model(ModelConfig(VOCABULARY, self.d_model, (config,) * layers, d_ff=40))

    def model(self) -> LanguageModel:
        return self._build(2)

    def test_composing_in_sequence_is_reading_in_a_row(self) -> None:
        if self.approximate or not self.is_bounded:
            return
        model = self._build(1)
        without_seams(model)
        for lengths in (CHUNKS, [4, 8, 12], [1, 2, 1, 1], [40, 40]):
            check_reading_in_a_row(model, lengths)

    def test_a_fading_mixer_says_what_fades(self) -> None:
        mixer = self.model().blocks[0].mixer
        expect(mixer.is_fading == bool(mixer.fades), f"is_fading is {mixer.is_fading}, fades {mixer.fades}")


def without_seams(model: LanguageModel) -> None:
    """No short convolution sees past the present row."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv.weight" in name:
                parameter[..., :-1] = 0


def check_mixer(mixer: str | MixerConfig, d_model: int = 32, approximate: bool = False, **settings: Any) -> None:
    """All laws of a mixer at once (`MixerLaws`): by its name with the settings of its configuration, or by that itself.

    AssertionError with a line for each law that is broken. ValueError for an unknown name or setting.
    """
    laws = MixerLaws()
    if not isinstance(mixer, str) and settings:
        raise ValueError(f"expected no settings beside a configuration, got {', '.join(settings)}; put them in it")
    laws.mixer = config_from_dict({"mixer": mixer} | settings) if isinstance(mixer, str) else mixer
    laws.d_model, laws.approximate = d_model, approximate
    check(laws, f"mixer {laws.mixer.name}")


__all__ = ["MixerLaws", "ModelLaws", "build_model", "check_mixer", "check_reading_in_a_row", "without_seams"]
