"""Build luck in a confirmation: which engines are built and launched, and what the verdict then is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest
from given_launches import BASE, CASE, Builder, Machine, gate, job

from perfgate.errors import CaseError
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.measure.schedule import Job
from perfgate.records import EngineFacts, Launch, Measured, RebuildPolicy, Verdict
from perfgate.report.phrases import match


def drawn(pick: Literal["best", "any"] = "best", builds: int = 6) -> Job:
    """A head whose build missed the timing cache."""
    case = msgspec.structs.replace(CASE, draws=RebuildPolicy(builds=builds, pick=pick))
    head = job("head", timing_cache_bytes=20)
    return msgspec.structs.replace(head, target=EngineTarget(engine="head", case=case, folder="."))


def test_a_slow_build_of_the_same_model_is_built_again_and_the_best_build_is_gated() -> None:
    machine = Machine(base=1e6, head=1.17e6) | {"head-1": 1.17e6, "head-2": 1e6}
    build = Builder()
    found, judgement = gate(machine, head=drawn(), build=build)
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "build")
    assert "3 builds of head lie 1" in judgement.reason
    assert build.built == ["head-1", "head-2"]
    assert machine.seen.count("head-2") > machine.seen.count("head-1"), "what passes by luck passes twice"
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert outcome.engine == found.builds[CASE.id].engine
    assert Path(found.builds[CASE.id].target.engine).name == "head-2"  # type: ignore[union-attr]
    assert judgement.confirmation is not None
    assert "build 1 of head: +17.0 %" in judgement.confirmation.notes
    unknown = [note for note in judgement.confirmation.notes if match(note) is None]
    assert unknown == ["said of base"], "what perfgate itself notes is in the phrasebook"


def test_what_builds_of_one_model_differ_by_is_no_regression_where_the_cache_did_not_tell() -> None:
    told = gate(Machine(base=1e6, head=1.03e6), head=job("head"))[1]
    assert told.verdict is Verdict.REGRESSION and "2 % slower or more" in told.reason
    build = Builder()
    _, judgement = gate(Machine(base=1e6, head=1.015e6), head=drawn(), build=build)
    assert judgement.verdict is Verdict.PASS and build.built == []
    assert "3.07 % slower or less than 4.57 % or more" in judgement.reason
    assert judgement.confirmation is not None
    note = next(one for one in judgement.confirmation.notes if "timing cache" in one)
    assert "told 100 %" in note and "2.6 % more is ignored" in note


def test_nor_is_it_one_of_throughput() -> None:
    """A closed loop's queries a second are the latency's luck once more."""
    head = drawn()
    slow = Machine(base=1e6, head=1.03e6)
    told = msgspec.structs.replace(head, engine=job("head").engine)
    assert gate(slow, head=told)[1].verdict is Verdict.REGRESSION
    judgement = gate(Machine(base=1e6, head=1.03e6), head=head)[1]
    assert judgement.verdict is Verdict.PASS, judgement.reason
    (found,) = [one for one in judgement.metrics if one.metric == "throughput_qps"]
    assert found.head and found.base and found.verdict is Verdict.PASS
    assert found.head / found.base == pytest.approx(1 / 1.03, rel=0.01)


def test_a_layer_or_two_of_a_new_shape_are_held_as_closely_as_ever() -> None:
    facts = EngineFacts(
        digest="cd" * 32, engine_bytes=1, timing_cache_bytes=100, timing_cache_loaded_bytes=95
    )
    once = drawn(builds=1)
    _, judgement = gate(Machine(base=1e6, head=1.03e6), head=msgspec.structs.replace(once, engine=facts))
    assert judgement.verdict is Verdict.REGRESSION and judgement.tolerance is None
    wide = msgspec.structs.replace(facts, timing_cache_loaded_bytes=60)
    _, judgement = gate(Machine(base=1e6, head=1.02e6), head=msgspec.structs.replace(once, engine=wide))
    assert judgement.verdict is Verdict.PASS
    assert judgement.tolerance is not None and judgement.tolerance.catch == pytest.approx(0.0317, abs=1e-3)


def test_a_base_that_no_cache_told_widens_what_head_is_held_by() -> None:
    base = msgspec.structs.replace(BASE, job=job("base", timing_cache_bytes=20))
    machine = Machine(base=1e6, head=1.02e6) | {f"base-{number}": 1e6 for number in range(1, 6)}
    _, judgement = gate(machine, base=base, head=job("head"))
    assert judgement.tolerance is not None and judgement.tolerance.catch > 0.04
    assert judgement.verdict is not Verdict.REGRESSION


def test_the_baselines_own_engine_told_heads_build_all() -> None:
    """It was built first, without a cache, and the cache that it left is the one that head's build found."""
    own = msgspec.structs.replace(job("base", timing_cache_bytes=20), request=None)
    base = msgspec.structs.replace(BASE, job=own)
    _, judgement = gate(Machine(base=1e6, head=1.03e6), base=base, head=job("head"))
    assert judgement.verdict is Verdict.REGRESSION and judgement.tolerance is None


