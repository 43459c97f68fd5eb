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
from perfgate.gate.baselines import days_of, load_baselines, read_baseline, runs_of
from perfgate.gate.policy.promote import PromotionTerms, promote as promote_runs
from perfgate.gate.statistics.noise import spread_of
from perfgate.gate.verdict.judge import judge
from perfgate.records import (
    Accuracy,
    Commit,
    Confirmation,
    Failed,
    Judgement,
    Measured,
    NotRun,
    Outcome,
    RunResult,
    Unchanged,
    Verdict,
)

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


def with_digest(outcome: Measured, engine_digest: str) -> Measured:
    assert outcome.engine is not None
    return msgspec.structs.replace(
        outcome, engine=msgspec.structs.replace(outcome.engine, digest=engine_digest)
    )


def built_with(result: RunResult, data: bytes) -> RunResult:
    """Every case built with this timing cache."""
    name, cases = hashlib.sha256(data).hexdigest(), []
    for one in result.cases:
        assert one.recipe is not None
        recipe = msgspec.structs.replace(one.recipe, timing_cache_digest=name)
        cases.append(msgspec.structs.replace(one, recipe=recipe))
    return msgspec.structs.replace(result, cases=tuple(cases))


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize(
    ("engine", "loaded", "kept"),
    [("12" * 32, b"tactics", True), ("cd" * 32, b"tactics", False), ("12" * 32, b"older", False)],
)
def test_one_timing_cache_serves_a_precision_and_stays_where_it_told_the_same_engine(
    tmp_path: Path, engine: str, loaded: bytes, kept: bool, add: bool
) -> None:
    root, caches, texts = tmp_path / "baselines", tmp_path / "caches", (b"tactics", b"cistact")
    caches.mkdir()
    for text in texts:
        (caches / f"{hashlib.sha256(text).hexdigest()}.timing").write_bytes(text)
    before = with_timing(with_digest(STEADY, "12" * 32), texts[0])
    after = with_timing(with_digest(STEADY, engine), texts[1])
    promote(run({f"net/fp16/{size}": before for size in ("b1", "b8")}, root), root, reason="x", timing=caches)
    # One of the stored cases, and one that is new beside them: all are served by one engine.
    more = dated(
        run({f"net/fp16/{size}": after for size in ("b1", "b32")}, root), "run-2", "2026-02-01T00:00:00Z"
    )
    more = built_with(more, loaded)
    promote_runs([more], root, PromotionTerms(reason="another machine", add=add), timing=caches)
    told = texts[0] if kept else texts[1]
    stored = read_baseline(root / FILE).cases
    assert (root / "nvidia-h200/tensorrt-10.13/net.fp16.timing").read_bytes() == told
    assert {one.timing_cache for one in stored.values()} == {hashlib.sha256(told).hexdigest()}
    assert [len(runs_of(stored[f"net/fp16/{size}"])) for size in ("b1", "b8", "b32")] == [1 + add, 1, 1]


def test_a_case_of_another_environment_names_no_timing_cache_of_this_one(tmp_path: Path) -> None:
    root, caches = tmp_path / "baselines", tmp_path / "caches"
    caches.mkdir()
    for text in (b"tactics", b"cistact"):
        (caches / f"{hashlib.sha256(text).hexdigest()}.timing").write_bytes(text)
    old, new = (
        run({f"net/fp16/{size}": with_timing(STEADY, text)}, root)
        for size, text in (("b1", b"tactics"), ("b8", b"cistact"))
    )
    promote(old, root, reason="x", timing=caches)
    elsewhere = msgspec.structs.replace(ENVIRONMENT, key={**ENVIRONMENT.key, "driver": "999"})
    promote(msgspec.structs.replace(new, environment=elsewhere), root, reason="x", timing=caches)
    stored = read_baseline(root / FILE).cases
    assert stored["net/fp16/b1"].timing_cache == ""
    assert stored["net/fp16/b8"].timing_cache == hashlib.sha256(b"cistact").hexdigest()


