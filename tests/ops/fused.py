"""The fused memory attention against the reference, in Triton's interpreter; on a device, `benchmarks/memory_attention.py`.

Not collected by itself: `test_triton.py` runs it in a process whose TRITON_INTERPRET is set before triton is imported.
"""

from dataclasses import replace

import pytest
import torch

from solomonic.ops import memory_attention as package
from solomonic.ops.memory_attention import BACKENDS, memory_attention, reference
from solomonic.ops.sequence import Sequences

from ..laws.cases import assert_close, leaves
from .sequences import KINDS, sequences_of
from .test_backends import BATCH, attention, attention_inputs, compare, memory_attention_equals_reference

BOTH = ["reference", "triton"]
SIZES = [(6, 6, 6, 5), (7, 3, 4, 9), (40, 20, 33, 21), (4, 9, 4, 0), (0, 3, 1, 0), (9, 0, 9, 0)]
MANY = "packed, continued and padded"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("sizes", [(7, 3, 4, 9), (5, 0, 1, 3)])
def test_short(sizes, length, kind):
    memory_attention_equals_reference(BOTH, length, kind, *sizes)


@pytest.mark.parametrize("fades", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_many_documents(sizes, fades):
    memory_attention_equals_reference(BOTH, 63, MANY, *sizes, fades=fades)


@pytest.mark.parametrize("fades", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_one_document(sizes, fades):
    memory_attention_equals_reference(BOTH, 65, "fresh", *sizes, fades=fades)


@pytest.mark.parametrize("kind", ["fresh", "padded", "two documents"])
def test_tiles_that_are_seen_whole(kind):
    """They are not masked: long windows and sets, so that there are some, of 32 keys and of as many queries."""
    sequences = documents(100, 90) if kind == "two documents" else sequences_of(kind, BATCH, 190)

    def call(*arguments, backend):
        *inputs, sequences = arguments
        return attention(*inputs, None, sequences, 70, 50, 64, 32, backend)

    compare(call, BOTH, attention_inputs(190, 2, 1, 6, 50), sequences)


@pytest.mark.parametrize("heads, groups, dim", [(1, 1, 16), (6, 2, 18), (3, 3, 34)])
def test_heads(heads, groups, dim):
    memory_attention_equals_reference(BOTH, 19, MANY, 6, 6, 5, 4, heads, groups, dim, fades=True)


def documents(*lengths):
    """The place of rows that begin with a document."""
    row = torch.cat([torch.arange(n) for n in lengths])[None]
    return Sequences(row, torch.full((BATCH,), lengths[-1]), aligned=False, packed=True)


@pytest.mark.parametrize("window", [0, 5])
def test_tied_queries(window):
    """The fading memory's queries are the window's own, and the candidates get no bias."""
    sequences = documents(9, 12)
    q, k, v, _, k_fading, v_fading, score = attention_inputs(21, 4, 2, 6, 4)

    def call(q, k, v, k_fading, v_fading, sequences, backend):
        return memory_attention(
            *(q, k, v, None, sequences),
            window=window,
            fading=(q, k_fading, v_fading),
            span=4,
            score=score if window else None,
            capacity=window,
            block=max(window, 1),
            backend=backend,
        )

    compare(call, BOTH, [q, k, v, k_fading, v_fading], sequences)


def test_bfloat16(monkeypatch):
    """Against the definition in float32 on the same numbers, relative to the largest value.

    A value is a mean of rows of v, weighted by numbers that are rounded (2^-9) and rounded itself (2^-9): 2^-8 of the
    largest row. A gradient has two more roundings, of a difference and of dy: 2^-7. The bounds allow twice that.
    """
    calls = []

    def record(call):
        calls.append(call)
        return BACKENDS["tiled"](call)

    monkeypatch.setitem(BACKENDS, "recorded", record)
    inputs = [x.bfloat16() for x in attention_inputs(63, 4, 2, 16, 9)]
    attention(*inputs, None, documents(30, 33), 12, 9, 8, 10, "recorded")
    (made,) = calls
    arguments = [*made.queries, *made.keys, *made.values]
    dy = torch.randn(BATCH, 63, 4, 16).bfloat16()

    def run(attend, dtype):
        leaf = [x.detach().to(dtype).requires_grad_() for x in arguments] + [made.bias.detach().requires_grad_()]
        y, _ = attend(replace(made, queries=leaf[:3], keys=leaf[3:6], values=leaf[6:9], bias=leaf[9]))
        assert y.dtype == dtype
        return y.float(), [g.float() for g in torch.autograd.grad(y, leaf, dy.to(dtype))]

    expected, gradients = run(reference.attend, torch.float32)
    got, got_gradients = run(BACKENDS["triton"], torch.bfloat16)
    assert_close(got, expected, "y", 2**-7)
    for i, (a, b) in enumerate(zip(got_gradients, gradients)):
        assert_close(a, b, f"gradient {i}", 2**-6)


def test_calls_that_carry_the_state():
    """Any cut gives what one call gives, the gradients through the state too."""
    length, sizes = 23, (6, 6, 4, 5)
    inputs = [x.requires_grad_() for x in attention_inputs(length, 4, 2, 6, 6)]
    results = []
    for cuts in ([length], [1] * 6 + [16, 1], [11, 12]):
        state, rows = None, []
        for part in zip(*(x.split(cuts, 1) for x in inputs)):
            done = sum(y.shape[1] for y in rows)
            sequences = sequences_of("fresh", BATCH, part[0].shape[1])
            if done:
                position = sequences.position + done
                sequences = Sequences(position, sequences.end + done, aligned=False)
            y, state = attention(*part, state, sequences, *sizes, "triton")
            rows.append(y)
        y = torch.cat(rows, 1)
        total = (y * torch.linspace(1, 2, y.numel()).view_as(y)).sum() + state["slot_v"].sum() + state["k"].sum()
        results.append([y, *(x for _, x in leaves(state)), *torch.autograd.grad(total, inputs)])
    for other in results[1:]:
        for i, (a, b) in enumerate(zip(other, results[0])):
            assert_close(a, b, f"tensor {i}", floor=0.1)


def test_tokens_of_long_ago():
    """They are seen, though their distance is more than 32 bits hold, and nothing newer is kept."""
    sequences, inputs = sequences_of("fresh", 2, 9), [x[:2] for x in attention_inputs(9, 4, 2, 6, 3)]
    _, state = attention(*inputs, None, sequences, 4, 3, 4, 5, "tiled")
    state["slot_age"] += 1 << 32
    state["slot_score"] += 100
    sequences = Sequences((1 << 32) + torch.arange(9)[None], torch.full((2,), (1 << 32) + 9), aligned=False)
    expected, _ = attention(*inputs, state, sequences, 4, 3, 4, 5, "reference")
    got, after = attention(*inputs, state, sequences, 4, 3, 4, 5, "triton")
    assert (after["slot_age"] >= 1 << 30).any()
    assert_close(got, expected, "y")


def test_no_rows():
    sequences = sequences_of("fresh", 2, 0)
    inputs = [x[:2] for x in attention_inputs(0, 4, 2, 6, 3)]
    y, state = attention(*inputs, None, sequences, 4, 3, 1, 0, "triton")
    assert y.shape == (2, 0, 4, 6) and state["k"].shape == (2, 4, 2, 6)


def test_under_autocast():
    sequences = sequences_of("fresh", BATCH, 9)
    inputs = attention_inputs(9, 4, 2, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = attention(*inputs, None, sequences, 4, 3, 3, 5, "triton")
        expected, _ = attention(*inputs, None, sequences, 4, 3, 3, 5, "tiled")
    assert got.dtype == expected.dtype == torch.bfloat16
    assert_close(got.float(), expected.float(), "y", 2**-6)


def test_compiles_in_one_graph():
    inputs = [x.requires_grad_() for x in attention_inputs(9, 4, 2, 6, 3)]

    def loss(*inputs):
        y, state = attention(*inputs, None, sequences_of("fresh", BATCH, 9), 4, 3, 3, 5, "triton")
        return y.square().sum() + state["slot_k"].sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    got = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(*inputs), inputs)
    for i, (a, b) in enumerate(zip(got, expected)):
        assert_close(a, b, f"gradient {i}")


@pytest.mark.parametrize(
    "dim, dtype, reason", [(6, torch.float64, "got torch.float64"), (258, None, "head size of 256")]
)
def test_what_it_cannot_serve(dim, dtype, reason):
    inputs = [x.to(dtype) for x in attention_inputs(3, 2, 1, dim, 0)]
    with pytest.raises(ValueError, match=f"backend 'triton': .*{reason}.*; backend 'tiled' serves every call"):
        attention(*inputs, None, sequences_of("fresh", BATCH, 3), 2, 0, 1, 2, "triton")
    assert reason in package.refusal("triton", inputs[0])
