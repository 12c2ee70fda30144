"""The machine by hand, the compiled search against it, and what a search says as bounds."""

import contextlib
from fractions import Fraction
from itertools import islice, product
from math import log2

import numpy as np
import pytest

from solomonic.theory.solomonoff import compiled, reference
from solomonic.theory.solomonoff.inference import infer, levin, literal, log2_of, uniform
from solomonic.theory.solomonoff.outcomes import AFTER, BITS, DEPARTS, HIT, LONG, ONE, SILENT, SLOW, WIDE, ZERO, Hit


def bits(text: str) -> tuple[int, ...]:
    return tuple(map(int, text))


@pytest.mark.parametrize(
    "program, prints, why",
    [
        ("~[~.~.]", "0101010101", ""),
        ("~[.]", "1111111111", ""),
        ("~[]", "", "silent"),
        (".~.", "01", "asks"),
        (".].", "00", "asks"),  # a ] outside of a loop
        ("[.", "0", "asks"),  # skipped: the body is not written yet
        ("~.>~.", "11", "asks"),
        ("~>~<[.>].", "110", "asks"),  # a loop that ends
        ("~[>~]", "", "wide"),
        ("~[[.>]", "1", "asks"),  # the second pass skips the inner loop, and asks what comes after it
    ],
)
def test_machine(program, prints, why):
    assert reference.continuation(program, 10) == (prints, why)


def test_body_is_written_when_it_is_entered():
    """The inner `[` is met on a 0, and what comes after it is asked for first; in the next pass the cell is a 1."""
    assert reference.continuation("~[>[~<]", 1) == ("", "asks")
    assert reference.continuation("~[>[~<].~]", 5) == ("11111", "")
    assert reference.layout("~[>[~<].~]") == "~[>[.~]~<]"
    assert reference.layout("~[>[~<]") == "~[>[_]~<]"
    assert reference.layout("~[.") == "~[._]" and reference.layout(".].") == ".]."


def test_tape_has_no_ends_nearby():
    far = "~" + ">" * 60 + "<" * 60
    assert reference.continuation(far + ".", 2) == ("1", "asks")
    assert reference.continuation("~" + ">" * 62, 1) == ("", "wide")
    assert reference.continuation("~" + "<" * 62, 1) == ("", "wide")


def same(a, b):
    assert (a.counts == b.counts).all() and (a.programs, a.steps) == (b.programs, b.steps)
    assert a.shortest == b.shortest and a.least == b.least and a.complete and b.complete


def test_compiled_equals_reference_to_length_8():
    same(reference.search(bits("1110"), uniform(8, 200)), compiled.search(bits("1110"), uniform(8, 200)))


@pytest.mark.parametrize("data", ["0", "1", "01" * 8, "0" * 12, "110100", "1" * 70, "10110111011110"])
@pytest.mark.parametrize("limits", [uniform(5, 1000), uniform(6, 30), levin(17), uniform(1, 1), [0, 0]], ids=len)
def test_compiled_equals_reference(data, limits):
    same(reference.search(bits(data), limits, keep=3), compiled.search(bits(data), limits, keep=3))


def test_every_way_to_end_is_met():
    met = sum(
        compiled.search(bits(data), uniform(7, steps)).counts.sum(1)
        for data, steps in (("0", 300), ("1", 20), ("1" * 63, 5000))
    )
    rows = [HIT, ZERO, ONE, DEPARTS, SILENT, LONG, SLOW, WIDE, *(row + AFTER for row in (SILENT, LONG, SLOW, WIDE))]
    assert [row for row in rows if not met[row]] == []


@pytest.mark.parametrize("data", ["0", "1011", "000000"])
def test_weights_sum_to_one(data):
    found = compiled.search(bits(data), uniform(7, 100))
    assert found.mass(HIT, DEPARTS, SILENT, LONG, SLOW, WIDE) == 1
    assert found.mass(HIT) == found.mass(ZERO, ONE, *(row + AFTER for row in (SILENT, LONG, SLOW, WIDE)))


def test_hits_are_programs_that_print_the_data():
    found = compiled.search(bits("0101"), uniform(7, 100), keep=50)
    assert len(found.shortest) == found.counts[HIT].sum() == 12
    for hit in found.shortest:
        machine = reference.Machine(iter(hit.program).__next__)
        assert tuple(islice(machine.outputs(100), 4)) == (0, 1, 0, 1)
        assert machine.steps == hit.steps and machine.program == hit.program


