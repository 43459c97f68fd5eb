from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from gate_runs import (
    DIGEST,
    ENVIRONMENT,
    FASTER,
    PROTOCOL,
    SLOWER,
    STEADY,
    case,
    measured,
    promote,
    run,
    seed,
)

from perfgate.errors import DataError, RefusedError
from perfgate.gate.baselines import load_baselines, read_baseline
from perfgate.gate.judge import judge
from perfgate.records import Commit, Failed, Judgement, Measured, NotRun, Outcome, Unchanged, Verdict

FILE = "nvidia-h200/tensorrt-10.13/net.json"
GONE = Failed(stage="missing", reason="no spec makes it")


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_was_promoted_is_what_a_later_run_is_compared_with(tmp_path: Path) -> None:
    seed(tmp_path)
    stored = load_baselines(tmp_path, ENVIRONMENT).cases["net/fp16/b8"]
    assert stored.case.metrics["latency_ns"] == (1_000_000, 1_001_000, 999_000, 1_000_500, 999_500)
    assert (stored.case.reason, stored.case.commit, stored.case.case_digest) == ("first", "ab" * 20, DIGEST)
    assert stored.environment == ENVIRONMENT
    verdict = judge(case(), STEADY, load_baselines(tmp_path, ENVIRONMENT), ENVIRONMENT, PROTOCOL).verdict
    assert verdict is Verdict.PASS


def test_the_move_of_a_new_case_and_of_a_faster_one(tmp_path: Path) -> None:
    first = promote(run({"net/a": STEADY}, tmp_path), tmp_path, reason="first")
    assert [(m.case_id, m.before_ns, m.after_ns) for m in first] == [("net/a", None, 1_000_000)]
    second = promote(run({"net/a": FASTER}, tmp_path), tmp_path, reason="faster")
    assert [(m.case_id, m.before_ns, m.after_ns) for m in second] == [("net/a", 1_000_000, 900_000)]


