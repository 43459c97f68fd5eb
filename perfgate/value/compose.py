"""The business case put together: measured services, or numbers given by hand, under the same terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from perfgate.errors import UsageError
from perfgate.records import RunResult
from perfgate.value.assumptions import CaseTerms, GivenStack
from perfgate.value.business import (
    BUSINESS_SCHEMA,
    BusinessCase,
    Capacity,
    Figures,
    Fleet,
    Line,
    Outcome,
    Point,
    Promise,
    StageTime,
    Swing,
)
from perfgate.value.money import Machine, fleet, machine, peak_of_bill, swings
from perfgate.value.queueing import Batcher, Sustained, p99_by_rate, sustained
from perfgate.value.services import STAGES, Pair, Served, items_per_s, pairs, services
from perfgate.value.stacks import compare_stacks

PROMISES = 8  # services whose verdict is simulated beside the two of the case
_GB = 1e9
_SIDES: tuple[Literal["original", "tensorrt"], ...] = ("original", "tensorrt")
# In the order of the table; whether less is better, or more (False), or neither is (None).
_METRICS: tuple[tuple[str, bool | None], ...] = (
    ("latency_ms", True),
    ("p99_ms", True),
    ("queries_per_s", False),
    ("items_per_s", False),
    ("memory_gb", True),
    ("capacity_per_s", False),
    ("instance_month", True),
    ("instances", True),
    ("per_month", True),
    ("per_year", True),
    ("per_million", True),
    ("deploy_hours", True),
)


def given_case(terms: CaseTerms, made: str) -> BusinessCase:
    """The case of numbers that were given by hand."""
    given = terms.inputs.given
    assert given is not None
    title = terms.inputs.title or f"{given.original.label}, {given.tensorrt.label}"
    original, tensorrt = _given(given.original, terms), _given(given.tensorrt, terms)
    if original.deploy_hours is None:
        original = _deployed_before(original, terms)
    return _finish(title, given.device, terms, (original, tensorrt), made=made)


def measured_case(
    results: Sequence[RunResult], terms: CaseTerms, made: str, *, wanted: str = ""
) -> BusinessCase:
    """The case of results files, the original's first.

    Raises `UsageError` where no model can be set beside the original's.
    """
    found = pairs(results, wanted)
    if not found:
        raise UsageError(
            f"no model of theirs can be set beside the original's{f' as {wanted!r}' if wanted else ''}",
            where="results files",
            fix="measure the same models and inputs on one device, on a GPU with --mode …+transfers",
        )
    pair = found[0]
    limit_ms = terms.inputs.limit.p99_ms or pair.tensorrt.limit_ms or pair.original.limit_ms
    original = _deployed_before(_measured(pair.original, terms, limit_ms), terms)
    sides = (original, _measured(pair.tensorrt, terms, limit_ms))
    title = terms.inputs.title or pair.tensorrt.model
    case = _finish(
        title, pair.tensorrt.environment.key.get("gpu", pair.tensorrt.environment.device), terms,
        sides, made=made,
    )  # fmt: skip
    return msgspec.structs.replace(
        case,
        model=pair.tensorrt.model,
        stages=_stages(pair, terms),
        promises=_promises(results, pair, sides, terms),
        stacks=compare_stacks(results),
    )


def _deployed_before(original: Figures, terms: CaseTerms) -> Figures:
    """The original with the time that people needed before, where somebody said it."""
    before = terms.inputs.deploy.before
    if before is None:
        return original
    return msgspec.structs.replace(original, deploy_hours=before, deploy_given=True)


def _given(stack: GivenStack, terms: CaseTerms) -> Figures:
    limit_ms = terms.inputs.limit.p99_ms
    capacity = None
    if limit_ms is not None:
        per_s = stack.per_s if stack.p99_ms <= limit_ms else 0.0
        capacity = Capacity(
            limit_ms=limit_ms, per_s=per_s, low=per_s, high=per_s, offline_per_s=stack.per_s, source="given"
        )
    bought = machine(terms, stack.instance_month)
    return Figures(
        label=stack.label,
        precision=stack.precision,
        source="given",
        latency_ms=stack.latency_ms,
        p99_ms=stack.p99_ms,
        queries_per_s=stack.per_s,
        items_per_s=stack.per_s,
        memory_gb=stack.memory_gb,
        instance_month=bought.per_month if bought else None,
        gpus_per_instance=bought.gpus if bought else 1,
        capacity=capacity,
        deploy_hours=stack.deploy_hours,
        deploy_given=stack.deploy_hours is not None,
    )


def _measured(served: Served, terms: CaseTerms, limit_ms: float | None) -> Figures:
    best = served.best
    bought = machine(terms, None)
    deploy_s = served.deploy_s()
    memory = served.memory_bytes
    return Figures(
        label=served.stack,
        precision=served.precision,
        tf32=served.tf32,
        mode=str(served.mode),
        source="stored" if served.stored else "measured",
        latency_ms=served.average_s * 1e3,
        p99_ms=served.p99_s * 1e3,
        latency_batch=served.sizes[0],
        queries_per_s=items_per_s(best) / best.result.case.items,
        items_per_s=items_per_s(best),
        throughput_batch=best.result.case.items,
        memory_gb=None if memory is None else memory / _GB,
        instance_month=bought.per_month if bought else None,
        gpus_per_instance=bought.gpus if bought else 1,
        capacity=None if limit_ms is None else _capacity(served, terms, limit_ms),
        deploy_hours=None if deploy_s is None else deploy_s / 3600,
    )


def _batcher(terms: CaseTerms, limit_ms: float) -> Batcher:
    return Batcher(limit_s=limit_ms / 1e3, max_wait_s=terms.inputs.limit.max_wait_ms / 1e3)


def _capacity(served: Served, terms: CaseTerms, limit_ms: float) -> Capacity:
    service, batcher = served.service(), _batcher(terms, limit_ms)
    found: Sustained = sustained(service, batcher)
    curve = p99_by_rate(service, batcher, found.cap)
    return Capacity(
        limit_ms=limit_ms,
        per_s=found.per_s,
        low=found.low,
        high=found.high,
        offline_per_s=service.bound_per_s(),
        source="simulated",
        largest_batch=found.cap,
        measured_batches=served.sizes,
        seeds=found.seeds,
        curve=tuple(Point(per_s=rate, p99_ms=tail * 1e3) for rate, tail in curve),
    )


def _finish(
    title: str, device: str, terms: CaseTerms, sides: tuple[Figures, Figures], *, made: str
) -> BusinessCase:
    """Fleets, money, and the table's lines of two stacks' figures."""
    peak, from_bill = _peak(sides[0], terms)
    original, tensorrt = (
        msgspec.structs.replace(one, fleet=_fleet(one, peak, terms)) if peak is not None else one
        for one in sides
    )
    saving: float | None = None
    swung: tuple[Swing, ...] = ()
    if original.fleet and tensorrt.fleet and peak is not None:
        saving = original.fleet.per_month - tensorrt.fleet.per_month
        swung = swings(original, tensorrt, peak, terms.inputs.fleet)
    return BusinessCase(
        schema=BUSINESS_SCHEMA,
        made=made,
        title=title,
        device=device,
        terms=terms,
        peak_per_s=peak,
        peak_from_bill=from_bill,
        original=original,
        tensorrt=tensorrt,
        lines=table_lines(original, tensorrt),
        saving_month=saving,
        saving_year=None if saving is None else 12 * saving,
        payback_months=payback_months(terms, saving),
        swings=swung,
    )


def _bought(side: Figures) -> Machine | None:
    if side.instance_month is None:
        return None
    return Machine(gpus=side.gpus_per_instance, per_month=side.instance_month)


def _peak(original: Figures, terms: CaseTerms) -> tuple[float | None, bool]:
    """The peak load, and whether today's bill tells it."""
    plan, bought = terms.inputs.fleet, _bought(original)
    if terms.inputs.load.peak_per_s is not None or plan.monthly_bill is None:
        return terms.inputs.load.peak_per_s, False
    if original.capacity is None or bought is None:
        return None, False
    peak = peak_of_bill(plan.monthly_bill, bought, original.capacity, plan)
    return peak, peak is not None


