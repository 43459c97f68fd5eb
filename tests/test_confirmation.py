"""Screen and confirmation with launches that are given: which are taken, and what is made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from perfgate.bases import BaseEngine
from perfgate.confirmation import Court, Found, Measuring, without_base
from perfgate.engine.interface import BuildRequest
from perfgate.errors import CaseError
from perfgate.gate.baselines import Baselines, Stored
from perfgate.gate.judge import judge
from perfgate.gate.metrics import columns
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.measure.schedule import Job
from perfgate.records import (
    BaselineCase,
    BaselineRun,
    Case,
    CaseResult,
    Commit,
    Draws,
    EngineFacts,
    Environment,
    Failed,
    Judgement,
    Launch,
    Measured,
    Mode,
    Protocol,
    Recipe,
    Tolerance,
    Verdict,
)

CASE = Case(
    id="net/fp16/b8",
    model="net",
    backend="tensorrt",
    precision="fp16",
    tolerance=Tolerance(ignore=0.005, catch=0.02),
)
ENVIRONMENT = Environment(device="nvidia-h200", toolchain="tensorrt-8.5.3.1", key={"driver": "580"})
DIGEST = "ab" * 32
# Launches of one engine as a GPU has them: within some tenths of a per cent.
WOBBLE = (1.0, 1.003, 0.998, 1.001, 0.997, 1.002, 0.999, 1.004, 0.996)


def launch_of(median_ns: float, invalid: str = "") -> Launch:
    return Launch(
        samples_ns=(round(median_ns),) * 3,
        wall_ns=3 * 10**6,
        load_ns=1,
        first_inference_ns=1,
        invalid=invalid,
    )


class Machine:
    """Launches by engine: each has a median (ns) and wobbles about it; what was launched is kept."""

    def __init__(self, **medians: float) -> None:
        self.medians, self.seen, self.odd = medians, [], {}  # type: ignore[var-annotated]

    def __or__(self, more: dict[str, float]) -> Machine:
        return Machine(**self.medians, **more)

    def __call__(self, request: LaunchRequest) -> Launch:
        assert isinstance(request.target, EngineTarget)
        name = Path(request.target.engine).name
        turn = self.seen.count(name)
        self.seen.append(name)
        answer = self.odd.get((name, turn))
        if isinstance(answer, BaseException):
            raise answer
        return answer or launch_of(self.medians[name] * WOBBLE[turn % len(WOBBLE)])


class Told:
    def start(self, total: int) -> None: ...
    def step(self, case_id: str, note: str) -> None: ...


class Builder:
    """Builds by recipe: the engine of draw n of `head` is `head-n`."""

    def __init__(self, **digests: str) -> None:
        self.digests, self.built = digests, []  # type: ignore[var-annotated]

    def __call__(self, request: BuildRequest) -> tuple[Path, EngineFacts]:
        name = f"{request.backend}-{request.recipe.draw}"
        self.built.append(name)
        digest = self.digests.get(name.replace("-", "_"), hashlib.sha256(name.encode()).hexdigest())
        if digest == "broken":
            raise CaseError("the builder ran out of memory")
        return Path(name), EngineFacts(digest=digest, engine_bytes=1, timing_cache_bytes=20)


class FakeBases:
    def __init__(self, base: BaseEngine | str, build: Builder | None = None) -> None:
        self.base, self.asked, self.build = base, 0, build or Builder()

    def engine(self, result: CaseResult, mode: Mode) -> BaseEngine | str:
        self.asked += 1
        return self.base

    def prefer(self, result: CaseResult, mode: Mode, base: BaseEngine) -> None:
        self.base = base


def job(engine: str, timing_cache_bytes: int | None = None) -> Job:
    """A launch of an engine; with a timing cache left behind, it is one that was built without one."""
    recipe = Recipe(backend=engine, onnx_digest=DIGEST, precision="fp16")
    return Job(
        case_id=CASE.id,
        target=EngineTarget(engine=engine, case=CASE, folder="."),
        protocol=Protocol(launches=5),
        engine=EngineFacts(
            digest=DIGEST if engine == "base" else "cd" * 32,
            engine_bytes=1,
            timing_cache_bytes=timing_cache_bytes,
        ),
        request=BuildRequest(backend=engine, recipe=recipe, onnx="net.onnx"),
    )


def stored(runs: int = 1) -> Stored:
    """A baseline of 1 ms; with three runs on three days that agree, the screen may pass a case."""
    launches = [launch_of(1e6 * WOBBLE[index % len(WOBBLE)]) for index in range(9 * runs)]
    return Stored(
        case=BaselineCase(
            case_digest=DIGEST,
            environment="e",
            metrics=columns(launches),
            runs=tuple(
                BaselineRun(run_id=f"r{day}", created=f"2026-01-0{day + 1}T00:00:00Z", launches=9)
                for day in range(runs)
            ),
            promoted="2026-01-01",
            reason="first",
        ),
        environment=ENVIRONMENT,
        path="baselines/net.json",
    )


BASE = BaseEngine(job=job("base"), commit=Commit(sha="ab" * 20), notes=("said of base",))


def gate(
    machine: Machine,
    base: BaseEngine | str = BASE,
    runs: int = 1,
    budget: tuple[int | None, int | None] = (32, None),
    head: Job | None = None,
    build: Builder | None = None,
) -> tuple[Found, Judgement]:
    court = Court(
        baselines=Baselines(root="baselines", cases={CASE.id: stored(runs)}),
        environment=ENVIRONMENT,
        protocol=Protocol(launches=5),
        default_mode=Mode(),
        budget=budget,
        run_id="run-1",
    )
    build = build or Builder()
    bases: Any = FakeBases(base, build)
    head = head or job("head")
    case = head.target.case  # type: ignore[union-attr]
    result = CaseResult(case=case, outcome=Failed(stage="interrupted", reason="not yet"))
    measuring = Measuring(court, bases, Told(), lambda _: None, build, machine)
    found = measuring.run([head], {CASE.id: result}, lambda _: None)
    outcome = found.outcomes[CASE.id]
    judgement = judge(
        CASE, outcome, court.baselines, ENVIRONMENT, court.protocol, evidence=found.evidence[CASE.id]
    )
    return found, without_base(judgement, outcome, found.without_base.get(CASE.id, ""))


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
    monkeypatch.setattr("perfgate.trial.time.monotonic", lambda: next(clock))
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
    machine.odd["base", 1] = KeyboardInterrupt()
    found, judgement = gate(machine, runs=runs)
    assert found.interrupted
    assert judgement.verdict is Verdict.INVALID


def test_the_order_of_blocks_is_the_runs_own() -> None:
    orders = set()
    for number in range(8):
        machine = Machine(base=1e6, head=1e6)
        _run_with_id(machine, f"run-{number}")
        orders.add(tuple(machine.seen[:16]))
    assert len(orders) > 1


def _run_with_id(machine: Machine, run_id: str) -> None:
    court = Court(
        baselines=Baselines(root="baselines", cases={CASE.id: stored()}),
        environment=ENVIRONMENT,
        protocol=Protocol(launches=5),
        default_mode=Mode(),
        budget=(32, None),
        run_id=run_id,
    )
    bases: Any = FakeBases(BASE)
    result = CaseResult(case=CASE, outcome=Failed(stage="interrupted", reason="not yet"))
    Measuring(court, bases, Told(), lambda _: None, Builder(), machine).run(
        [job("head")], {CASE.id: result}, lambda _: None
    )


def drawn(pick: Literal["best", "any"] = "best", builds: int = 6) -> Job:
    """A head whose build missed the timing cache."""
    case = msgspec.structs.replace(CASE, draws=Draws(builds=builds, pick=pick))
    head = job("head", timing_cache_bytes=20)
    return msgspec.structs.replace(head, target=EngineTarget(engine="head", case=case, folder="."))


def test_a_slow_build_of_the_same_model_is_built_again_and_the_best_build_is_gated() -> None:
    machine = Machine(base=1e6, head=1.17e6) | {"head-1": 1.17e6, "head-2": 1e6}
    build = Builder()
    found, judgement = gate(machine, head=drawn(), build=build)
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "build")
    assert "3 builds of head lie 1" in judgement.reason
    assert build.built == ["head-1", "head-2"]
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert outcome.engine == found.builds[CASE.id].engine
    assert Path(found.builds[CASE.id].target.engine).name == "head-2"  # type: ignore[union-attr]
    assert judgement.confirmation is not None
    assert "build 1 of head: +17.0 %" in judgement.confirmation.notes


def test_a_model_that_is_slower_in_every_build_is_a_regression() -> None:
    machine = Machine(base=1e6, head=1.05e6) | {f"head-{number}": 1.05e6 for number in range(1, 6)}
    build = Builder()
    _, judgement = gate(machine, head=drawn(), build=build)
    assert (judgement.verdict, judgement.code) == (Verdict.REGRESSION, "")
    assert len(build.built) == 5


def test_builds_of_equal_bytes_are_launched_once() -> None:
    machine = Machine(base=1e6, head=1.05e6)
    build = Builder(**{f"head_{number}": "cd" * 32 for number in range(1, 6)})
    _, judgement = gate(machine, head=drawn(), build=build)
    assert judgement.verdict is Verdict.REGRESSION
    assert set(machine.seen) == {"base", "head"}


def test_a_deployment_that_builds_its_own_is_told_that_the_verdict_is_the_builds() -> None:
    machine = Machine(base=1e6, head=1e6) | {"head-1": 1.17e6}
    _, judgement = gate(machine, head=drawn("any", builds=2))
    assert (judgement.verdict, judgement.code) == (Verdict.INCONCLUSIVE, "build")
    assert "2 builds of head lie 1" in judgement.reason


def test_a_slow_build_of_base_excuses_no_head() -> None:
    machine = Machine(base=1.17e6, head=1.25e6) | {
        **{f"head-{number}": 1.17e6 for number in range(1, 6)},
        **{f"base-{number}": 1e6 for number in range(1, 6)},
    }
    base = msgspec.structs.replace(BASE, job=job("base", timing_cache_bytes=20))
    _, judgement = gate(machine, base=base, head=drawn())
    assert judgement.verdict is Verdict.REGRESSION
    assert machine.seen.count("base-1") > 4


@pytest.mark.parametrize("head", [job("head"), drawn(builds=1)], ids=["told by its cache", "one build"])
def test_without_luck_nothing_is_built_again(head: Job) -> None:
    build = Builder()
    _, judgement = gate(Machine(base=1e6, head=1.17e6), head=head, build=build)
    assert judgement.verdict is Verdict.REGRESSION
    assert build.built == []


def test_a_build_that_fails_is_left_out() -> None:
    _, judgement = gate(Machine(base=1e6, head=1.17e6), head=drawn(), build=Builder(head_1="broken"))
    assert judgement.verdict is Verdict.REGRESSION
