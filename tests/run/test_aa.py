"""`perfgate aa`: real A/A gates over launches that are given, and rebuilt engines beside them."""

from __future__ import annotations

import random

from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.statistics.power import run_aa_gates
from perfgate.records import Tolerance

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)


def launches(count: int, cv: float, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [1e6 * draw.lognormvariate(0, cv) for _ in range(count)]


def test_gates_of_an_engine_against_itself_are_counted_with_the_exact_bound() -> None:
    values = launches(400, 0.005)
    found = run_aa_gates(values, TOLERANCE, spread_of("gpu", [values]), 32)
    assert found.gates >= 15
    assert found.alarms == 0
    # Clopper and Pearson: with no event in n the bound is 1 - 0.05 ** (1 / n).
    assert abs(found.upper - (1 - 0.05 ** (1 / found.gates))) < 1e-9


def test_noise_beyond_the_budget_is_undecided_and_no_alarm() -> None:
    values = launches(400, 0.2)
    found = run_aa_gates(values, TOLERANCE, spread_of("gpu", [values]), 4)
    assert found.undecided > found.gates / 2


def test_too_few_launches_make_no_gate_and_no_claim() -> None:
    found = run_aa_gates([1e6, 1e6, 1e6], TOLERANCE, spread_of("gpu"), 32)
    assert (found.gates, found.upper) == (0, 1.0)
