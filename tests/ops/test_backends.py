"""The backend law: every fast path of every operation equals its reference, gradients included, at awkward sizes."""

import pytest
import torch
from torch.nn.functional import normalize

from solomonic.ops import dispatch
from solomonic.ops.gated_delta import BACKENDS as GATED_DELTA
from solomonic.ops.gated_delta import gated_delta
from solomonic.ops.innovation import BACKENDS as INNOVATION
from solomonic.ops.innovation import innovation
from solomonic.ops.kalman import BACKENDS as KALMAN
from solomonic.ops.kalman import kalman
from solomonic.ops.memory_attention import BACKENDS as MEMORY_ATTENTION
from solomonic.ops.memory_attention import Stored, memory_attention
from solomonic.ops.memory_attention.state import init_state
from solomonic.ops.selection import ABSENT, select, select_by_query
from solomonic.ops.sequence import Sequences
from solomonic.ops.ssd import BACKENDS as ALL_SSD
from solomonic.ops.ssd import ssd

from ..laws.cases import assert_close, leaves
from .sequences import KINDS, sequences_of

SSD = [name for name in ALL_SSD if name != "triton"]  # that one: `fused_ssd.py`
BATCH = 3
LENGTHS = [1, 2, 31, 63, 130]


def ssd_inputs(length, initial):
    B, H, P, G, N = BATCH, 4, 5, 2, 6
    inputs = [torch.randn(B, length, H, P), torch.randn(B, length, G, N), torch.randn(B, length, G, N)]
    decay = -torch.rand(B, length, H) * 0.5
    return [*inputs, decay, torch.randn(B, H, P, N) if initial else None]


def gated_delta_inputs(length, initial):
    B, H, K, V = BATCH, 2, 6, 5
    q, k = torch.randn(B, length, H, K), normalize(torch.randn(B, length, H, K), dim=-1)
    beta, decay = torch.rand(B, length, H), -torch.rand(B, length, H) * 0.5
    return [q, k, torch.randn(B, length, H, V), beta, decay, torch.randn(B, H, V, K) if initial else None]


def kalman_inputs(length, initial):
    B, H, K, V = BATCH, 2, 6, 5
    q, k = torch.randn(B, length, H, K), normalize(torch.randn(B, length, H, K), dim=-1)
    weight, mix, decay = 0.2 + torch.rand(B, length, H), torch.rand(B, length, H), -torch.rand(B, length, H) * 0.5
    h = u = None
    if initial:
        past = torch.randn(B, H, K, 9)
        h, u = past @ past.mT, torch.randn(B, H, V, 9) @ past.mT
    return [q, k, torch.randn(B, length, H, V), weight, mix, decay, h, u]


def innovating_kalman(*inputs, backend):
    return kalman(*inputs, iterations=8, innovate=True, backend=backend)


def kalman_alone(*inputs, backend):
    y, _, *state = kalman(*inputs, iterations=20, backend=backend)
    return y, *state


SCANS = [
    (ssd, SSD, ssd_inputs),
    (gated_delta, GATED_DELTA, gated_delta_inputs),
    (kalman_alone, KALMAN, kalman_inputs),
    (innovating_kalman, KALMAN, kalman_inputs),
]


@pytest.fixture(params=["torch", "numba"])
def engine(request, monkeypatch):
    """What "tiled" is done by on a CPU: numba only above a size, and only where it is installed."""
    if request.param == "torch":
        monkeypatch.setattr(dispatch, "numba_jit", lambda: None)
    else:
        monkeypatch.setattr(dispatch, "LEAST", 0)


def outputs_and_gradients(call, inputs):
    inputs = [x.clone().requires_grad_() if x is not None and x.is_floating_point() else x for x in inputs]
    out = [x for _, x in leaves(call(*inputs))]
    total = sum((x[x.isfinite()] * torch.linspace(1, 2, int(x.isfinite().sum()))).sum() for x in out if x.requires_grad)
    arguments = [x for x in inputs if x is not None and x.requires_grad]
    return out, torch.autograd.grad(total, arguments, allow_unused=True)


