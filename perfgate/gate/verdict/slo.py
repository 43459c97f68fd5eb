"""Absolute promises: the SLOs. They are judged even where nothing was measured anew."""

from __future__ import annotations

import statistics

import msgspec

from perfgate.gate.verdict.evidence import Evidence, ServiceLatency
from perfgate.records import Case, Judgement, MetricJudgement, Verdict
from perfgate.records.columns import P99_MIN_SAMPLES


def judge_slos(case: Case, judgement: Judgement, evidence: Evidence) -> Judgement:
    """A broken promise is a REGRESSION, whatever the baseline says; a verdict that is red or infrastructure's
    already keeps its own reason."""
    if judgement.verdict.exit_code:
        return judgement
    judgement = _engine_p99(case.slo.engine_p99_ms, judgement)
    return _service_p99(case, judgement, evidence.service)


def _engine_p99(limit_ms: float | None, judgement: Judgement) -> Judgement:
    """Closed loop: one query at a time, as the launches were taken."""
    seen = judgement.head or judgement.base
    if limit_ms is None or "p99_ns" not in seen:
        return judgement
    if min(seen["samples"], default=0) < P99_MIN_SAMPLES:
        return _noted(judgement, f"p99 not judged: a launch has fewer than {P99_MIN_SAMPLES} samples")
    p99_ms = statistics.median(seen["p99_ns"]) / 1e6
    if p99_ms <= limit_ms:
        return judgement
    broken = f"p99 is {p99_ms:.4g} ms, above the promise engine_p99_ms = {limit_ms:g}"
    return _broken(judgement, broken, "slo/engine_p99_ms")


def _service_p99(case: Case, judgement: Judgement, tail: ServiceLatency | None) -> Judgement:
    """Open loop, queueing included, at `service_qps`: a closed loop's tail says nothing of it."""
    limit_ms, qps = case.slo.service_p99_ms, case.slo.service_qps
    if limit_ms is None:
        return judgement
    if tail is None or tail.why or qps is None:
        why = tail.why if tail else "no launches to simulate"
        return _noted(judgement, f"service_p99_ms not judged: {why if qps else 'it names no load'}")
    verdict = Verdict.REGRESSION
    if tail.p99_ms is None:
        text = f"{qps:g} queries/s cannot be served: one lane serves {tail.capacity_qps:.4g}"
    else:
        verdict = Verdict.PASS if tail.p99_ms <= limit_ms else Verdict.REGRESSION
        seen = f"simulated p99 with queueing at {qps:g} queries/s is {tail.p99_ms:.4g} ms"
        text = f"{seen}, promised are service_p99_ms = {limit_ms:g}"
    found = MetricJudgement(metric="service_p99_ms", verdict=verdict, reason=text, head=tail.p99_ms)
    judgement = msgspec.structs.replace(judgement, metrics=(*judgement.metrics, found))
    if verdict is Verdict.PASS or judgement.verdict.exit_code:
        return judgement
    return _broken(judgement, text, "slo/service_p99_ms")


def _noted(judgement: Judgement, note: str) -> Judgement:
    return msgspec.structs.replace(judgement, reason=f"{judgement.reason}; {note}")


def _broken(judgement: Judgement, reason: str, code: str) -> Judgement:
    return msgspec.structs.replace(judgement, verdict=Verdict.REGRESSION, reason=reason, code=code)
