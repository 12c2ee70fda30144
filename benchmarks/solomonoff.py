"""Is the compiled search the reference's, how fast is it, which programs does it find, and how near do models come?

    python benchmarks/solomonoff.py [LENGTH]
    python benchmarks/solomonoff.py tasks

Times are of the process, not of the wall: one core's. LENGTH (12): instructions of the longest programs of the second table.
The second command trains small models on the two tasks; lines and a page go to runs/prediction, a second start goes on.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import torch

from solomonic.compare.run import compare
from solomonic.compare.suites import Run, Suite
from solomonic.theory.solomonoff import compiled, reference
from solomonic.theory.solomonoff.inference import log2_of, uniform

SEQUENCES = {
    "01 repeated": "01" * 8,
    "all zeros": "0" * 16,
    "all ones": "1" * 16,
    "counter in unary": "10110111011110",
    "gaps that grow": "0100100010000",
    "counter in binary": "0110111001011101111000",
    "Thue-Morse": "0110100110010110",
}


def timed(call):
    begin = time.process_time()
    return call(), time.process_time() - begin


def main(length: int = 12) -> None:
    compiled.ready()
    print("every program to length 8, 200 steps each: the reference and the compiled search")
    for name in ("01 repeated", "all zeros", "counter in unary"):
        data, limits = tuple(map(int, SEQUENCES[name])), uniform(8, 200)
        slow, seconds = timed(lambda: reference.search(data, limits))
        fast, each = timed(lambda: [compiled.search(data, limits) for _ in range(20)])
        outcomes = fast[0]
        equal = (slow.counts == outcomes.counts).all() and (slow.programs, slow.steps) == (
            outcomes.programs,
            outcomes.steps,
        )
        equal = equal and slow.shortest == outcomes.shortest and slow.least == outcomes.least
        print(
            f"  {name:<18} {'equal' if equal else 'NOT EQUAL'}: {slow.programs:,} programs, "
            f"{slow.programs / seconds / 1e3:.0f} thousand/s and {20 * slow.programs / each / 1e6:.0f} million/s, "
            f"{20 * seconds / each:.0f} times as fast"
        )
    print(f"every program to length {length - 2}, three times, and to {length}, 1000 steps each")
    for name, bits in SEQUENCES.items():
        data = tuple(map(int, bits))
        rates = []
        for _ in range(3):
            outcomes, seconds = timed(lambda: compiled.search(data, uniform(length - 2, 1000)))
            rates.append(outcomes.programs / seconds / 1e6)
        outcomes, seconds = timed(lambda: compiled.search(data, uniform(length, 1000)))
        print(
            f"  {name:<18} {bits}\n    {statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) million/s; "
            f"to {length}: {outcomes.programs:,} programs, {outcomes.steps:,} steps, {seconds:.1f} s, "
            f"{outcomes.programs / seconds / 1e6:.0f} million/s"
        )
        print(f"    -log2 M <= {-log2_of(outcomes.printed):.2f}, undecided {float(outcomes.undecided):.3f}")
        for hit in outcomes.shortest[:2]:
            on, why = reference.continuation(hit.program, len(data) + 24)
            print(
                f"    {reference.layout(hit.program)}  {hit.steps} steps, Kt {hit.kt:.2f}, goes on {on[len(data) :]} {why}"
            )


DIALS = {"d_model": 32, "n_layers": 2, "window": 16, "capacity": 16, "state_size": 16}
SIZES = {
    "steps": 300,
    "batch_size": 16,
    "samples": 128,
    "options": {"length": 64, "lengths": (64, 256)},
    "lrs": (1e-2,),
}


def tasks() -> None:
    runs = {name: Run(name, dials=DIALS, **SIZES) for name in ("context_tree", "universal")}
    suite = Suite("prediction", ("transformer", "mamba2", "gated_deltanet", "bmojo"), runs, 1, cost_lengths=(64,))
    command = "python benchmarks/solomonoff.py tasks"
    print(compare(suite, Path("runs/prediction"), torch.device("cpu"), os.cpu_count() or 1, command))


if __name__ == "__main__":
    tasks() if sys.argv[1:] == ["tasks"] else main(*map(int, sys.argv[1:]))