def compare(call, backends, inputs, sequences):
    """`call(*inputs, place, backend=...)` on all backends; rows of padding mean nothing and are dropped."""
    real = sequences.real()

    def run(backend):
        def real_rows(*arguments):
            result = call(*arguments, sequences, backend=backend)
            if real is None:
                return result
            shape = real.shape
            return [r[real] if isinstance(r, torch.Tensor) and r.shape[:2] == shape else r for r in result]

        return outputs_and_gradients(real_rows, inputs)

    expected, expected_gradients = run("reference")
    for backend in [name for name in backends if name not in ("reference", "fla")]:  # fla: `test_fla.py`
        got, gradients = run(backend)
        assert len(got) == len(expected)
        for i, (a, b) in enumerate(zip(got, expected)):
            assert_close(a, b, f"{backend} output {i}")
        for i, (a, b) in enumerate(zip(gradients, expected_gradients)):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a, b, f"{backend} gradient {i}", floor=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("op, backends, inputs", SCANS, ids=["ssd", "gated_delta", "kalman", "innovating kalman"])
def test_scans(op, backends, inputs, length, kind):
    compare(op, backends, inputs(length, kind != "fresh"), sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_ssd_with_a_step_and_a_skip(length, kind):
    """Mamba-2's: S_t = exp(g_t) S_{t-1} + step_t v_t k_t^T, y_t = S_t q_t + skip v_t."""

    def call(*arguments, backend):
        *inputs, step, skip, sequences = arguments
        return ssd(*inputs, sequences, backend, step=step, skip=skip)

    inputs = [*ssd_inputs(length, kind != "fresh"), torch.rand(BATCH, length, 4), torch.randn(4)]
    compare(call, SSD, inputs, sequences_of(kind, BATCH, length))


@pytest.mark.parametrize("length", [5000])
def test_ssd_over_many_chunk_groups(length):
    sequences = sequences_of("packed", 1, length)
    inputs = [x[:1] for x in ssd_inputs(length, True)]
    with torch.no_grad():
        expected = ssd(*inputs, sequences, backend="reference")
        for backend in ("chunked", "compiled"):
            for got, wanted in zip(ssd(*inputs, sequences, backend=backend), expected):
                assert_close(got, wanted, backend)


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("op, inputs", [(ssd, ssd_inputs), (gated_delta, gated_delta_inputs)])
def test_scans_of_shapes_that_do_not_fit(op, inputs, wrong):
    arguments = inputs(40, True)
    arguments[wrong] = arguments[wrong][:, :-1]
    with pytest.raises(ValueError, match="expected .*, got shapes .*"):
        op(*arguments, sequences_of("fresh", BATCH, 40), backend="compiled")


def test_ssd_that_forgets_at_once():
    """A decay of 20 a step, the most there is: what is left of the row before is next to nothing, and no NaN."""
    v, k, q, decay, _ = ssd_inputs(100, False)
    for backend in ("chunked", "compiled"):
        y, state = ssd(v, k, q, torch.full_like(decay, -1e4), None, sequences_of("fresh", BATCH, 100), backend)
        expected = v * (k * q).sum(-1).repeat_interleave(2, 2)[..., None]
        assert_close(y, expected, backend)
        assert state.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measure", ["norm", "cosine"])
@pytest.mark.parametrize("length", LENGTHS)
def test_innovation(length, measure, kind):
    sequences = sequences_of(kind, BATCH, length)
    inputs = [torch.randn(BATCH, length, 7), torch.randn(BATCH, 4, 7)]
    compare(
        lambda f, s, sequences, backend: innovation(f, measure, s, sequences, backend), INNOVATION, inputs, sequences
    )


def past_of(sequences):
    """The place of a fresh call that ends where `sequences` begins; 40 rows where the document is a new one anyway."""
    before = sequences.position[:, 0].expand(BATCH)
    before = torch.where(before == 0, 40, before) if sequences.packed else before
    row = torch.arange(int(before.max()) or 1)[None]
    return Sequences(row, before, before)


def candidates(sequences, window, block, capacity):
    """Scores with many ties, and the slots that a run by the reference leaves."""
    length, past = sequences.position.shape[1], past_of(sequences)
    T = past.position.shape[1]
    score = torch.randint(0, 6, (BATCH, capacity + window + T)).float()
    score[:, :capacity] = -torch.inf
    coordinate = torch.cat([torch.full((capacity,), ABSENT), torch.arange(-window, T)]).expand(BATCH, -1)
    _, carried = select_by_query(score, coordinate, past, block, capacity)
    kept, at = carried >= 0, carried.clamp_min(0)
    slot_score = score.gather(1, at).masked_fill(~kept, -torch.inf)
    slot = (coordinate.gather(1, at) - past.end[:, None]).masked_fill(~kept, ABSENT)
    ring = score.gather(1, capacity + past.end[:, None] + torch.arange(window))
    now = torch.randint(0, 6, (BATCH, length)).float()
    rows = torch.arange(-window, length).expand(BATCH, -1)
    return torch.cat([slot_score, ring, now], 1), torch.cat([slot, rows], 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("block, capacity", [(1, 3), (5, 4), (7, 30)])
def test_selection(length, kind, block, capacity):
    sequences = sequences_of(kind, BATCH, length)
    score, coordinate = candidates(sequences, 7, block, capacity)
    chosen, carried = select_by_query(score, coordinate, sequences, block, capacity)
    sets = select(score, coordinate, sequences, block, capacity, "tree")
    assert torch.equal(sets.carried, carried)
    for b in range(BATCH):
        position, event = sequences.position.expand(BATCH, -1)[b], sets.event.expand(BATCH, -1)[b]
        for t in range(length if sequences.length is None else int(sequences.length[b])):
            q = t // block
            index = sets.candidates[b, q + 1 if t >= event[q] else q].tolist()
            visible = [i for i in index if i >= 0 and coordinate[b, i] >= t - position[t]]
            assert visible == [i for i in chosen[b, t].tolist() if i >= 0], (b, t)
    for one, other in zip(select(score, coordinate, sequences, block, capacity, "compiled"), sets, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 19])
def test_the_host_waits_for_nothing(length, kind):
    """Tensors of the meta device have shapes and no numbers: whatever would bring one to the host fails there."""
    sequences = sequences_of(kind, BATCH, length)
    moved = [x if x is None else x.to("meta") for x in (sequences.position, sequences.end, sequences.length)]
    sequences = Sequences(*moved, sequences.aligned, sequences.packed)
    inputs = [x.to("meta") for x in attention_inputs(length, 4, 2, 6, 6)]
    state = init_state(BATCH, 2, 6, window=6, span=6, capacity=5, device="meta")
    y, after = attention(*inputs, state, sequences, 6, 6, 4, 5, "tiled")
    assert y.shape == (BATCH, length, 4, 6) and all(after[name].shape == x.shape for name, x in state.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 19, 63])