def _fleet(side: Figures, peak_per_s: float, terms: CaseTerms) -> Fleet | None:
    bought = _bought(side)
    if side.capacity is None or bought is None:
        return None
    return fleet(side.capacity, bought, peak_per_s, terms.inputs.fleet, terms.inputs.load)


def payback_months(terms: CaseTerms, saving_month: float | None) -> float | None:
    """Engineer-days times the day's rate, over the monthly saving; None where nothing is saved or given."""
    effort = terms.inputs.effort
    if effort.engineer_days is None or effort.day_rate is None or saving_month is None or saving_month <= 0:
        return None
    return effort.engineer_days * effort.day_rate / saving_month


def table_lines(original: Figures, tensorrt: Figures) -> tuple[Line, ...]:
    """The manager's table: a line a metric, with the ratio and whether it is better."""
    lines = []
    for metric, less_is_better in _METRICS:
        one, other = _value(original, metric), _value(tensorrt, metric)
        ratio = other / one if one is not None and other is not None and one > 0 and other > 0 else None
        lines.append(
            Line(
                metric=metric,
                original=one,
                tensorrt=other,
                ratio=ratio,
                outcome=_outcome(ratio, less_is_better),
            )
        )
    return tuple(lines)


def _value(figures: Figures, metric: str) -> float | None:
    if metric == "capacity_per_s":
        return figures.capacity.per_s if figures.capacity else None
    if metric in ("instances", "per_month", "per_year", "per_million"):
        found: float | None = getattr(figures.fleet, metric) if figures.fleet else None
        return found
    value: float | None = getattr(figures, metric)
    return value


