"""Screen and confirmation with launches that are given: which are taken, and what is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from given_launches import (
    BASE,
    CASE,
    ENVIRONMENT,
    Builder,
    FakeBases,
    Machine,
    Told,
    gate,
    job,
    launch_of,
    stored,
)

from perfgate.errors import CaseError
from perfgate.gate.baselines import Baselines
from perfgate.records import CaseResult, Failed, Measured, Mode, Protocol, Verdict
from perfgate.run.confirm import ConfirmContext, Measurer


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.0, Verdict.PASS), (1.03, Verdict.REGRESSION), (1.5, Verdict.REGRESSION), (0.9, Verdict.IMPROVEMENT)],
)
def test_head_against_base_in_turn_decides(ratio: float, verdict: Verdict) -> None:
    machine = Machine(base=1e6, head=1e6 * ratio)
    found, judgement = gate(machine)
    assert judgement.verdict is verdict
    confirmation = judgement.confirmation
    assert confirmation is not None
    assert confirmation.decided
    assert confirmation.base_commit == "ab" * 20
    assert "said of base" in confirmation.notes
    # One stored run can pass nothing, so no launch is spent on a screen; the blocks are balanced.
    assert machine.seen.count("base") == machine.seen.count("head") == confirmation.head_launches
    for block in zip(*[iter(machine.seen)] * 4, strict=True):
        assert block in (("base", "head", "head", "base"), ("head", "base", "base", "head"))
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert len(outcome.base_launches) == confirmation.base_launches


def test_where_three_runs_agree_a_harmless_head_passes_without_a_launch_of_base() -> None:
    machine = Machine(head=1e6)
    found, judgement = gate(machine, runs=3)
    assert judgement.verdict is Verdict.PASS
    assert machine.seen == ["head"] * 5
    assert judgement.confirmation is None
    assert found.evidence[CASE.id].screened is not None


@pytest.mark.parametrize("ratio", [1.05, 0.9])
def test_where_three_runs_agree_a_suspect_is_confirmed_whichever_way(ratio: float) -> None:
    machine = Machine(base=1e6, head=1e6 * ratio)
    found, judgement = gate(machine, runs=3)
    assert judgement.verdict is (Verdict.REGRESSION if ratio > 1 else Verdict.IMPROVEMENT)
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert len(outcome.screen) == 5
    assert judgement.confirmation is not None


def test_a_base_that_is_as_slow_makes_it_no_fault_of_head() -> None:
    _, judgement = gate(Machine(base=1.2e6, head=1.2e6))
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "already-on-base")


def test_a_head_slower_than_a_slower_base_is_its_fault_still() -> None:
    _, judgement = gate(Machine(base=1.2e6, head=1.3e6))
    assert judgement.verdict is Verdict.REGRESSION


def test_out_of_budget_it_is_undecided_and_says_how_many_launches_more() -> None:
    machine = Machine(base=1e6, head=1.012e6)
    _, judgement = gate(machine, budget=(4, None))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.confirmation is not None
    assert not judgement.confirmation.decided
    assert judgement.confirmation.needed > 0
    assert f"about {judgement.confirmation.needed} more launches a side" in judgement.reason
    assert machine.seen.count("head") == 4


def test_a_budget_of_seconds_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("perfgate.run.trial.time.monotonic", lambda: next(clock))
    machine = Machine(base=1e6, head=1.012e6)
    _, judgement = gate(machine, budget=(None, 25))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert machine.seen.count("head") == 4


def test_without_a_base_the_stored_launches_have_to_do_and_it_is_said() -> None:
    machine = Machine(head=1.5e6)
    found, judgement = gate(machine, base="there is no git repository around the project")
    assert judgement.verdict is Verdict.REGRESSION
    assert "because there is no git repository" in judgement.reason
    assert judgement.confirmation is not None
    assert judgement.confirmation.base_launches == 0
    assert machine.seen == ["head"] * 10, "a suspect is confirmed with launches of its own"
    assert found.without_base


def test_a_base_that_does_not_launch_is_not_heads_fault() -> None:
    machine = Machine(head=1e6)
    machine.odd["base", 0] = CaseError("the process was killed by SIGSEGV")
    _, judgement = gate(machine)
    assert judgement.verdict is Verdict.PASS
    assert "base's launch failed: the process was killed by SIGSEGV" in judgement.reason


def test_a_head_that_does_not_launch_is_its_own_fault() -> None:
    machine = Machine(base=1e6, head=1e6)
    machine.odd["head", 1] = CaseError("the process was killed by SIGSEGV")
    _, judgement = gate(machine)
    assert judgement.verdict is Verdict.ERROR


def test_an_invalid_launch_is_taken_again_in_its_place_and_shown() -> None:
    machine = Machine(base=1e6, head=1.5e6)
    machine.odd["base", 0] = launch_of(9e6, invalid="a neighbour")
    found, judgement = gate(machine)
    assert judgement.verdict is Verdict.REGRESSION
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert [one.invalid for one in outcome.shown] == ["a neighbour"]


def test_a_machine_that_never_lets_a_launch_be_valid_is_infrastructure() -> None:
    machine = Machine(base=1e6, head=1e6)
    for turn in range(20):
        machine.odd["base", turn] = launch_of(1e6, invalid="a neighbour")
    _, judgement = gate(machine)
    assert judgement.verdict is Verdict.INVALID
    assert "a neighbour" in judgement.reason


def test_one_launch_ten_times_as_long_is_measured_again_and_shown_but_decides_nothing() -> None:
    machine = Machine(base=1e6, head=1e6)
    machine.odd["head", 1] = launch_of(10e6)
    found, judgement = gate(machine)
    assert judgement.verdict is Verdict.PASS
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert [one.median_ns for one in outcome.shown] == [10e6]
    assert max(one.median_ns for one in outcome.launches) < 2e6


@pytest.mark.parametrize("runs", [1, 3])
def test_an_interrupt_keeps_what_was_measured_and_fails_nothing_for_it(runs: int) -> None:
    machine = Machine(base=1e6, head=1.5e6)
    machine.odd["head", 6 if runs == 3 else 1] = KeyboardInterrupt()
    found, judgement = gate(machine, runs=runs)
    assert found.interrupted
    assert judgement.verdict is Verdict.INVALID
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    # Head's launches of the confirmation, base's beside them, and the screen's where there was one.
    assert len(outcome.launches) == 1 and outcome.base_launches
    assert len(outcome.screen) == (5 if runs == 3 else 0)
    assert all("interrupted" in one.invalid for one in outcome.launches)


def test_the_order_of_blocks_is_the_runs_own() -> None:
    orders = set()
    for number in range(8):
        machine = Machine(base=1e6, head=1e6)
        _run_with_id(machine, f"run-{number}")
        orders.add(tuple(machine.seen[:16]))
    assert len(orders) > 1


def _run_with_id(machine: Machine, run_id: str) -> None:
    court = ConfirmContext(
        baselines=Baselines(root="baselines", cases={CASE.id: stored()}),
        environment=ENVIRONMENT,
        protocol=Protocol(launches=5),
        default_mode=Mode(),
        budget=(32, None),
        run_id=run_id,
    )
    bases: Any = FakeBases(BASE)
    result = CaseResult(case=CASE, outcome=Failed(stage="interrupted", reason="not yet"))
    Measurer(court, bases, Told(), lambda _: None, Builder(), machine).run(
        [job("head")], {CASE.id: result}, lambda _: None
    )
