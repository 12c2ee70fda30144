"""The fused memory attention on a CUDA device: is it right there, and how fast is it?

    python benchmarks/memory_attention.py [--json FIGURES.json]

Checks it against the definition in float32, on the same numbers: packed, padded and continued rows, uninitialised memory
filled with NaN, gradients included, and once more for equal bits. The definition's own choice of what is kept is a loop
in Python, far too slow at 4096 rows: here it is given the parallel one's (the tests hold these two together).

Then times forward and backward against `tiled`, and, without eidetic memory, against the recipe of two calls of flash
attention, over the window and over the fading memory, merged by their normalizers (PyTorch's own kernels); one step
of decoding; and the selection alone. Medians and quartiles in milliseconds, measured by the device's own clock.
"""

import argparse
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: products in a fixed order

import torch
from command_common import new_file
from torch import Tensor
from torch.nn.functional import pad

from solomonic._utils.files import write
from solomonic.ops.memory_attention import BACKENDS, memory_attention, reference, refusal
from solomonic.ops.memory_attention.call import AttentionCall
from solomonic.ops.selection import select
from solomonic.ops.sequence import Sequences, fresh

DEVICE = "cuda"
LENGTHS, HEAD_SIZES, DTYPES = (63, 1000, 4096), (64, 128), (torch.float32, torch.bfloat16)
BOUNDS = {torch.float32: (1e-4, 1e-4), torch.bfloat16: (2**-7, 2**-6)}  # of values and gradients, as in the tests
BATCH, ROWS, HEADS, GROUPS, WINDOW, CAPACITY = 4, 4096, 16, 4, 512, 256
REPEATS = 20


def recorded(
    sequences: Sequences, heads: int, groups: int, dim: int, dtype, window: int, capacity: int, state=None
) -> tuple[AttentionCall, dict]:
    """What a backend is given by a call of random rows, rotated; the batch and the length are those of `sequences`."""
    B, T = len(sequences.end), sequences.position.shape[1]

    def rows(n: int) -> Tensor:
        return torch.randn(B, T, n, dim, device=DEVICE, dtype=dtype)

    calls = []
    BACKENDS["recorded"] = lambda call: calls.append(call) or BACKENDS["tiled"](call)
    with torch.no_grad():
        _, state = memory_attention(
            *(rows(heads), rows(groups), rows(groups), state, sequences),
            window=window,
            fading=(rows(heads), rows(groups), rows(groups)),
            span=window,
            score=torch.randn(B, T, device=DEVICE) if capacity else None,
            admit=capacity > 0,
            capacity=capacity,
            block=window,
            backend="recorded",
        )
    del BACKENDS["recorded"]
    (call,) = calls
    queries, keys = reference.rotated(call.queries, call.keys, call.rotation)
    return replace(call, queries=queries, keys=keys, rotation=None), state


def tied(call: AttentionCall) -> AttentionCall:
    """The call with the window's queries for the fading memory too, as in the published layer."""
    q, _, kept = call.queries
    return replace(call, queries=(q, q, kept))


def differentiable(call: AttentionCall, dtype=None) -> tuple[list[Tensor], AttentionCall]:
    """The call on copies that take gradients; these first."""
    copies: dict[int, Tensor] = {}

    def copy(x: Tensor | None, dtype) -> Tensor | None:
        if x is not None and id(x) not in copies:
            copies[id(x)] = x.detach().to(dtype or x.dtype, copy=True).requires_grad_()
        return None if x is None else copies[id(x)]

    queries, keys, values = (tuple(copy(x, dtype) for x in g) for g in (call.queries, call.keys, call.values))
    bias = copy(call.bias, torch.float32)
    return list(copies.values()), replace(call, queries=queries, keys=keys, values=values, bias=bias)


def by_tree(
    score: Tensor, coordinate: Tensor, sequences: Sequences, block: int, capacity: int
) -> tuple[Tensor, Tensor]:
    """`selection.reference.select` of a whole call at once: what each query sees, and what is carried."""
    sets = select(score, coordinate, sequences, block, capacity)
    row = torch.arange(sequences.position.shape[1], device=score.device).expand(len(score), -1)
    number = row // block + (row >= sets.event.expand(len(score), -1).gather(1, row // block))
    candidates = sets.candidates.gather(1, number[..., None].expand(-1, -1, capacity))
    seen = coordinate.gather(1, candidates.clamp_min(0).flatten(1)).view_as(candidates)
    return torch.where(seen >= (row - sequences.position)[..., None], candidates, -1), sets.carried