def test_a_build_that_passes_is_red_for_its_tail_all_the_same() -> None:
    machine = Machine(base=1e6, head=1.17e6) | {"head-1": 1e6}
    judged = [gate(machine, head=drawn())[1]]
    machine = TailedMachine(base=1e6, head=1.17e6) | {"head-1": 1e6}
    judged.append(gate(machine, head=drawn())[1])
    assert [one.verdict for one in judged] == [Verdict.PASS, Verdict.REGRESSION]
    assert judged[1].code == "metric/p99_ns"


class TailedMachine(Machine):
    """Every launch of head has one query in twenty that takes half as long again."""

    def __call__(self, request: LaunchRequest) -> Launch:
        launch = super().__call__(request)
        assert isinstance(request.target, EngineTarget)
        tail = 1.5 if "head" in request.target.engine else 1.0
        median = launch.samples_ns[0]
        samples = tuple(round(median * (tail if index % 20 == 0 else 1)) for index in range(1200))
        return msgspec.structs.replace(launch, samples_ns=samples, wall_ns=1200 * median)


def test_without_a_base_to_launch_the_luck_of_heads_build_counts_too() -> None:
    machine = Machine(base=1e6, head=1.02e6)
    assert gate(machine, base="its model is gone", head=job("head"))[1].verdict is Verdict.REGRESSION
    _, judgement = gate(Machine(base=1e6, head=1.02e6), base="its model is gone", head=drawn())
    assert judgement.verdict is Verdict.PASS
    assert judgement.tolerance is not None and "4.57 % to catch" in judgement.reason


def test_a_build_that_stays_undecided_is_drawn_again() -> None:
    machine = Machine(base=1e6, head=1.038e6) | {"head-1": 1e6}
    build = Builder()
    _, judgement = gate(machine, head=drawn(), build=build)
    assert (judgement.verdict, judgement.code) == (Verdict.PASS, "build")
    assert build.built == ["head-1"]


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
    machine = Machine(base=1e6, head=1.17e6) | {f"head-{number}": 1.17e6 for number in range(2, 6)}
    _, judgement = gate(machine, head=drawn(), build=Builder(head_1="broken"))
    assert judgement.verdict is Verdict.REGRESSION
    assert "5 builds of head lie" in judgement.reason


def test_a_slow_build_of_base_lets_no_slower_head_pass() -> None:
    """Head is 10 % slower than base, and faster than the build of base that was drawn first."""
    machine = Machine(base=1.17e6, head=1.1e6) | {
        **{f"head-{number}": 1.1e6 for number in range(1, 6)},
        **{f"base-{number}": 1e6 for number in range(1, 6)},
    }
    base = msgspec.structs.replace(BASE, job=job("base", timing_cache_bytes=20))
    _, judgement = gate(machine, base=base, head=drawn())
    assert judgement.verdict is Verdict.REGRESSION
    assert judgement.confirmation is not None
    assert any("base is the fastest of" in note for note in judgement.confirmation.notes)


def test_a_build_of_base_that_does_not_launch_is_left_out() -> None:
    machine = Machine(base=1e6, head=1e6) | {f"base-{number}": 1.2e6 for number in range(1, 6)}
    machine.odd = {("base-2", turn): CaseError("killed by SIGSEGV") for turn in range(9)}
    base = msgspec.structs.replace(BASE, job=job("base", timing_cache_bytes=20))
    _, judgement = gate(machine, base=base, head=drawn())
    assert judgement.verdict is Verdict.PASS


def test_builds_of_both_sides_that_are_the_same_bytes_are_no_luck() -> None:
    build = Builder()
    base = msgspec.structs.replace(BASE, job=job("base", timing_cache_bytes=20))
    same = msgspec.structs.replace(drawn(), engine=base.job.engine)
    gate(Machine(base=1e6, head=1e6), base=base, head=same, build=build)
    assert build.built == []


def test_an_interrupt_among_the_builds_keeps_the_first_ones_launches_in_doubt() -> None:
    machine = Machine(base=1e6, head=1.17e6)
    machine.odd = {("head-1", 0): KeyboardInterrupt()}
    found, judgement = gate(machine, head=drawn())
    assert found.interrupted
    assert judgement.verdict is Verdict.INVALID
    outcome = found.outcomes[CASE.id]
    assert isinstance(outcome, Measured)
    assert len(outcome.launches) >= 4


def test_where_all_builds_count_a_screen_passes_none_of_them() -> None:
    machine = Machine(base=1e6, head=1e6) | {"head-1": 1.17e6}
    _, judgement = gate(machine, runs=3, head=drawn("any", builds=2))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    failing = gate(Machine(base=1e6, head=1e6), head=drawn("any", builds=2), build=Builder(head_1="broken"))
    assert failing[1].verdict is Verdict.INCONCLUSIVE
    assert "1 of 2 builds could be held" in failing[1].reason