def test_the_file_has_one_metric_a_line_and_opens_with_its_schema(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a", "net/b"])
    lines = (tmp_path / FILE).read_text().splitlines()
    assert lines[1].strip() == '"schema": "perfgate-trt/baseline/v1",'
    for metric in ("latency_ns", "p99_ns", "throughput_qps"):
        assert sum(line.strip().startswith(f'"{metric}": [') for line in lines) == 2
    assert all(line.count('"') <= 4 for line in lines)
    assert (tmp_path / FILE).read_text().endswith("}\n")


def test_promoting_the_same_run_twice_changes_no_byte_and_moves_nothing(tmp_path: Path) -> None:
    result = seed(tmp_path)
    before = snapshot(tmp_path)
    assert promote(result, tmp_path, reason="first") == []
    assert snapshot(tmp_path) == before


def test_siblings_that_the_run_did_not_measure_stay_as_they_are(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a", "net/b", "other/a"])
    before = read_baseline(tmp_path / FILE)
    other = (tmp_path / "nvidia-h200/tensorrt-10.13/other.json").read_bytes()
    promote(run({"net/a": FASTER}, tmp_path), tmp_path, reason="faster")
    after = read_baseline(tmp_path / FILE)
    assert after.cases["net/b"] == before.cases["net/b"]
    assert after.cases["net/a"].reason == "faster"
    assert (tmp_path / "nvidia-h200/tensorrt-10.13/other.json").read_bytes() == other


@pytest.mark.parametrize("outcome", [Unchanged(), NotRun(reason="not here")])
def test_a_case_that_was_not_measured_keeps_its_numbers(tmp_path: Path, outcome: Outcome) -> None:
    seed(tmp_path, ["net/a"])
    result = run({"net/a": Unchanged(), "net/b": STEADY}, tmp_path)
    before = read_baseline(tmp_path / FILE).cases["net/a"]
    promote(result, tmp_path, reason="more")
    assert read_baseline(tmp_path / FILE).cases["net/a"] == before


@pytest.mark.parametrize(
    "outcome",
    [Failed(stage="build", reason="broke"), measured(1000), GONE, SLOWER],
    ids=lambda o: str(o)[:25],
)
def test_a_run_with_an_error_an_invalid_a_missing_or_a_slower_case_is_refused_whole(
    tmp_path: Path, outcome: Outcome
) -> None:
    seed(tmp_path, ["net/a", "net/b"])
    before = snapshot(tmp_path)
    with pytest.raises(RefusedError, match="net/b is"):
        promote(run({"net/a": FASTER, "net/b": outcome}, tmp_path), tmp_path, reason="try")
    assert snapshot(tmp_path) == before


def test_an_unjudged_run_is_refused(tmp_path: Path) -> None:
    result = run({"net/a": STEADY}, tmp_path)
    unjudged = tuple(msgspec.structs.replace(one, judgement=None) for one in result.cases)
    with pytest.raises(RefusedError, match="ERROR"):
        promote(msgspec.structs.replace(result, cases=unjudged), tmp_path, reason="try")


@pytest.mark.parametrize("outcome", [Failed(stage="build", reason="broke"), measured(1000)])
def test_no_accept_makes_an_error_or_an_invalid_case_a_baseline(tmp_path: Path, outcome: Outcome) -> None:
    result = run({"net/a": outcome}, tmp_path)
    with pytest.raises(RefusedError):
        promote(result, tmp_path, reason="try", accept=["net/a"])


def test_new_numbers_of_a_busy_machine_are_refused(tmp_path: Path) -> None:
    disturbed = measured(*[1000] * 5, invalid="a neighbour")
    with pytest.raises(RefusedError, match="0 of 5 valid launches"):
        promote(run({"net/a": disturbed}, tmp_path), tmp_path, reason="try")
    assert not list(tmp_path.rglob("*.json"))


def test_an_accepted_regression_becomes_the_baseline(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    moves = promote(run({"net/a": SLOWER}, tmp_path), tmp_path, reason="worth it", accept=["net/a"])
    assert [move.after_ns for move in moves] == [1_100_000]


def test_an_accepted_missing_case_is_removed_and_its_environment_with_it(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    warm = msgspec.structs.replace(ENVIRONMENT, noted={"python": "3.12"})
    promote(
        msgspec.structs.replace(run({"net/b": STEADY}, tmp_path), environment=warm), tmp_path, reason="more"
    )
    assert len(read_baseline(tmp_path / FILE).environments) == 2
    moves = promote(run({"net/a": GONE}, tmp_path), tmp_path, reason="removed", accept=["net/a"])
    assert [(move.case_id, move.after_ns) for move in moves] == [("net/a", None)]
    after = read_baseline(tmp_path / FILE)
    assert list(after.cases) == ["net/b"]
    assert list(after.environments.values()) == [warm]


def test_a_dirty_tree_is_refused_unless_allowed(tmp_path: Path) -> None:
    result = msgspec.structs.replace(run({"net/a": STEADY}, tmp_path), commit=Commit(dirty=True))
    with pytest.raises(RefusedError, match="uncommitted"):
        promote(result, tmp_path, reason="try")
    assert promote(result, tmp_path, reason="try", allow_dirty=True)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_promotion_needs_a_reason(tmp_path: Path, reason: str) -> None:
    with pytest.raises(RefusedError, match="reason"):
        promote(run({"net/a": STEADY}, tmp_path), tmp_path, reason=reason)


def test_accepting_a_case_that_the_run_does_not_hold_is_refused_with_those_that_it_does(
    tmp_path: Path,
) -> None:
    with pytest.raises(RefusedError, match="net/typo") as caught:
        promote(run({"net/a": STEADY}, tmp_path), tmp_path, reason="x", accept=["net/typo"])
    assert "net/a" in str(caught.value)


def test_a_run_that_measured_nothing_is_refused(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    with pytest.raises(RefusedError, match="no measured case"):
        promote(run({"net/a": Unchanged()}, tmp_path), tmp_path, reason="x")


def test_a_damaged_baseline_of_one_model_leaves_the_others_unwritten(tmp_path: Path) -> None:
    result = run({"net/a": STEADY, "zoo/a": STEADY}, tmp_path)
    damaged = tmp_path / "nvidia-h200/tensorrt-10.13/zoo.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    with pytest.raises(DataError, match=r"zoo\.json"):
        promote(result, tmp_path, reason="first")
    assert list(snapshot(tmp_path)) == ["nvidia-h200/tensorrt-10.13/zoo.json"]


@pytest.mark.parametrize("device", ["../../outside", "/tmp/outside", "..", ".hidden"])
def test_a_results_file_cannot_make_promotion_write_outside_the_folder(tmp_path: Path, device: str) -> None:
    root = tmp_path / "a" / "baselines"
    hostile = msgspec.structs.replace(ENVIRONMENT, device=device)
    result = msgspec.structs.replace(run({"net/a": STEADY}, root), environment=hostile)
    with pytest.raises(DataError, match="cannot name"):
        promote(result, root, reason="x")
    assert snapshot(tmp_path) == {}


def test_nor_can_the_name_of_a_model(tmp_path: Path) -> None:
    result = run({"net/a": STEADY}, tmp_path)
    hostile = msgspec.structs.replace(result.cases[0].case, model="../../evil")
    cases = (msgspec.structs.replace(result.cases[0], case=hostile),)
    with pytest.raises(DataError, match="cannot name"):
        promote(msgspec.structs.replace(result, cases=cases), tmp_path, reason="x")


def test_numbers_that_could_not_be_read_back_are_not_written(tmp_path: Path) -> None:
    result = run({"net/a": STEADY}, tmp_path)
    with pytest.raises(RefusedError):
        promote(result, tmp_path, reason="x" * 30_000)
    no_digest = (msgspec.structs.replace(result.cases[0], case_digest=""),)
    with pytest.raises(RefusedError):
        promote(msgspec.structs.replace(result, cases=no_digest), tmp_path, reason="x")
    lying = msgspec.structs.replace(
        result.cases[0],
        outcome=measured(1000, 1000, invalid="slow"),
        judgement=Judgement(verdict=Verdict.PASS, reason="trust me"),
    )
    with pytest.raises(RefusedError):
        promote(msgspec.structs.replace(result, cases=(lying,)), tmp_path, reason="x")
    assert snapshot(tmp_path) == {}


def test_the_stored_numbers_are_those_of_the_valid_launches(tmp_path: Path) -> None:
    mixed = Measured(
        engine=None, launches=(*STEADY.launches, *measured(9_000_000, invalid="slowed down").launches)
    )
    promote(run({"net/a": mixed}, tmp_path), tmp_path, reason="x")
    columns = json.loads((tmp_path / FILE).read_text())["cases"]["net/a"]["metrics"]
    assert max(columns["latency_ns"]) < 2_000_000


def with_timing(outcome: Measured, data: bytes) -> Measured:
    assert outcome.engine is not None
    engine = msgspec.structs.replace(outcome.engine, timing_cache_digest=hashlib.sha256(data).hexdigest())
    return msgspec.structs.replace(outcome, engine=engine)


def test_the_timing_cache_of_the_engine_goes_beside_its_baseline(tmp_path: Path) -> None:
    root, caches = tmp_path / "baselines", tmp_path / "caches"
    caches.mkdir()
    (caches / f"{hashlib.sha256(b'tactics').hexdigest()}.timing").write_bytes(b"tactics")
    promote(run({"net/a": with_timing(STEADY, b"tactics")}, root), root, reason="x", timing=caches)
    assert (root / "nvidia-h200/tensorrt-10.13/net.fp16.timing").read_bytes() == b"tactics"


@pytest.mark.parametrize("found", [None, b"another"])
def test_a_timing_cache_that_is_missing_or_another_promotes_nothing(
    tmp_path: Path, found: bytes | None
) -> None:
    root, caches = tmp_path / "baselines", tmp_path / "caches"
    caches.mkdir()
    if found is not None:
        (caches / f"{hashlib.sha256(b'tactics').hexdigest()}.timing").write_bytes(found)
    result = run({"net/a": STEADY, "zoo/a": with_timing(STEADY, b"tactics")}, root)
    with pytest.raises(DataError):
        promote(result, root, reason="x", timing=caches)
    assert snapshot(root) == {}