def test_a_stored_timing_cache_that_is_gone_is_written_anew(tmp_path: Path) -> None:
    root, caches = tmp_path / "baselines", tmp_path / "caches"
    caches.mkdir()
    (caches / f"{hashlib.sha256(b'tactics').hexdigest()}.timing").write_bytes(b"tactics")
    result = run({"net/fp16": with_timing(STEADY, b"tactics")}, root)
    promote(result, root, reason="x", timing=caches)
    assert read_baseline(root / FILE).cases["net/fp16"].timing_cache
    path = root / "nvidia-h200/tensorrt-10.13/net.fp16.timing"
    path.unlink()
    promote(result, root, reason="x", timing=caches)
    assert path.read_bytes() == b"tactics"


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


def dated(result: RunResult, run_id: str, created: str) -> RunResult:
    return msgspec.structs.replace(result, run_id=run_id, created=created)


def test_runs_of_several_days_are_kept_apart_and_widen_the_spread(tmp_path: Path) -> None:
    apart = measured(1_030_000, 1_031_000, 1_029_000, 1_030_500, 1_029_500)
    again = measured(1_010_000, 1_011_000, 1_009_000, 1_010_500, 1_009_500)
    runs = [
        dated(run({"net/a": outcome}, tmp_path), f"run-{day}", f"2026-01-0{day}T00:00:00Z")
        for day, outcome in enumerate((STEADY, apart, again), start=1)
    ]
    promote_runs(runs, tmp_path, PromotionTerms(reason="three days"), timing=tmp_path)
    stored = load_baselines(tmp_path, ENVIRONMENT).cases["net/a"].case
    assert [len(one) for one in runs_of(stored)] == [5, 5, 5]
    assert runs_of(stored)[1][0] == 1_030_000
    assert days_of(stored) == 3
    spread = spread_of("gpu", runs_of(stored), days_of(stored))
    assert 0.01 < spread.run_cv < 0.02, "from the runs themselves"
    # One run a line group, and the metrics one a line: it can be read in review.
    assert (tmp_path / FILE).read_text().count('"run_id": "run-') == 3


