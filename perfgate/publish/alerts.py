"""What is worth telling, once: events from a run and from what each destination was told before.

Everything here is pure. An event holds *items* (a case, mostly) with the fact that matters about each. A
kind of event is told again only when an item is new or its fact is another; a case that stays slow every
night is told once. What was told is kept for each destination and device apart, so that a destination
that was down gets its message later and the others get no second one.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from perfgate.errors import DataError
from perfgate.records import CaseResult, Name, Record, RunResult, Sha256, Text, Verdict, digest
from perfgate.util.times import instant
from perfgate.util.wording import counted

ALERT_SCHEMA: Final = "perfgate-trt/alert/v1"
STATE_SCHEMA: Final = "perfgate-trt/alert-state/v1"
MAX_LINES: Final = 20
_MAX_TEXT = 240
# A clock may be a little ahead; a run from tomorrow would silence the dead-man's check for ever.
_CLOCK_SKEW = timedelta(hours=1)
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_UNJUDGED = (
    Verdict.ERROR,
    Verdict.MISSING,
    Verdict.INCONCLUSIVE,
    Verdict.INCOMPARABLE,
    Verdict.INVALID,
)
_FAST_AGAIN = (Verdict.PASS, Verdict.UNCHANGED, Verdict.IMPROVEMENT)


class Kind(str, enum.Enum):
    """What may have happened; one message each. `failure` is a case that got no verdict on its speed."""

    REGRESSION = "regression"
    RECOVERY = "recovery"
    FAILURE = "failure"
    MISSED_NIGHT = "missed-night"
    STALE_BASELINE = "stale-baseline"
    EXPIRING_WAIVER = "expiring-waiver"


class Dated(Record):
    """A case and its day (ISO 8601): the one till which it may be slow, or on which it was promoted."""

    case: Name
    day: Name


class Limits(Record):
    """When time alone is an event."""

    max_age_hours: float = 26.0
    max_baseline_days: float = 90.0
    waiver_days: float = 7.0


class Alert(Record, kw_only=True):
    """One message, as the generic webhook sends it. `lines` are worst first; `rest` counts those left out.

    `id` is the digest of what it says, so that a receiver can drop what it has seen.
    """

    schema: Literal["perfgate-trt/alert/v1"]
    id: Sha256
    kind: Kind
    severity: Literal["alarm", "warning", "good"]
    title: Text
    lines: tuple[Text, ...]
    rest: int = 0
    device: Text = ""
    run_id: Text = ""
    commit: Text = ""


class Event(Record):
    """An alert, and the facts by item that it is about: what the state keeps when it was told."""

    alert: Alert
    items: dict[Name, Text]


class Sent(Record):
    """What a destination was last told of one kind. `digest` is that of the items: an edited file shows."""

    items: dict[Name, Text]
    digest: Sha256


class AlertState(Record, kw_only=True):
    """What was told: `<destination> <device>` → kind → items."""

    schema: Literal["perfgate-trt/alert-state/v1"]
    told: dict[Name, dict[Kind, Sent]] = {}


Memory = Mapping[Kind, Sent]


def check_state(state: AlertState, where: str) -> AlertState:
    """The state itself. Raises `DataError` when a digest does not fit its items."""
    for scope, kinds in state.told.items():
        for kind, told in kinds.items():
            if told.digest != digest(told.items):
                raise DataError(
                    f"what {scope} was told of {kind.value} does not fit its digest",
                    where=where,
                    fix="delete the file: everything that is open is then told once more",
                )
    return state


def events(
    run: RunResult | None,
    memory: Memory,
    now: datetime,
    limits: Limits,
    *,
    promoted: Sequence[Dated] = (),
    waivers: Sequence[Dated] = (),
) -> list[Event]:
    """What has to be told now, given what was told before. `run` is None where there are no results."""
    if run is None:
        # A day's name is the fact: the results stay missing, and one reminder a day is wanted.
        found = [_missed("there are no results at all", f"none on {now:%Y-%m-%d}", None)]
        return [event for event in found if _is_news(event, memory)]
    candidates = [
        _regression(run, memory),
        _recovery(run, memory),
        *_lasting(run, now, limits, promoted, waivers).values(),
    ]
    return [event for event in candidates if event is not None and _is_news(event, memory)]


def settle(memory: Memory, event: Event) -> dict[Kind, Sent]:
    """What a destination knows after `event` was told.

    A regression is closed by its recovery alone; a run that did not judge the case leaves it open.
    """
    after = dict(memory)
    kind, items = event.alert.kind, event.items
    if kind is Kind.RECOVERY:
        left = {
            case: fact for case, fact in _sent_before(memory, Kind.REGRESSION).items() if case not in items
        }
        after[Kind.REGRESSION] = _remember(left)
    else:
        kept = _sent_before(memory, kind) if kind is Kind.REGRESSION else {}
        after[kind] = _remember({**kept, **items})
    return {kind: told for kind, told in after.items() if told.items}


def forget(
    run: RunResult,
    memory: Memory,
    now: datetime,
    limits: Limits,
    *,
    promoted: Sequence[Dated] = (),
    waivers: Sequence[Dated] = (),
) -> dict[Kind, Sent]:
    """The memory without what is over, so that it is told anew when it comes again."""
    kept = dict(memory)
    for kind, event in _lasting(run, now, limits, promoted, waivers).items():
        items = event.items if event else {}
        left = {key: fact for key, fact in _sent_before(memory, kind).items() if key in items}
        kept[kind] = _remember(left)
    return {kind: told for kind, told in kept.items() if told.items}


def _lasting(
    run: RunResult, now: datetime, limits: Limits, promoted: Sequence[Dated], waivers: Sequence[Dated]
) -> dict[Kind, Event | None]:
    """The events that are over as soon as a run no longer has them."""
    return {
        Kind.FAILURE: _failure(run),
        Kind.MISSED_NIGHT: _late(run, now, limits),
        Kind.STALE_BASELINE: _stale(run, promoted, now, limits),
        Kind.EXPIRING_WAIVER: _waivers(run, waivers, now, limits),
    }


def clean(text: str, limit: int = _MAX_TEXT) -> str:
    """One line of printable text: no control characters, none that turn or hide writing, not too long."""
    plain = "".join(" " if unicodedata.category(char) in _HIDDEN else char for char in text)
    plain = re.sub(r"\s+", " ", plain).strip()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def moment(text: str) -> datetime | None:
    """A time as records write it, or None when it is none. Without a zone it is UTC."""
    try:
        return instant(text)
    except ValueError:
        return None


def _sent_before(memory: Memory, kind: Kind) -> dict[str, str]:
    return memory[kind].items if kind in memory else {}


def _remember(items: dict[str, str]) -> Sent:
    return Sent(items=items, digest=digest(items))


def _is_news(event: Event, memory: Memory) -> bool:
    if event.alert.kind is Kind.RECOVERY:
        return True
    told = _sent_before(memory, event.alert.kind)
    return any(told.get(item) != fact for item, fact in event.items.items())


def _event(
    kind: Kind,
    severity: Literal["alarm", "warning", "good"],
    title: str,
    lines: Sequence[str],
    items: dict[str, str],
    run: RunResult | None,
) -> Event:
    where = "" if run is None else f" on {run.environment.device}"
    text = clean(f"perfgate: {title}{where}", 140)
    run_id = "" if run is None else run.run_id
    alert = Alert(
        schema=ALERT_SCHEMA,
        # With the run, or a second regression like the first would look like the same message.
        id=digest([kind.value, text, items, run_id]),
        kind=kind,
        severity=severity,
        title=text,
        lines=tuple(clean(line, 2 * _MAX_TEXT) for line in lines[:MAX_LINES]),
        rest=max(0, len(lines) - MAX_LINES),
        device="" if run is None else clean(run.environment.device),
        run_id=clean(run_id),
        commit="" if run is None else run.commit.sha,
    )
    return Event(alert=alert, items=items)


def _verdicts(run: RunResult, *verdicts: Verdict) -> list[CaseResult]:
    return [result for result in run.cases if result.judgement and result.judgement.verdict in verdicts]


def _ratio(result: CaseResult) -> float:
    assert result.judgement is not None
    return result.judgement.ratio.estimate if result.judgement.ratio else 0.0


def _regression(run: RunResult, memory: Memory) -> Event | None:
    slow = sorted(_verdicts(run, Verdict.REGRESSION), key=lambda result: (-_ratio(result), result.case.id))
    if not slow:
        return None
    told = _sent_before(memory, Kind.REGRESSION)
    lines, items = [], {}
    for result in slow:
        assert result.judgement is not None
        reason, ratio = clean(result.judgement.reason, 160), _ratio(result)
        change = f"{ratio - 1:+.1%} latency; " if ratio else ""
        lines.append(f"{clean(result.case.id)}: {change}{reason}")
        items[result.case.id] = _fact(told.get(result.case.id), ratio, result.case.tolerance.catch)
    opened = set(told) - {result.case.id for result in run.cases if result.judgement}
    if opened:
        lines.append(f"{counted(len(opened), 'earlier regression')} not judged in this run")
    return _event(
        Kind.REGRESSION, "alarm", f"{counted(len(slow), 'case')} slower than allowed", lines, items, run
    )


def _fact(before: str | None, ratio: float, catch: float) -> str:
    """The ratio that stands for a regression: the one told before, until the new one is *catch* away.

    Nights differ by noise; without this the same regression would be told every night.
    """
    try:
        told = float(before) if before else 0.0
    except ValueError:
        told = 0.0
    if before is not None and told and abs(ratio / told - 1) < catch:
        return before
    return f"{ratio:.4f}"


def _recovery(run: RunResult, memory: Memory) -> Event | None:
    opened = _sent_before(memory, Kind.REGRESSION)
    # WAIVED is slow all the same, and NEW was compared with nothing.
    items = {
        result.case.id: result.judgement.verdict.value
        for result in _verdicts(run, *_FAST_AGAIN)
        if result.case.id in opened and result.judgement
    }
    if not items:
        return None
    lines = [f"{clean(case)}: {verdict}" for case, verdict in items.items()]
    return _event(Kind.RECOVERY, "good", f"{counted(len(lines), 'case')} recovered", lines, items, run)


def _failure(run: RunResult) -> Event | None:
    found = sorted(
        _verdicts(run, *_UNJUDGED),
        key=lambda result: _UNJUDGED.index(result.judgement.verdict) if result.judgement else 0,
    )
    if not any(result.judgement and result.judgement.verdict is not Verdict.NOT_RUN for result in run.cases):
        # A run that judged nothing is the quietest way to lose a night.
        lines, items = ["no case was judged"], {"(run)": "empty"}
        return _event(Kind.FAILURE, "warning", "the run judged nothing", lines, items, run)
    if not found:
        return None
    judged = {result.case.id: result.judgement for result in found if result.judgement}
    items = {case: one.verdict.value for case, one in judged.items()}
    lines = [f"{clean(case)}: {one.verdict.value}; {clean(one.reason, 160)}" for case, one in judged.items()]
    return _event(
        Kind.FAILURE, "warning", f"{counted(len(lines), 'case')} without a verdict", lines, items, run
    )


def _missed(line: str, fact: str, run: RunResult | None) -> Event:
    return _event(Kind.MISSED_NIGHT, "alarm", "a night was missed", [line], {"(run)": fact}, run)


def _late(run: RunResult, now: datetime, limits: Limits) -> Event | None:
    created = moment(run.created)
    if created is None:
        return _missed(f"the newest run's time cannot be read: {clean(run.created, 40)}", run.run_id, run)
    if created - now > _CLOCK_SKEW:
        return _missed(f"the newest run is dated in the future: {created:%Y-%m-%d %H:%M %Z}", run.run_id, run)
    age = now - created
    if age <= timedelta(hours=limits.max_age_hours):
        return None
    hours = age.total_seconds() / 3600
    line = f"the newest run is {hours:.0f} h old ({created:%Y-%m-%d %H:%M %Z}); "
    return _missed(f"{line}at most {limits.max_age_hours:g} h are expected", run.run_id, run)


def _stale(run: RunResult, promoted: Sequence[Dated], now: datetime, limits: Limits) -> Event | None:
    old = [
        ((now - when).days if when else -1, one)
        for when, one in ((moment(one.day), one) for one in promoted)
        if when is None or now - when > timedelta(days=limits.max_baseline_days)
    ]
    old.sort(key=lambda pair: (pair[0] >= 0, -pair[0], pair[1].case))
    if not old:
        return None
    lines = [
        f"{clean(one.case)}: promoted {f'{days} days ago' if days >= 0 else 'at an unreadable time'}"
        for days, one in old
    ]
    items = {one.case: one.day for _, one in old}
    title = f"{counted(len(old), 'baseline')} older than {limits.max_baseline_days:g} days"
    return _event(Kind.STALE_BASELINE, "warning", title, lines, items, run)


def _waivers(run: RunResult, waivers: Sequence[Dated], now: datetime, limits: Limits) -> Event | None:
    # A day that nobody can read is as good as over.
    ends = [(moment(one.day) or now, one) for one in waivers]
    soon = [(when, one) for when, one in ends if when - now <= timedelta(days=limits.waiver_days)]
    if not soon:
        return None
    soon.sort(key=lambda entry: (entry[0], entry[1].case))
    lines = [
        f"{clean(one.case)}: the waiver {'expired' if when <= now else 'expires'} {clean(one.day, 40)}"
        for when, one in soon
    ]
    items = {one.case: f"{one.day} {'over' if when <= now else 'soon'}" for when, one in soon}
    title = f"{counted(len(soon), 'waiver')} {'expires' if len(soon) == 1 else 'expire'}"
    return _event(Kind.EXPIRING_WAIVER, "warning", title, lines, items, run)
