"""What is told, and that it is told once."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from publish_runs import HOSTILE, result, run

from perfgate.errors import DataError
from perfgate.publish.alerts import (
    MAX_LINES,
    STATE_SCHEMA,
    AlertState,
    Dated,
    Event,
    Kind,
    Limits,
    Memory,
    Sent,
    check_state,
    clean,
    events,
    forget,
    settle,
)
from perfgate.records import RunResult, Verdict

NOW = datetime(2026, 11, 22, 8, tzinfo=timezone.utc)
LIMITS = Limits()


def night(
    memory: Memory, it: RunResult | None, now: datetime = NOW, **more: tuple[Dated, ...]
) -> tuple[list[Event], Memory]:
    """What is told of a night, all of it delivered, and what is known after it."""
    due = events(it, memory, now, LIMITS, **more)
    after: Memory = memory if it is None else forget(it, memory, now, LIMITS, **more)
    for event in due:
        after = settle(after, event)
    return due, after


def kinds(due: list[Event]) -> list[Kind]:
    return [event.alert.kind for event in due]


def slow(ratio: float = 1.08, name: str = "a/fp16") -> RunResult:
    return run(result(name, Verdict.REGRESSION, ratio, reason="slower"), result("b/fp16"))


def test_a_regression_is_told_once_and_its_recovery_once() -> None:
    due, memory = night({}, slow())
    assert kinds(due) == [Kind.REGRESSION]
    assert due[0].alert.title == "perfgate: 1 case slower than allowed on nvidia-h200"
    assert due[0].alert.lines == ("a/fp16: +8.0% latency; slower",)
    due, memory = night(memory, slow())
    assert due == []
    due, memory = night(memory, run(result("a/fp16"), result("b/fp16")))
    assert kinds(due) == [Kind.RECOVERY]
    assert memory == {}
    due, memory = night(memory, slow())
    assert kinds(due) == [Kind.REGRESSION]


@pytest.mark.parametrize(("ratio", "told"), [(1.09, False), (1.065, False), (1.12, True), (1.04, True)])
def test_noise_between_nights_is_no_change(ratio: float, told: bool) -> None:
    _, memory = night({}, slow(1.08))
    due, _ = night(memory, slow(ratio))
    assert bool(due) is told


def test_noise_cannot_creep_past_the_ratio_that_was_told() -> None:
    _, memory = night({}, slow(1.08))
    told = 0
    for step in range(1, 6):
        due, memory = night(memory, slow(1.08 + 0.01 * step))
        told += len(due)
    assert told == 1


@pytest.mark.parametrize(
    "verdict", [Verdict.INVALID, Verdict.NOT_RUN, Verdict.WAIVED, Verdict.NEW, Verdict.ERROR, None]
)
def test_a_case_that_was_not_found_fast_stays_open(verdict: Verdict | None) -> None:
    _, memory = night({}, slow())
    due, memory = night(memory, run(result("a/fp16", verdict), result("b/fp16")))
    assert Kind.RECOVERY not in kinds(due)
    assert "a/fp16" in memory[Kind.REGRESSION].items


def test_a_run_of_other_cases_closes_nothing_and_repeats_nothing() -> None:
    _, memory = night({}, slow())
    due, memory = night(memory, run(result("b/fp16")))
    assert due == []
    due, memory = night(memory, slow(name="c/fp16"))
    assert due[0].alert.lines[-1] == "1 earlier regression not judged in this run"
    due, memory = night(memory, run(result("a/fp16"), result("c/fp16", Verdict.REGRESSION, 1.08)))
    assert kinds(due) == [Kind.RECOVERY]
    assert set(memory[Kind.REGRESSION].items) == {"c/fp16"}


def test_a_recovery_that_was_not_delivered_is_told_again() -> None:
    _, memory = night({}, slow())
    both = run(result("a/fp16"), result("b/fp16", Verdict.REGRESSION, 1.05))
    due = events(both, memory, NOW, LIMITS)
    assert kinds(due) == [Kind.REGRESSION, Kind.RECOVERY]
    after = settle(memory, due[0])
    assert kinds(events(both, after, NOW, LIMITS)) == [Kind.RECOVERY]
    assert settle(after, due[1])[Kind.REGRESSION].items.keys() == {"b/fp16"}


def test_one_message_lists_the_worst_and_counts_the_rest() -> None:
    cases = [result(f"m/{n:02}", Verdict.REGRESSION, 1.03 + n / 100) for n in range(30)]
    due, _ = night({}, run(*cases))
    alert = due[0].alert
    assert len(due) == 1
    assert len(alert.lines) == MAX_LINES
    assert alert.rest == 10
    assert alert.lines[0].startswith("m/29: +32.0%")


def test_an_empty_run_and_cases_without_a_verdict_are_told() -> None:
    assert kinds(night({}, run())[0]) == [Kind.FAILURE]
    due, memory = night({}, run(result("a", Verdict.INVALID), result("b", Verdict.ERROR), result("c")))
    assert kinds(due) == [Kind.FAILURE]
    assert due[0].alert.lines[0].startswith("b: ERROR")
    _, memory = night(memory, run(result("a"), result("b")))
    assert memory == {}


def test_a_missed_night_is_told_once_for_each_newest_run() -> None:
    it = run(result("a"))
    fresh, late = NOW, NOW + timedelta(hours=21)
    assert night({}, it, fresh)[0] == []
    due, memory = night({}, it, late)
    assert kinds(due) == [Kind.MISSED_NIGHT]
    assert "27 h old" in due[0].alert.lines[0]
    assert night(memory, it, late + timedelta(hours=3))[0] == []
    _, memory = night(memory, run(result("a"), created="2026-11-23T02:00:00Z"), late)
    assert memory == {}


@pytest.mark.parametrize(("created", "word"), [("2027-01-01T00:00:00Z", "future"), ("soon", "read")])
def test_a_time_that_would_silence_the_check_is_a_missed_night(created: str, word: str) -> None:
    due, _ = night({}, run(result("a"), created=created))
    assert kinds(due) == [Kind.MISSED_NIGHT]
    assert word in due[0].alert.lines[0]


def test_results_that_are_not_there_are_told_once_a_day() -> None:
    due, memory = night({}, None)
    assert kinds(due) == [Kind.MISSED_NIGHT]
    assert night(memory, None, NOW + timedelta(hours=2))[0] == []
    assert kinds(night(memory, None, NOW + timedelta(days=1))[0]) == [Kind.MISSED_NIGHT]


def test_stale_baselines_oldest_first() -> None:
    promoted = (
        Dated(case="new", day="2026-11-01T00:00:00Z"),
        Dated(case="old", day="2026-06-01T00:00:00Z"),
        Dated(case="older", day="2026-01-01T00:00:00Z"),
    )
    due, memory = night({}, run(result("a")), promoted=promoted)
    assert kinds(due) == [Kind.STALE_BASELINE]
    assert [line.split(":")[0] for line in due[0].alert.lines] == ["older", "old"]
    assert night(memory, run(result("a")), NOW + timedelta(minutes=5), promoted=promoted)[0] == []


def test_a_waiver_is_told_before_it_ends_and_when_it_has() -> None:
    waivers = (Dated(case="a", day="2026-11-25"), Dated(case="b", day="2027-11-25"))
    due, memory = night({}, run(result("a")), waivers=waivers)
    assert due[0].alert.lines == ("a: the waiver expires 2026-11-25",)
    later = run(result("a"), created="2026-11-26T02:00:00Z")
    due, memory = night(memory, later, NOW + timedelta(days=4), waivers=waivers)
    assert due[0].alert.lines == ("a: the waiver expired 2026-11-25",)
    assert night(memory, later, NOW + timedelta(days=4), waivers=waivers)[0] == []


def test_hostile_text_is_one_bounded_line() -> None:
    due, _ = night({}, run(result(HOSTILE, Verdict.REGRESSION, 1.1, reason="y\r\n\x1b[31m" * 5000)))
    (line,) = due[0].alert.lines
    assert len(line) < 500
    assert not set(line) & set("\n\r\x1b\u202e")
    assert clean("a\ud800b") == "a b"


def test_an_edited_state_is_refused() -> None:
    state = AlertState(
        schema=STATE_SCHEMA, told={"team gpu": {Kind.REGRESSION: Sent(items={"a": "1"}, digest="0" * 64)}}
    )
    with pytest.raises(DataError, match="delete the file"):
        check_state(state, "state.json")