def _outcome(ratio: float | None, less_is_better: bool | None) -> Outcome:
    if ratio is None or less_is_better is None:
        return ""
    if abs(ratio - 1) < 0.0005:
        return "same"
    return "better" if (ratio < 1) is less_is_better else "worse"


def _stages(pair: Pair, terms: CaseTerms) -> tuple[StageTime, ...]:
    timed = [one.stages() for one in (pair.original, pair.tensorrt)]
    names = [name for name in STAGES if name in timed[0] or name in timed[1]]
    seen = [
        StageTime(
            name=name,
            original_s=timed[0].get(name),
            tensorrt_s=timed[1].get(name),
            unknown=tuple(_SIDES[at] for at, one in enumerate(timed) if one.get(name, 0) is None),
        )
        for name in names
    ]
    said = terms.inputs.deploy.stages_s.items()
    return (*seen, *(StageTime(name=name, tensorrt_s=seconds, given=True) for name, seconds in said))


def _promises(
    results: Sequence[RunResult], pair: Pair, sides: tuple[Figures, Figures], terms: CaseTerms
) -> tuple[Promise, ...]:
    """The verdict of every service that has a limit; those of the case are simulated already."""
    known = {
        one.identity: (one, side.capacity)
        for one, side in zip((pair.original, pair.tensorrt), sides, strict=True)
    }
    found: list[Promise] = []
    simulated = 0
    for one in (one for stack in services(results) for one in stack):
        # The case's two are those that were simulated, at the batch sizes that they have in common.
        served, capacity = known.get(one.identity, (one, None))
        limit_ms = served.limit_ms or terms.inputs.limit.p99_ms
        if limit_ms is None:
            continue
        if capacity is not None and capacity.limit_ms == limit_ms:
            rate = Sustained(capacity.per_s, capacity.low, capacity.high, 1, capacity.seeds)
        elif simulated < PROMISES:
            simulated += 1
            rate = sustained(served.service(), _batcher(terms, limit_ms))
        else:
            break
        found.append(
            Promise(
                stack=served.stack,
                model=served.model,
                precision=served.precision,
                limit_ms=limit_ms,
                per_s=rate.per_s,
                low=rate.low,
                high=rate.high,
                asked_per_s=served.requested_per_s,
            )
        )
    return tuple(found)
