"""What the Triton kernels become on a GPU that is not here: compiled for it, and looked at. Needs no GPU.

    python benchmarks/kernels.py [--targets 80 90] [--head-sizes 64 128] [--types bfloat16 float32]

Training steps are run on tensors of a CPU; the kernels that they would launch are caught, and compiled for NVIDIA GPUs of
those compute capabilities. Prints, for each tile, the registers of a thread, the bytes that it spills, the bytes of shared
memory of a program, and the instructions of a thread: of each loop over tiles of products those that no tile can leave
out (masks, where all is seen); where there is no such loop, of the whole kernel.
"""

import argparse
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from solomonic.ops import rowwise as rows
from solomonic.ops.memory_attention import memory_attention
from solomonic.ops.memory_attention import triton as attention
from solomonic.ops.rotary import Rotation
from solomonic.ops.rowwise import triton as fused_rows
from solomonic.ops.sequence import fresh
from solomonic.ops.ssd import ssd
from solomonic.ops.ssd import triton as fused_ssd

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32", torch.int64: "i64"}
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*)")
TARGET = re.compile(r"(\.L_\w+)")


@dataclass(frozen=True)
class Launch:
    """A kernel and what it was given by name, but for the sizes of its tiles."""

    kernel: Any
    inputs: dict[str, Any]

    @property
    def function(self):
        return self.kernel.fn if hasattr(self.kernel, "configs") else self.kernel

    @property
    def tiles(self) -> list[triton.Config]:
        tuned = getattr(self.kernel, "configs", None)
        return tuned or [triton.Config({}, self.inputs.get("num_warps", 4), self.inputs.get("num_stages", 3))]

    @property
    def name(self) -> str:
        name, inputs = self.function.__name__.strip("_"), self.inputs
        if name == "query":
            return "queries, backward" if inputs["BACKWARD"] else "queries"
        if name == "key":
            return "kept keys" if inputs["CAPACITY"] else "fading keys" if inputs["NEAREST"] else "window keys"
        name = name.removesuffix("_kernel").removesuffix("_back")
        gated = inputs.get("z") is not None
        backward = inputs.get("dy") is not None or inputs.get("ends") is not None
        return f"{'gated ' * gated}{name}{', backward' * backward}"


def caught(module: ModuleType, step: Callable[[], object]) -> list[Launch]:
    """The kernels of `module` that `step` launches; none is run, so that what they should have written is not there."""
    launches: list[Launch] = []

    class Catch:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(*inputs, **named):
                names = Launch(self.kernel, {}).function.arg_names
                launches.append(Launch(self.kernel, dict(zip(names, inputs)) | named))

            return launch

    kernels = {name: Catch(x) for name, x in vars(module).items() if name.endswith("_kernel")}
    changed = {name: getattr(module, name) for name in (*kernels, "refusal")}
    try:
        vars(module).update(kernels, refusal=lambda *x: None)
        step()
    finally:
        vars(module).update(changed)
    return launches