def test_a_further_run_is_added_to_those_that_are_stored(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    more = dated(run({"net/a": STEADY}, tmp_path), "run-2", "2026-02-01T00:00:00Z")
    promote_runs([more], tmp_path, PromotionTerms(reason="another day", add=True), timing=tmp_path)
    stored = read_baseline(tmp_path / FILE).cases["net/a"]
    assert [(one.run_id, one.launches) for one in stored.runs] == [("first", 5), ("run-2", 5)]
    assert stored.promoted == "2026-02-01T00:00:00Z"
    with pytest.raises(RefusedError, match="is in it already"):
        promote_runs([more], tmp_path, PromotionTerms(reason="twice", add=True), timing=tmp_path)
    # Without --add they are replaced.
    promote_runs([more], tmp_path, PromotionTerms(reason="anew"), timing=tmp_path)
    assert read_baseline(tmp_path / FILE).cases["net/a"].runs == ()


def test_how_long_a_build_took_outlives_a_run_whose_engine_came_from_the_cache(tmp_path: Path) -> None:
    built = with_timing(STEADY, b"tactics")
    assert built.engine is not None
    facts = msgspec.structs.replace(built.engine, build_ns=20_000_000_000, timing_cache_digest="")
    first, second = (
        msgspec.structs.replace(built, engine=msgspec.structs.replace(facts, cached=cached))
        for cached in (False, True)
    )
    runs = [
        run({"net/a": first}, tmp_path),
        dated(run({"net/a": second}, tmp_path), "run-2", "2026-02-01T00:00:00Z"),
    ]
    promote_runs(runs, tmp_path, PromotionTerms(reason="two"), timing=tmp_path)
    metrics = read_baseline(tmp_path / FILE).cases["net/a"].metrics
    assert metrics["build_ns"] == (20_000_000_000,) * 10


def test_runs_of_another_model_or_machine_are_not_merged(tmp_path: Path) -> None:
    first = run({"net/a": STEADY}, tmp_path)
    other = dated(first, "run-2", "2026-02-01T00:00:00Z")
    changed = msgspec.structs.replace(first.cases[0], case_digest="cd" * 32)
    with pytest.raises(RefusedError, match="another model"):
        promote_runs(
            [first, msgspec.structs.replace(other, cases=(changed,))],
            tmp_path,
            PromotionTerms(reason="x"),
            timing=tmp_path,
        )
    driver = msgspec.structs.replace(ENVIRONMENT, key={**ENVIRONMENT.key, "driver": "590"})
    with pytest.raises(RefusedError, match="another driver"):
        promote_runs(
            [first, msgspec.structs.replace(other, environment=driver)],
            tmp_path,
            PromotionTerms(reason="x"),
            timing=tmp_path,
        )
    assert snapshot(tmp_path) == {}


def test_a_case_that_only_a_later_run_has_is_not_lost_unseen(tmp_path: Path) -> None:
    first = run({"net/a": STEADY}, tmp_path)
    other = dated(run({"net/a": STEADY, "net/b": STEADY}, tmp_path), "run-2", "2026-02-01T00:00:00Z")
    with pytest.raises(RefusedError, match="net/b") as refused:
        promote_runs([first, other], tmp_path, PromotionTerms(reason="two"), timing=tmp_path)
    assert "first" in str(refused.value.fix)
    left_out = run({"net/a": STEADY, "net/b": NotRun(reason="not here")}, tmp_path)
    with pytest.raises(RefusedError, match="net/b"):
        promote_runs([left_out, other], tmp_path, PromotionTerms(reason="two"), timing=tmp_path)
    assert snapshot(tmp_path) == {}
    promote_runs([other, first], tmp_path, PromotionTerms(reason="two"), timing=tmp_path)
    stored = read_baseline(tmp_path / FILE).cases
    assert [len(runs_of(stored[name])) for name in ("net/a", "net/b")] == [2, 1]


def test_a_file_whose_runs_do_not_add_up_is_refused(tmp_path: Path) -> None:
    seed(tmp_path, ["net/a"])
    table = json.loads((tmp_path / FILE).read_text())
    table["cases"]["net/a"]["runs"] = [{"run_id": "r", "created": "2026-01-01", "launches": 4}]
    (tmp_path / FILE).write_text(json.dumps(table))
    with pytest.raises(DataError, match="do not add up to 5 launches"):
        read_baseline(tmp_path / FILE)


def with_judgement(result: RunResult, **more: object) -> RunResult:
    before = result.cases[0].judgement
    assert before is not None
    judgement = msgspec.structs.replace(before, **more)
    return msgspec.structs.replace(
        result, cases=(msgspec.structs.replace(result.cases[0], judgement=judgement),)
    )


@pytest.mark.parametrize(
    "judged",
    [
        {"verdict": Verdict.WAIVED},
        {"verdict": Verdict.INCOMPARABLE},
        {"verdict": Verdict.PASS, "code": "already-on-base"},
    ],
    ids=["waived", "another toolchain", "already on base"],
)
def test_no_loss_becomes_the_baseline_unless_it_is_named(tmp_path: Path, judged: dict[str, object]) -> None:
    result = with_judgement(run({"net/a": STEADY}, tmp_path), **judged)
    with pytest.raises(RefusedError, match="net/a is") as caught:
        promote(result, tmp_path, reason="x")
    assert "--accept net/a" in str(caught.value)
    assert promote(result, tmp_path, reason="x", accept=["net/a"])


def test_wrong_answers_are_promoted_by_no_reason(tmp_path: Path) -> None:
    result = run({"net/a": STEADY}, tmp_path)
    wrong = Accuracy(reference="ONNX Runtime, CPU, FP32", failures=("logits: cosine 0.2 is below 0.99",))
    cases = (msgspec.structs.replace(result.cases[0], accuracy=wrong),)
    with pytest.raises(RefusedError, match="answers wrongly"):
        promote(msgspec.structs.replace(result, cases=cases), tmp_path, reason="x", accept=["net/a"])


def test_a_decided_confirmation_needs_no_more_launches_than_it_took(tmp_path: Path) -> None:
    result = run({"net/a": measured(1_000_000, 1_001_000)}, tmp_path)
    decided = Confirmation(base_launches=2, head_launches=2, decided=True)
    undecided = msgspec.structs.replace(decided, decided=False)
    pass_ = {"verdict": Verdict.PASS, "reason": "as fast"}
    with pytest.raises(RefusedError, match="only 2 of 5"):
        promote(with_judgement(result, **pass_, confirmation=undecided), tmp_path, reason="x")
    assert promote(with_judgement(result, **pass_, confirmation=decided), tmp_path, reason="x")