@pytest.mark.parametrize(
    "window, span, block, capacity", [(6, 6, 6, 5), (7, 3, 4, 9), (5, 0, 1, 3), (4, 9, 4, 0), (0, 3, 1, 0)]
)
@pytest.mark.parametrize("fades", [False, True])
def test_memory_attention(fades, length, kind, window, span, block, capacity, engine):
    backends = ["reference", "tiled"]  # triton: `test_triton.py`; decode: below
    memory_attention_equals_reference(backends, length, kind, window, span, block, capacity, fades=fades)


def history(sequences, kind, H, G, D, window, span, block, capacity, fades=False):
    """The state before a call at `sequences`; None where nothing is."""
    if kind == "fresh":
        return None
    past = past_of(sequences)
    before = attention_inputs(past.position.shape[1], H, G, D, span)
    clock = torch.rand(past.position.shape) if fades else None
    _, state = attention(*before, None, past, window, span, block, capacity, "reference", clock=clock)
    return {name: x.detach() for name, x in state.items()}


def memory_attention_equals_reference(
    backends, length, kind, window, span, block, capacity, H=4, G=2, D=6, fades=False
):
    sequences = sequences_of(kind, BATCH, length)
    state = history(sequences, kind, H, G, D, window, span, block, capacity, fades)
    inputs = [*attention_inputs(length, H, G, D, span), torch.rand(BATCH, length)]
    names = list(state or {})

    def call(*arguments, backend):
        *inputs, sequences = arguments
        inputs, clock, values = inputs[:7], inputs[7], inputs[8:]
        carried = dict(zip(names, values)) if names else None
        sizes, clock = (window, span, block, capacity), clock if fades else None
        y, after = attention(*inputs, carried, sequences, *sizes, backend, clock=clock)
        return [y, *(x for _, x in sorted(after.items()))]

    compare(call, backends, [*inputs, *(state or {}).values()], sequences)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("admit, fades", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "window, span, block, capacity, H, G, D",
    [
        (6, 6, 6, 5, 4, 2, 6),
        (7, 3, 4, 9, 3, 3, 34),
        (5, 0, 1, 3, 2, 1, 2),
        (4, 9, 4, 0, 4, 2, 6),
        (0, 3, 1, 0, 2, 2, 4),
    ],
)
def test_a_step(window, span, block, capacity, H, G, D, kind, admit, fades, threads, monkeypatch):
    """Steps on from every kind of state: outputs and states of the definition, for as many steps as renew what is kept."""
    monkeypatch.setattr("solomonic.ops.memory_attention.decode.LEAST", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sequences = sequences_of(kind, BATCH, 29)
        state = history(sequences, kind, H, G, D, window, span, block, capacity, fades)
        position = sequences.position.expand(BATCH, -1)
        for t in range(2 * block + 3):
            now = Sequences(position[:, t : t + 1], position[:, t] + 1, aligned=False, packed=sequences.packed)
            arguments, clock = attention_inputs(1, H, G, D, span), torch.rand(BATCH, 1) if fades else None
            with torch.no_grad():
                expected, got = (
                    attention(*arguments, state, now, window, span, block, capacity, b, admit, clock)
                    for b in ("reference", "decode")
                )
            assert_close(got[0], expected[0], f"step {t}")
            for (name, a), (_, b) in zip(leaves(got[1]), leaves(expected[1]), strict=True):
                assert torch.equal(a, b), f"step {t}: {name}"
            state = expected[1]
    finally:
        torch.set_num_threads(before)


def test_what_a_step_cannot_serve():
    sequences = sequences_of("fresh", BATCH, 1)
    arguments = attention_inputs(1, 4, 2, 6, 3)
    for wrong, reason in (
        ([x.double() for x in arguments], "expected float32 on a CPU, got torch.float64 on cpu"),
        ([x.requires_grad_() for x in attention_inputs(1, 4, 2, 6, 3)], "it has no gradients"),
    ):
        with pytest.raises(ValueError, match=f"backend 'decode': {reason}; backend 'tiled' serves every call"):
            attention(*wrong, None, sequences, 4, 3, 2, 5, "decode")
    with pytest.raises(ValueError, match="backend 'decode': expected one row, got 2"):
        attention(*attention_inputs(2, 4, 2, 6, 3), None, sequences_of("fresh", BATCH, 2), 4, 3, 2, 5, "decode")


def test_a_step_is_chosen_where_nothing_is_differentiated(monkeypatch):
    used = []
    for name in ("tiled", "decode"):
        monkeypatch.setitem(
            MEMORY_ATTENTION, name, lambda call, n=name, f=MEMORY_ATTENTION[name]: used.append(n) or f(call)
        )
    sequences, arguments = sequences_of("fresh", BATCH, 1), attention_inputs(1, 4, 2, 6, 3)
    with torch.no_grad():
        attention(*arguments, None, sequences, 4, 3, 2, 5, None)
    attention(*arguments, None, sequences, 4, 3, 2, 5, None)
    with torch.no_grad():
        attention(*attention_inputs(2, 4, 2, 6, 3), None, sequences_of("fresh", BATCH, 2), 4, 3, 2, 5, None)
        attention(*(x.double() for x in arguments), None, sequences, 4, 3, 2, 5, None)
        monkeypatch.setattr(dispatch, "numba_jit", lambda: None)
        attention(*arguments, None, sequences, 4, 3, 2, 5, None)
    assert used == ["decode", "tiled", "tiled", "tiled", "tiled"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 19])