def compiled(launch: Launch, tile: triton.Config, target: GPUTarget):
    """The kernel as Triton compiles it for `target`."""
    signature, constants, aligned, inputs = {}, {}, {}, launch.inputs | tile.kwargs
    for i, parameter in enumerate(launch.function.params):
        name, value = parameter.name, inputs[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[(i,)] = "constexpr", value
            continue
        divisible = isinstance(value, int) and value % 16 == 0
        if isinstance(value, torch.Tensor) or divisible:  # Triton compiles for numbers and addresses that 16 divides
            aligned[(i,)] = [["tt.divisibility", 16]]
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(launch.function, signature, constants, aligned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return triton.compile(source, target, {"num_warps": tile.num_warps, "num_stages": tile.num_stages})


def attention_step(dim: int, dtype: torch.dtype, length=64, heads=16, groups=2, window=512, capacity=512) -> None:
    """Memory attention forward and backward, as a layer of a model of 350M parameters calls it."""

    def heads_of(n: int) -> torch.Tensor:
        return torch.randn(1, length, n, dim, dtype=dtype, requires_grad=True)

    q = heads_of(heads)
    y, _ = memory_attention(
        *(q, heads_of(groups), heads_of(groups), None, fresh(1, length)),
        window=window,
        fading=(q, heads_of(groups), heads_of(groups)),
        span=window,
        score=torch.randn(1, length, requires_grad=True),
        admit=True,
        capacity=capacity,
        block=window,
        backend="triton",
    )
    y.sum().backward()


def scan_step(dim: int, dtype: torch.dtype, length=256, heads=16, keys=64) -> None:
    """Mamba-2's scan forward and backward."""
    v = torch.randn(1, length, heads, dim, dtype=dtype, requires_grad=True)
    k, q = (torch.randn(1, length, 1, keys, dtype=dtype, requires_grad=True) for _ in range(2))
    step = torch.rand(1, length, heads, requires_grad=True)
    y, _ = ssd(v, k, q, -step, None, fresh(1, length), "triton", step=step, skip=torch.ones(heads, requires_grad=True))
    y.sum().backward()


def rows_step(dim: int, dtype: torch.dtype, length=8) -> None:
    """Rows of 16 heads of size `dim`, forward and backward."""
    x, gate = (torch.randn(1, length, 16 * dim, dtype=dtype, requires_grad=True) for _ in range(2))
    weight, taps = (torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((16 * dim,), (16 * dim, 4)))
    y = rows.rms_norm(x, weight, 1e-5, "triton") + rows.gated_norm(x, gate, weight, 1e-5, "triton")
    cos, sin = Rotation().table(torch.arange(length)[None], dim)
    y = y + fused_rows.rotate(x.unflatten(-1, (16, dim)), cos, sin).flatten(2)
    convolved = rows.convolve(torch.cat([x, x, x, x], 1), taps, weight, True, "triton")
    (y.sum() + rows.swiglu(x, gate, "triton").sum() + convolved.sum()).backward()


def loops(assembly: str) -> tuple[int, list[int]]:
    """The instructions of a kernel, and of each of its innermost loops with products those that no tile can leave out."""
    code: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in assembly.splitlines():
        if line.startswith(".L_"):
            labels[line.split(":")[0]] = len(code)
        elif instruction := INSTRUCTION.match(line):
            code.append(instruction.groups())
    jumps = []
    for at, (name, rest) in enumerate(code):
        if name.startswith("BRA") and (target := TARGET.search(rest)):
            jumps.append((at, labels[target.group(1)]))
    back = [(to, at) for at, to in jumps if to <= at]
    inner = [(a, b) for a, b in back if not any(a <= c and d <= b and (c, d) != (a, b) for c, d in back)]
    sizes = []
    for begin, end in inner:
        if any(name.startswith(("HMMA", "HGMMA")) for name, _ in code[begin:end]):
            left_out = sum(to - at - 1 for at, to in jumps if begin <= at < to <= end)
            sizes.append(end + 1 - begin - left_out)
    return len(code), sizes


def looked_at(kernel) -> dict[str, Any]:
    """Of a compiled kernel: registers, bytes spilled, instructions, loops, and bytes of shared memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, assembly = (
            subprocess.run([TOOLS / tool, *options, file.name], capture_output=True, text=True, check=True).stdout
            for tool, options in (("cuobjdump", ["-res-usage"]), ("nvdisasm", []))
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    instructions, inner = loops(assembly)
    return {
        "registers": int(registers),
        "spilled": int(stack),
        "shared": kernel.metadata.shared,
        "instructions": instructions,
        "loops": inner,
    }


def figures(
    target: int, dim: int, dtype: torch.dtype, most: int | None = None
) -> Iterator[tuple[Launch, triton.Config, dict[str, Any]]]:
    """Every kernel once with each of its tiles, or the first `most` of them, and what it becomes."""
    seen = set()
    for module, step in ((attention, attention_step), (fused_ssd, scan_step), (fused_rows, rows_step)):
        for launch in caught(module, lambda: step(dim, dtype)):
            if launch.name not in seen:
                seen.add(launch.name)
                for tile in launch.tiles[:most]:
                    yield launch, tile, looked_at(compiled(launch, tile, GPUTarget("cuda", target, 32)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--targets", nargs="+", type=int, default=[90], metavar="C", help="of compute capability C / 10"
    )
    parser.add_argument("--head-sizes", nargs="+", type=int, default=[64, 128], metavar="D")
    parser.add_argument("--types", nargs="+", default=["bfloat16"], choices=["bfloat16", "float16", "float32"])
    args = parser.parse_args()
    print(f"Triton {triton.__version__}, window = span = block = capacity = 512, 16 heads, 2 of keys\n")
    print("| sm | D | type | kernel | tile | warps | registers | spilled | shared | instructions |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for target in args.targets:
        for dim in args.head_sizes:
            for name in args.types:
                for launch, tile, usage in figures(target, dim, getattr(torch, name)):
                    size = " x ".join(str(tile.kwargs[k]) for k in ("BM", "BN") if k in tile.kwargs)
                    code = ", ".join(map(str, usage["loops"])) or usage["instructions"]
                    cells = (target, dim, name, launch.name, size, tile.num_warps, *list(usage.values())[:3], code)
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