def check(length: int, dim: int, dtype: torch.dtype) -> dict:
    """The largest errors, relative to the largest value of each tensor."""
    before = fresh(2, 300, DEVICE)
    _, state = recorded(before, 4, 2, dim, dtype, 128, 64)
    row = torch.arange(length, device=DEVICE)
    real = torch.tensor([length, length - length // 5], device=DEVICE)
    begins = row.new_tensor([[0, length // 3], [0, length // 2]])
    start = torch.where(row >= begins[:, 1:], begins[:, 1:], -300)
    position = row - start
    sequences = Sequences(position, position.gather(1, real[:, None] - 1)[:, 0] + 1, real, aligned=False, packed=True)
    call, _ = recorded(sequences, 4, 2, dim, dtype, 128, 64, state)
    dy = torch.randn(2, length, 4, dim, device=DEVICE, dtype=dtype) * sequences.real()[..., None, None]

    def run(attend, dtype) -> tuple[Tensor, ...]:
        leaves, copied = differentiable(call, dtype)
        y = attend(copied)[0]
        return y.detach() * sequences.real()[..., None, None], *torch.autograd.grad(y, leaves, dy.to(y.dtype))

    expected = run(reference.attend, torch.float32)
    got, again = run(BACKENDS["triton"], dtype), run(BACKENDS["triton"], dtype)
    errors = [((a.float() - b).abs().max() / b.abs().max().clamp_min(1e-6)).item() for a, b in zip(got, expected)]
    bound, gradient_bound = BOUNDS[dtype]
    same = all(torch.equal(a, b) for a, b in zip(got, again))
    right = errors[0] <= bound and all(e <= gradient_bound for e in errors[1:]) and same  # NaN is not
    figures = {"rows": length, "head size": dim, "type": str(dtype)[6:]}
    return figures | {"values": errors[0], "gradients": max(errors[1:]), "same bits": same, "right": right}


class TwoCalls(torch.autograd.Function):
    """Two calls of flash attention, merged. With the merged output and normalizer, each backward is its group's own."""

    @staticmethod
    def forward(ctx, q, k, v, k_far, v_far, window, span):
        near = q, k, v
        far = q[:, window:], k_far[:, :-window], v_far[:, :-window]
        parts, ctx.groups, ctx.random = [], [(near, window - 1, 0), (far, span - 1, window)], []
        for group, reach, first in ctx.groups:
            sizes = group[0].shape[1], group[1].shape[1], 0.0, True, False
            y, lse, *random = torch.ops.aten._flash_attention_forward(
                *(*group, None, None, *sizes), window_size_left=reach, window_size_right=0
            )[:4]
            parts.append((pad(y, (0, 0, 0, 0, first, 0)), pad(lse, (first, 0), value=-torch.inf)))
            ctx.random.append(random)
        lse = torch.logaddexp(parts[0][1], parts[1][1])
        y = sum(y * (part - lse).exp().mT[..., None] for y, part in parts).to(q.dtype)
        ctx.save_for_backward(y, lse)
        return y

    @staticmethod
    def backward(ctx, dy):
        y, lse = ctx.saved_tensors
        change = []
        for (group, reach, first), random in zip(ctx.groups, ctx.random):
            seen = (x.contiguous() for x in (y[:, first:], lse[..., first:]))
            sizes = None, None, group[0].shape[1], group[1].shape[1], 0.0, True
            dq, dk, dv = torch.ops.aten._flash_attention_backward(
                *(dy[:, first:].contiguous(), *group, *seen, *sizes, *random),
                window_size_left=reach,
                window_size_right=0,
            )
            change.append((pad(dq, (0, 0, 0, 0, first, 0)), *(pad(x, (0, 0, 0, 0, 0, first)) for x in (dk, dv))))
        (dq, dk, dv), (dq_far, dk_far, dv_far) = change
        return dq + dq_far, dk, dv, dk_far, dv_far, None, None


def two_calls(call: AttentionCall):
    """A backend for rows that begin a document, without eidetic memory and with one set of queries."""
    (k, k_far, _), (v, v_far, _), T = call.keys, call.values, call.sequences.position.shape[1]
    rows = (x[:, -T:] for x in (k, v, k_far, v_far))
    return TwoCalls.apply(call.queries[0], *rows, call.window, call.span), None


def milliseconds(step) -> dict:
    """Median and quartiles of REPEATS runs, after as many that warm up, by events on the device."""
    for _ in range(REPEATS):
        step()
    spans = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    low, middle, high = torch.tensor([a.elapsed_time(b) for a, b in spans]).quantile(torch.tensor([0.25, 0.5, 0.75]))
    return {"median": middle.item(), "quartiles": [low.item(), high.item()]}


def training(attend, call: AttentionCall) -> dict:
    leaves, copied = differentiable(call)
    dy = torch.randn_like(copied.queries[0])
    return milliseconds(lambda: torch.autograd.grad(attend(copied)[0], leaves, dy, allow_unused=True))


def times(recipe: bool):
    """(what is timed, head size, by what, milliseconds) one after the other; `recipe`: the two calls too."""
    sequences = fresh(BATCH, ROWS, DEVICE)
    step = Sequences(
        torch.full((BATCH, 1), ROWS, device=DEVICE), torch.full((BATCH,), ROWS + 1, device=DEVICE), aligned=False
    )
    fused, tiled = BACKENDS["triton"], BACKENDS["tiled"]
    for dim in HEAD_SIZES:
        shape = HEADS, GROUPS, dim, torch.bfloat16, WINDOW
        for name, capacity in (("B'MOJO-F", 0), ("B'MOJO", CAPACITY)):
            call, state = recorded(sequences, *shape, capacity)
            if not capacity:
                call = tied(call)
                if recipe:
                    yield f"{name}, forward and backward", dim, "two calls", training(two_calls, call)
            yield f"{name}, forward and backward", dim, "triton", training(fused, call)
            yield f"{name}, forward and backward", dim, "tiled", training(tiled, call)
            decoding, _ = recorded(step, *shape, capacity, state)
            with torch.no_grad():
                yield f"{name}, one step of decoding", dim, "triton", milliseconds(lambda: fused(decoding))
                yield f"{name}, one step of decoding", dim, "tiled", milliseconds(lambda: tiled(decoding))
        with torch.no_grad():
            yield (
                "selection",
                dim,
                "torch",
                milliseconds(lambda: select(call.score, call.coordinate, sequences, WINDOW, CAPACITY)),
            )


def same_as_two_calls(dim: int) -> float:
    """The recipe computes what it is timed against: its largest error, values and gradients."""
    call = tied(recorded(fresh(2, 1500, DEVICE), 4, 2, dim, torch.bfloat16, WINDOW, 0)[0])
    dy = torch.randn_like(call.queries[0])
    results = []
    for attend in (two_calls, BACKENDS["triton"]):
        leaves, copied = differentiable(call)
        y = attend(copied)[0]
        results.append((y, *torch.autograd.grad(y, leaves, dy)))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*results))


def save(path: Path | None, figures: dict) -> None:
    if path:
        write(path, json.dumps(figures, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=new_file, metavar="PATH", help="where the figures go, too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/memory_attention.py: needs a CUDA device, and PyTorch sees none")
    reason = refusal("triton", torch.empty(64, device=DEVICE))
    if reason:
        raise SystemExit(f"benchmarks/memory_attention.py: {reason}")
    import triton

    figures: dict = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "checks": [],
        "times": [],
    }
    print(f"{figures['device']}, PyTorch {torch.__version__}, Triton {triton.__version__}, CUDA {torch.version.cuda}\n")
    torch.manual_seed(0)
    reference.select_by_query = by_tree
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    torch.use_deterministic_algorithms(True, warn_only=True)
    print(
        "| rows | head size | type | error of values | of gradients | same bits twice | |\n|---|---|---|---|---|---|---|"
    )
    for length in LENGTHS:
        for dim in HEAD_SIZES:
            for dtype in DTYPES:
                c = check(length, dim, dtype)
                figures["checks"].append(c)
                verdict = "right" if c["right"] else "WRONG"
                print(
                    f"| {length} | {dim} | {c['type']} | {c['values']:.1e} | {c['gradients']:.1e} | {c['same bits']} "
                    f"| {verdict} |",
                    flush=True,
                )
    torch.use_deterministic_algorithms(False)
    save(args.json, figures)
    try:
        figures["two calls apart"] = max(same_as_two_calls(dim) for dim in HEAD_SIZES)
        print(
            f"\nthe two calls differ from the fused kernel by {figures['two calls apart']:.1e} of the largest value\n"
        )
    except (AttributeError, RuntimeError, TypeError) as error:  # private functions of PyTorch, which may change or lack
        figures["two calls missing"] = str(error)
        print(f"\nno two calls of flash attention here: {error}\n")
    print(
        f"{BATCH} x {ROWS} rows, {HEADS} heads, {GROUPS} of keys, window = span = block = {WINDOW}, capacity {CAPACITY}, "
        f"bfloat16; median of {REPEATS} (quartiles), ms\n"
    )
    print("| | head size | by | ms |\n|---|---|---|---|")
    for name, dim, backend, ms in times("two calls apart" in figures):
        figures["times"].append({"what": name, "head size": dim, "by": backend} | ms)
        print(
            f"| {name} | {dim} | {backend} | {ms['median']:.3f} ({ms['quartiles'][0]:.3f}-{ms['quartiles'][1]:.3f}) |",
            flush=True,
        )
        save(args.json, figures)
    if not all(c["right"] for c in figures["checks"]):
        raise SystemExit("benchmarks/memory_attention.py: the fused kernel is wrong, see WRONG above")


if __name__ == "__main__":
    main()
