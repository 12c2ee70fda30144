"""`torch.compile` and `torch.export` of every preset: no graph break, no recompilation, and which operators there are."""

import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.nn.attention import SDPBackend, sdpa_kernel

from solomonic import PRESETS, LanguageModel, preset
from solomonic.mixers.gated_kalmanet import GatedKalmaNet
from solomonic.model import map_state
from solomonic.ops.innovation import rank

from .laws.cases import assert_close, assert_same_gradients, assert_same_state, gradients_of, leaves, tokens

GROWING = ["transformer", "jamba"]  # their state has a row for every token
BOUNDED = sorted(PRESETS.keys() - set(GROWING))
LENGTH = 36  # two chunks of the scans, six blocks of the window

# Operators outside PyTorch's core ATen set, by preset; docs/devices.md says why.
SLOTS = {"aten.sort.stable", "aten.view.dtype"}
DECODING = {"bmojo": SLOTS, "bmojo_published": SLOTS}
TRAINING = DECODING | {
    key: {"aten.linalg_solve_triangular.default"} for key in ("gated_deltanet", "gated_deltanet2", "kda")
}


def small(name: str) -> LanguageModel:
    torch.manual_seed(0)
    layers = 2 if name in ("jamba", "samba") else 1
    model = LanguageModel(
        preset(name, vocab_size=50, d_model=16, n_layers=layers, window=7, capacity=6, state_size=4, d_ff=16)
    )
    for module in model.modules():
        if isinstance(module, GatedKalmaNet):
            module.iterations = 6  # each is a part of the graph
    return model


def given(kind: str, model: LanguageModel) -> dict:
    if kind == "plain":
        return {}
    mask = torch.arange(LENGTH) >= torch.tensor([[0], [5]])
    segments = (torch.arange(LENGTH) >= torch.tensor([[9], [30]])).long()
    with torch.no_grad():
        _, state = model(tokens(2, 11, seed=2))
    return {"state": state, "mask": mask, "segments": segments}


def step(call, model: nn.Module, arguments: dict) -> tuple[Tensor, object, dict[str, Tensor]]:
    """Logits, state and gradients of one step of training; the loss depends on the state too."""
    model.zero_grad()
    logits, state = call(tokens(2, LENGTH), **arguments)
    floats = [x for _, x in leaves(state) if x.is_floating_point()]
    (logits.square().mean() + sum(x.masked_fill(x.isinf(), 0).square().sum() for x in floats)).backward()
    return logits.detach(), map_state(Tensor.detach, state), gradients_of(model)


def outside_core(graph: torch.fx.Graph) -> set[str]:
    operators = {n.target for n in graph.nodes if n.op == "call_function"}
    operators = {x for x in operators if isinstance(x, torch._ops.OpOverload) and torch.Tag.core not in x.tags}
    return {str(x) for x in operators} - {
        "aten._assert_tensor_metadata.default"
    }  # a check of the program's, no operator


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["plain", "state, mask and segments"])
@pytest.mark.parametrize("name", PRESETS)
def test_training_is_one_graph(name, kind):
    """Forward and backward of a step are a graph each, in operators of the core set but for those that are listed."""
    outside = []

    def collect(module, inputs):
        outside.append(outside_core(module.graph))
        return make_boxed_func(module.forward)

    model = small(name)
    backend = aot_autograd(fw_compiler=collect, bw_compiler=collect, decompositions=core_aten_decompositions())
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    arguments = given(kind, model)
    with sdpa_kernel(SDPBackend.MATH):  # as on a device of no fused kernels; the CPU's has a wrong core decomposition
        expected, expected_state, gradients = step(model, model, arguments)
        got, state, got_gradients = step(compiled, model, arguments)
    assert len(outside) == 2
    assert_close(got, expected, "logits")
    for layer, want in zip(state["layers"], expected_state["layers"]):
        if "k" in layer and name in GROWING:  # rows of documents that have ended: zeros, which a graph cannot drop
            old = layer["k"].shape[1] - want["k"].shape[1]
            assert old == 0 or kind != "plain"
            assert not any(layer[key][:, :old].any() for key in ("k", "v"))
            layer |= {key: layer[key][:, old:] for key in ("k", "v")}
    assert_same_state(state, expected_state, "state")
    assert_same_gradients(got_gradients, gradients)
    assert set().union(*outside) == TRAINING.get(name, set())


def decoded(name: str, call, model: LanguageModel, prompts: list[int], steps: int) -> None:
    """Goes on from prompts of several lengths, a token at a time, and holds `call` to what the model gives."""
    for length in prompts:
        _, expected_state = model(tokens(2, length))
        state = expected_state
        for i in range(steps):
            token = tokens(2, 1, seed=i)
            expected, expected_state = model(token, expected_state)
            got, state = call(token, state)
            assert_close(got, expected, f"{name}: logits of token {i} after {length}")
        assert_same_state(state, expected_state, f"{name}: state after {length} and {steps}")


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_decoding_is_compiled_once(name):
    """One graph for a token at any position; full attention, whose state grows, has a second, for any length."""
    graphs = []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    model = small(name)
    compiled = torch.compile(model, fullgraph=True, backend=count)
    decoded(name, compiled, model, prompts=[2, 8, 60], steps=20)
    assert len(graphs) == (2 if name in GROWING else 1)


@pytest.mark.parametrize("name", BOUNDED)
@torch.no_grad()
def test_decoding_exports(name):
    """The exported program is the model's, at any position, in operators of the core set but for those listed."""
    model = small(name)
    _, state = model(tokens(2, 9))
    program = torch.export.export(model, (tokens(2, 1), state))
    decoded(name, program.module(), model, prompts=[3, 40], steps=3)
    assert outside_core(program.run_decompositions().graph) == DECODING.get(name, set())


native = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="no C++ compiler, which PyTorch's own compiler needs"
)


@native
@torch.no_grad()
def test_scores_are_rounded_in_native_code():
    """A compiler may leave out a cast and back: scores that differ by rounding errors would choose."""
    score = torch.randn(10000) * torch.logspace(-30, 30, 10000)
    score = torch.cat([score, torch.tensor([0, torch.inf, -torch.inf, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38])])
    assert torch.equal(rank(score), score.bfloat16().float())
    assert torch.equal(torch.compile(lambda x: rank(x) * 1, fullgraph=True)(score), rank(score))


@native
@torch.no_grad()
def test_decoding_in_native_code():
    """PyTorch's own compiler, which the rest of this file leaves out for its slowness."""
    model = small("bmojo")
    decoded("bmojo", torch.compile(model, fullgraph=True), model, prompts=[9], steps=10)