@pytest.mark.parametrize("sharpness", [1.0, 2.5])
def test_memory_attention_with_a_store(sharpness, length, kind, engine):
    sequences = sequences_of(kind, BATCH, length)
    state = history(sequences, kind, 4, 2, 6, 6, 6, 4, 5)
    visible = torch.rand(BATCH, length, 9) < 0.4
    weights = []

    def call(*arguments, backend):
        *inputs, q, key, value, bias, sequences = arguments
        stored = Stored(q, key, value, bias, visible, lambda weight: weights.append(weight.detach()), sharpness)
        q, k, v, qf, kf, vf, score = inputs
        options = {"window": 6, "fading": (qf, kf, vf), "span": 6, "score": score, "capacity": 5, "block": 4}
        y, _ = memory_attention(q, k, v, state, sequences, admit=True, stored=stored, backend=backend, **options)
        return [y]

    inputs = [*attention_inputs(length, 4, 2, 6, 6), torch.randn(BATCH, length, 4, 6)]
    inputs += [torch.randn(BATCH, length, 9, 2, 6), torch.randn(BATCH, length, 9, 2, 6), torch.randn(BATCH, length, 9)]
    able = [name for name in MEMORY_ATTENTION if name not in ("triton", "decode")]
    compare(call, able, inputs, sequences)
    real = slice(None) if sequences.real() is None else sequences.real()
    assert all((weight.transpose(2, 3)[~visible] == 0).all() for weight in weights)
    assert_close(weights[1][real], weights[0][real], "weights")
    if length == 1 and dispatch.numba_jit() is not None:
        with torch.no_grad():
            assert_close(
                call(*inputs, sequences, backend="decode")[0][real],
                call(*inputs, sequences, backend=able[0])[0][real],
                "y",
            )
        assert_close(weights[-2][real], weights[0][real], "weights of a step")
    with pytest.raises(ValueError, match="do not attend to a store"):
        call(*inputs, sequences, backend="triton")


