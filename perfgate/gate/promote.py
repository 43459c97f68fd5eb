"""Promotion: measured launches become the baseline, with a reason, and never by accident."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perfgate.errors import DataError, RefusedError
from perfgate.files import TIMING_LIMIT_BYTES, read_bytes, write_bytes
from perfgate.gate.baselines import baseline_path, read_baseline, timing_path, write_baseline
from perfgate.gate.metrics import columns, metrics_fault
from perfgate.records import (
    BASELINE_SCHEMA,
    Baseline,
    BaselineCase,
    CaseResult,
    Environment,
    Measured,
    Record,
    RunResult,
    Verdict,
    digest,
)

_REFUSED = {Verdict.ERROR, Verdict.INVALID}
_TO_ACCEPT = {Verdict.REGRESSION, Verdict.MISSING, Verdict.INCONCLUSIVE}


class Move(Record):
    """What promotion did to one case; a median of None is a case that was not there, or no longer is."""

    case_id: str
    before_ns: float | None
    after_ns: float | None


def promote(
    result: RunResult,
    root: Path,
    *,
    reason: str,
    timing: Path,
    accept: Sequence[str] = (),
    allow_dirty: bool = False,
) -> list[Move]:
    """Write the measured cases of a run as baselines under `root`; other cases stay as they are.

    `timing` is the folder where the run left the timing caches of its engines, named by digest; each goes
    beside the baseline of its engine.

    Raises `RefusedError` for a dirty tree, for a run with ERROR or INVALID cases, and for a regression, an
    undecided or a missing case that `accept` does not name. Nothing is written then.
    """
    _refuse(result, reason, accept, allow_dirty)
    by_model: dict[str, list[CaseResult]] = {}
    for case in result.cases:
        removed = case.judgement and case.judgement.verdict is Verdict.MISSING
        if isinstance(case.outcome, Measured) or removed:
            by_model.setdefault(case.case.model, []).append(case)
    if not by_model:
        raise RefusedError(
            "holds no measured case", where="promote", fix="perfgate run --remeasure, then promote"
        )
    moves: list[Move] = []
    files: dict[Path, Baseline] = {}
    caches: dict[Path, bytes] = {}
    for model, cases in sorted(by_model.items()):
        path = baseline_path(root, result.environment, model)
        before = (
            read_baseline(path)
            if path.is_file()
            else Baseline(schema=BASELINE_SCHEMA, model=model, environments={}, cases={})
        )
        after = _merge(before, cases, result, reason)
        moves += _moves(before, after)
        files[path] = after
        caches |= _timing_caches(path, cases, timing)
    # All are read before any is written: a damaged one leaves the others alone.
    for path, data in caches.items():
        write_bytes(path, data)
    for path, after in files.items():
        write_baseline(path, after)
    return moves


def _refuse(result: RunResult, reason: str, accept: Sequence[str], allow_dirty: bool) -> None:
    if not reason.strip():
        raise RefusedError("needs a reason", where="promote", fix='--reason "why these numbers are right"')
    if result.commit.dirty and not allow_dirty:
        raise RefusedError(
            "was measured on a tree with uncommitted changes",
            where=result.run_id,
            fix="commit and run again, or --allow-dirty",
        )
    known = {case.case.id for case in result.cases}
    if unknown := sorted(set(accept) - known):
        raise RefusedError(
            f"has no case {unknown[0]}", where="--accept", fix=f"one of: {', '.join(sorted(known))}"
        )
    for case in result.cases:
        verdict = case.judgement.verdict if case.judgement else Verdict.ERROR
        if verdict in _REFUSED:
            raise RefusedError(
                f"{case.case.id} is {verdict.value}", where=result.run_id, fix="mend it, run again"
            )
        if isinstance(case.outcome, Measured):
            valid = sum(not launch.invalid for launch in case.outcome.launches)
            if valid < result.protocol.launches:
                raise RefusedError(
                    f"{case.case.id} has only {valid} of {result.protocol.launches} valid launches",
                    where=result.run_id,
                    fix="run again on a quiet machine; the launches say what disturbed them",
                )
        if verdict in _TO_ACCEPT and case.case.id not in accept:
            raise RefusedError(
                f"{case.case.id} is {verdict.value}",
                where=result.run_id,
                fix=f"if that is meant: --accept {case.case.id}",
            )


def _merge(before: Baseline, cases: list[CaseResult], result: RunResult, reason: str) -> Baseline:
    key = _environment_key(result.environment)
    merged = dict(before.cases)
    for case in cases:
        if not isinstance(case.outcome, Measured):
            merged.pop(case.case.id, None)
            continue
        engine = case.outcome.engine
        metrics = columns([one for one in case.outcome.launches if not one.invalid])
        if wrong := metrics_fault(metrics):
            raise RefusedError(f"{case.case.id} {wrong}", where=result.run_id, fix="measure it again")
        merged[case.case.id] = BaselineCase(
            case_digest=case.case_digest,
            usage_digest=case.usage_digest,
            mode=case.outcome.mode or case.case.mode,
            timing_cache=engine.timing_cache_digest if engine else "",
            onnx_digest=case.recipe.onnx_digest if case.recipe else "",
            source_digest=case.source_digest,
            engine_digest=engine.digest if engine else "",
            environment=key,
            metrics=metrics,
            promoted=result.created,
            commit=result.commit.sha,
            reason=reason,
            accuracy=case.accuracy,
        )
    return msgspec.structs.replace(
        before, cases=merged, environments={**before.environments, key: result.environment}
    )


def _timing_caches(baseline: Path, cases: list[CaseResult], folder: Path) -> dict[Path, bytes]:
    caches = {}
    for case in cases:
        engine = case.outcome.engine if isinstance(case.outcome, Measured) else None
        if engine is None or not engine.timing_cache_digest:
            continue
        source = folder / f"{engine.timing_cache_digest}.timing"
        data = read_bytes(source, limit_bytes=TIMING_LIMIT_BYTES)
        if hashlib.sha256(data).hexdigest() != engine.timing_cache_digest:
            raise DataError("is not the timing cache that the results name", where=source, fix="run again")
        caches[timing_path(baseline, case.case.model, case.case.precision)] = data
    return caches


def _environment_key(environment: Environment) -> str:
    return digest(environment)[:12]


def _moves(before: Baseline, after: Baseline) -> list[Move]:
    return [
        Move(
            case_id=case_id,
            before_ns=_median(before.cases.get(case_id)),
            after_ns=_median(after.cases.get(case_id)),
        )
        for case_id in sorted(before.cases.keys() | after.cases.keys())
        if before.cases.get(case_id) != after.cases.get(case_id)
    ]


def _median(case: BaselineCase | None) -> float | None:
    return statistics.median(case.metrics["latency_ns"]) if case else None
