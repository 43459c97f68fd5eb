from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from perfgate.errors import CaseError, InfrastructureError
from perfgate.measure.launch import CallableTarget, EngineTarget, LaunchRequest
from perfgate.measure.schedule import RETRIES, Job, launch_failed, measure, order
from perfgate.records import Case, EngineFacts, Failed, Launch, Measured, Mode, Outcome, Protocol, Tolerance

LAUNCH = Launch(samples_ns=(5, 6, 7), wall_ns=18, load_ns=1, first_inference_ns=1)
INVALID = Launch(samples_ns=(9,), wall_ns=9, load_ns=1, first_inference_ns=1, invalid="slowed down")


def job(name: str, launches: int = 3) -> Job:
    return Job(
        case_id=name,
        target=CallableTarget(file="test.py", function=name),
        protocol=Protocol(launches=launches),
        engine=EngineFacts(digest="ab" * 32, engine_bytes=1),
    )


class Told:
    def __init__(self) -> None:
        self.total = 0
        self.steps: list[tuple[str, str]] = []

    def start(self, total: int) -> None:
        self.total = total

    def step(self, case_id: str, note: str) -> None:
        self.steps.append((case_id, note))


def scripted(*answers: object) -> tuple[Callable[[LaunchRequest], Launch], list[str]]:
    """Launches that answer in turn (the last one for ever); an exception is raised. Also who was launched."""
    queue, launched = list(answers), []

    def one(request: LaunchRequest) -> Launch:
        assert isinstance(request.target, CallableTarget)
        launched.append(request.target.function)
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Launch)
        return answer

    return one, launched


def test_rounds_hold_each_case_once_and_are_the_same_in_every_run() -> None:
    jobs = [job(name, 4) for name in "abcdef"]
    turns = [one.case_id for one in order(jobs)]
    rounds = [turns[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(turn) == list("abcdef") for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1, "the order within a round changes"
    assert turns == [one.case_id for one in order(jobs)]


def test_a_case_with_fewer_launches_leaves_the_later_rounds() -> None:
    turns = [one.case_id for one in order([job("short", 1), job("long", 3)])]
    assert Counter(turns) == {"short": 1, "long": 3}
    assert turns[2:] == ["long", "long"]


def test_nothing_to_measure_is_nothing_measured() -> None:
    assert order([]) == []
    assert measure([], Told()) == ({}, False)


def test_every_case_gets_its_launches_and_its_engine() -> None:
    told = Told()
    one, launched = scripted(LAUNCH)
    outcomes, interrupted = measure([job("a"), job("b", 2)], told, one=one)
    assert not interrupted
    assert {name: len(o.launches) for name, o in outcomes.items() if isinstance(o, Measured)} == {
        "a": 3,
        "b": 2,
    }
    assert all(isinstance(o, Measured) and o.engine == job("x").engine for o in outcomes.values())
    assert (told.total, len(told.steps), len(launched)) == (5, 5, 5)


def test_a_launch_that_fails_fails_its_own_case_and_the_others_go_on() -> None:
    def one(request: LaunchRequest) -> Launch:
        assert isinstance(request.target, CallableTarget)
        if request.target.function == "b":
            raise CaseError("the process was killed by SIGSEGV", stderr_tail="core", fix="free some memory")
        return LAUNCH

    told = Told()
    outcomes, interrupted = measure([job("a"), job("b"), job("c")], told, one=one)
    assert not interrupted
    assert outcomes["b"] == Failed(
        stage="launch", reason="the process was killed by SIGSEGV; free some memory", stderr_tail="core"
    )
    for name in ("a", "c"):
        outcome = outcomes[name]
        assert isinstance(outcome, Measured)
        assert len(outcome.launches) == 3
    assert sum(note.startswith("failed") for _, note in told.steps) == 1
    assert len(told.steps) == told.total


def test_a_failed_case_is_launched_no_more_and_its_earlier_launches_do_not_count() -> None:
    one, launched = scripted(LAUNCH, CaseError("crashed"), LAUNCH)
    outcomes, _ = measure([job("a")], Told(), one=one)
    assert launched == ["a", "a"]
    assert isinstance(outcomes["a"], Failed)


def test_an_interrupt_keeps_the_launches_until_then() -> None:
    one, launched = scripted(LAUNCH, LAUNCH, LAUNCH, KeyboardInterrupt())
    outcomes, interrupted = measure([job("a"), job("b")], Told(), one=one)
    assert interrupted
    assert len(launched) == 4
    kept = [o for o in outcomes.values() if isinstance(o, Measured)]
    assert sum(len(o.launches) for o in kept) == 3


def test_an_interrupt_before_the_first_launch_is_told_as_such() -> None:
    one, _ = scripted(KeyboardInterrupt())
    outcomes, interrupted = measure([job("a")], Told(), one=one)
    assert interrupted
    assert isinstance(outcomes["a"], Failed)
    assert "interrupted" in outcomes["a"].reason


def test_trouble_with_the_machine_ends_the_run() -> None:
    one, _ = scripted(LAUNCH, InfrastructureError("the GPU fell off the bus"))
    with pytest.raises(InfrastructureError):
        measure([job("a")], Told(), one=one)


def test_a_checkpoint_holds_everything_that_was_measured_so_far() -> None:
    seen: list[int] = []

    def checkpoint(outcomes: dict[str, Outcome]) -> None:
        assert outcomes.keys() == {"a", "b"}
        seen.append(sum(len(o.launches) for o in outcomes.values() if isinstance(o, Measured)))

    one, _ = scripted(LAUNCH)
    measure([job("a"), job("b")], Told(), one=one, checkpoint=checkpoint)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_an_invalid_launch_is_kept_and_measured_again() -> None:
    one, launched = scripted(LAUNCH, INVALID, LAUNCH)
    outcomes, _ = measure([job("a")], Told(), one=one)
    outcome = outcomes["a"]
    assert isinstance(outcome, Measured)
    assert len(launched) == 4
    assert [bool(one.invalid) for one in outcome.launches] == [False, True, False, False]


def test_a_device_that_stays_slow_is_not_measured_for_ever() -> None:
    one, launched = scripted(INVALID)
    told = Told()
    outcomes, interrupted = measure([job("a", 2)], told, one=one)
    assert not interrupted
    assert len(launched) == 2 + RETRIES
    notes = [note for _, note in told.steps]
    assert notes[:RETRIES] == ["invalid, to be measured again: slowed down"] * RETRIES
    assert notes[RETRIES:] == ["invalid: slowed down"] * 2, "no launch that does not count looks like one"
    assert isinstance(outcomes["a"], Measured)


@pytest.mark.parametrize(
    ("drive", "kind", "stage"),
    [
        ("graph", "GraphCaptureError", "capture"),
        ("graph", "SIGABRT", "capture"),  # what TensorRT makes of some networks
        ("graph", "SIGKILL", "launch"),  # the kernel's, where memory ran out
        ("graph", "", "launch"),
        ("enqueue", "SIGABRT", "launch"),
    ],
)
def test_a_crash_in_a_graphs_mode_is_taken_for_a_capture_that_failed(
    drive: Any, kind: str, stage: str
) -> None:
    limits = Tolerance(ignore=0.1, catch=0.3)
    case = Case(
        id="n/fp32", model="n", backend="tensorrt", precision="fp32", tolerance=limits, mode=Mode(drive=drive)
    )
    target = EngineTarget(engine="engine", case=case, folder="")
    assert launch_failed(CaseError("no", kind=kind, stderr_tail="why"), target) == Failed(
        stage=stage,  # type: ignore[arg-type]
        reason="no",
        stderr_tail="why",
    )