def attention_inputs(length, H, G, D, span):
    q, k, v = torch.randn(BATCH, length, H, D), torch.randn(BATCH, length, G, D), torch.randn(BATCH, length, G, D)
    fading = [torch.randn(BATCH, length, H, D), torch.randn(BATCH, length, G, D), torch.randn(BATCH, length, G, D)]
    return [q, k, v, *fading, torch.randn(BATCH, length)]


def attention(
    q, k, v, qf, kf, vf, score, state, sequences, window, span, block, capacity, backend, admit=True, clock=None
):
    """`clock`: of logits that fade."""
    return memory_attention(
        q,
        k,
        v,
        state,
        sequences,
        window=window,
        fading=(qf, kf, vf) if span else None,
        span=span,
        score=score if capacity else None,
        clock=clock if capacity else None,
        fades=clock is not None,
        admit=admit and bool(capacity),
        capacity=capacity,
        block=block,
        backend=backend,
    )


def test_init_state_is_what_none_means(engine):
    sequences = sequences_of("fresh", 2, 9)
    inputs = [x[:2] for x in attention_inputs(9, 4, 2, 6, 3)]
    state = init_state(2, 2, 6, window=4, span=3, capacity=5)
    for got, expected in zip(
        leaves(list(attention(*inputs, state, sequences, 4, 3, 2, 5, "tiled"))),
        leaves(list(attention(*inputs, None, sequences, 4, 3, 2, 5, "tiled"))),
    ):
        assert_close(got[1], expected[1], got[0])


@pytest.mark.parametrize("op, inputs", [(ssd, ssd_inputs), (gated_delta, gated_delta_inputs), (kalman, kalman_inputs)])
def test_a_backend_that_is_not_there(op, inputs):
    with pytest.raises(ValueError, match="unknown backend 'chunkd': did you mean 'chunked'"):
        op(*inputs(3, False), sequences_of("fresh", BATCH, 3), backend="chunkd")