def test_stopped_search_goes_on_where_it_was():
    whole = compiled.search(bits("1011"), uniform(7, 100))
    parts = compiled.Search(bits("1011"), uniform(7, 100))
    before = 1
    while not parts.done:
        parts.advance(1000)
        now = parts.outcomes()
        assert now.undecided <= before and now.complete == parts.done
        assert now.printed <= whole.printed <= now.printed + now.undecided
        before = now.undecided
    same(parts.outcomes(), whole)


def test_bounds_close_in_on_what_longer_searches_find():
    shorter, longer = (compiled.search(bits("0"), uniform(n, 300)) for n in (5, 9))
    for bit in (0, 1):
        (low, high), (lower, upper) = shorter.bounds(bit), longer.bounds(bit)
        assert 0 <= low < lower < upper < high <= 1
    assert sum(longer.bounds(bit)[0] for bit in (0, 1)) <= 1 <= sum(longer.bounds(bit)[1] for bit in (0, 1))
    children = [compiled.search(bits(data), uniform(9, 300)).printed for data in ("00", "01")]
    assert children == [longer.mass(ZERO), longer.mass(ONE)]  # the same programs, asked for in two ways


def test_mass_agrees_with_random_programs():
    """Programs drawn at random print a string as often as the search says, between its bounds."""
    rng, size, seen = np.random.default_rng(0), 4000, 0
    for _ in range(size):
        machine = reference.Machine(lambda: reference.INSTRUCTIONS[rng.integers(6)])
        with contextlib.suppress(reference.Stopped):
            seen += tuple(islice(machine.outputs(300), 2)) == (0, 1)
    found = compiled.search(bits("01"), uniform(9, 300))
    spread = 4 * (0.25 / size) ** 0.5
    assert float(found.printed) - spread < seen / size < float(found.printed + found.undecided) + spread


def test_levin_phases():
    answer = infer(bits("01" * 8), last=25)
    assert answer.stopped == "" and [phase.k for phase in answer.phases] == list(range(1, 26))
    assert answer.outcomes.shortest[0] == Hit("~[~.~.]", 41)
    assert answer.kt == (7 * BITS + log2(41),) * 2
    before = infer(bits("01" * 8), last=int(answer.kt[0]))
    assert before.outcomes.least is None and before.kt[0] == int(answer.kt[0]) < before.kt[1]
    for k in (1, 10, 30):
        limits = levin(k)
        assert all(limit == 2**k // 6**n for n, limit in enumerate(limits[:-1])) and limits[-1] == 0


def test_budgets():
    answer = infer(bits("0110"), steps=50_000)
    assert answer.stopped == "budget" and 50_000 <= answer.steps < 51_000
    assert infer(bits("0110"), steps=50_000).programs == answer.programs
    assert infer(bits("0110"), seconds=1e-9).stopped == "budget"
    assert infer(bits("0110"), length=4, each=10).outcomes.complete


def test_interrupted_search_keeps_what_it_found():
    def interrupt(phase, programs, steps):
        if phase == 25:
            raise KeyboardInterrupt

    answer = infer(bits("01" * 8), last=40, progress=interrupt)
    assert answer.stopped == "interrupted" and answer.outcomes.shortest[0].program == "~[~.~.]"


def test_literal_program_prints_the_data():
    for data in product((0, 1), repeat=6):
        hit = literal(data)
        assert reference.continuation(hit.program, 9) == ("".join(map(str, data)), "asks")
        assert hit.steps == len(hit.program)


def test_mixture():
    told = infer(bits("0110100110010110"), last=20)
    one, shares = told.mixture()
    assert shares["programs"] == 0 and 0 < one < 1 and sum(shares.values()) == pytest.approx(1)
    joint = 2**-told.tree_bits * told.tree / 4 + 2**-17 / 4
    other = 2**-told.tree_bits * (1 - told.tree) / 4 + 2**-17 / 4
    assert one == pytest.approx(joint / (joint + other))
    known = infer(bits("1"), last=25).mixture()
    assert known[1]["programs"] > 0.2
    low, high = told.complexity
    assert low < high == -log2_of(Fraction(1, 6 ** len(told.literal.program)))


@pytest.mark.parametrize("data", [(), (0, 2), "01"])
def test_not_bits(data):
    with pytest.raises(ValueError, match="data: expected bits"):
        infer(data, last=3)


@pytest.mark.parametrize(
    "budget", [{"seconds": 0}, {"steps": -1}, {"last": 0}, {"length": 0}, {"length": 3, "each": 0}]
)
def test_nothing_to_spend(budget):
    with pytest.raises(ValueError, match="expected more than 0, got"):
        infer((0, 1), **budget)
    with pytest.raises(ValueError, match="expected a budget"):
        infer((0, 1))
