"""Promotion: measured launches become the baseline, with a reason, and never by accident."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from perfgate.errors import DataError, RefusedError
from perfgate.gate.baselines import baseline_path, columns_by_run, read_baseline, timing_path, write_baseline
from perfgate.gate.promotable import ALREADY_ON_BASE, REFUSED, needs_accept
from perfgate.gate.verdict.evidence import launches_wanted
from perfgate.measure.environment import differences
from perfgate.records import (
    BASELINE_SCHEMA,
    Baseline,
    BaselineCase,
    BaselineRun,
    CaseResult,
    Environment,
    Measured,
    MetricColumns,
    Record,
    RunResult,
    Verdict,
    columns,
    digest,
    metrics_fault,
)
from perfgate.util.files import TIMING_LIMIT_BYTES, read_bytes, write_bytes

_ACROSS = "perfgate run --paired REV, and promote its results"


class Move(Record):
    """What promotion did to one case; a median of None is a case that was not there, or no longer is."""

    case_id: str
    before_ns: float | None
    after_ns: float | None


class PromotionTerms(Record):
    """On what terms: why, which losses are meant, and whether to `add` to the stored runs of the same case
    in place of replacing them."""

    reason: str
    accept: tuple[str, ...] = ()
    allow_dirty: bool = False
    add: bool = False


def promote(results: Sequence[RunResult], root: Path, terms: PromotionTerms, *, timing: Path) -> list[Move]:
    """Write the measured cases of a run as baselines under `root`; other cases stay as they are.

    Further results are runs of the same cases, on other days or machines of one kind: their launches are kept
    apart by run, so that it is known how far runs lie apart. `timing` is the folder where the first run left
    the timing caches of its engines, named by digest; each goes beside the baseline of its engine, unless the
    one that lies there told the same engine.

    Raises `RefusedError` for a dirty tree, for a run with ERROR or INVALID cases or wrong answers, and for a
    loss, an undecided or a missing case, or another toolchain, that `accept` does not name. Nothing is
    written then.
    """
    for one in results:
        _refuse(one, terms)
    _refuse_unlike(results)
    result = results[0]
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
        after = _merge(before, cases, results, terms)
        moves += [
            Move(case_id=case_id, before_ns=_median(old), after_ns=_median(new))
            for case_id in sorted(before.cases.keys() | after.cases.keys())
            if (old := before.cases.get(case_id)) != (new := after.cases.get(case_id))
        ]
        told = _timing_caches(path, cases, before, timing)
        files[path] = _naming(after, told, _environment_key(result.environment))
        caches |= {timing_path(path, model, precision): data for precision, data in told.items()}
    # All are read before any is written: a damaged one leaves the others alone.
    for path, data in caches.items():
        write_bytes(path, data)
    for path, after in files.items():
        write_baseline(path, after)
    return moves


def _refuse(result: RunResult, terms: PromotionTerms) -> None:
    if not terms.reason.strip():
        raise RefusedError("needs a reason", where="promote", fix='--reason "why these numbers are right"')
    if result.commit.dirty and not terms.allow_dirty:
        raise RefusedError(
            "was measured on a tree with uncommitted changes",
            where=result.run_id,
            fix="commit and run again, or --allow-dirty",
        )
    known = {case.case.id for case in result.cases}
    if unknown := sorted(set(terms.accept) - known):
        raise RefusedError(
            f"has no case {unknown[0]}", where="--accept", fix=f"one of: {', '.join(sorted(known))}"
        )
    for case in result.cases:
        verdict = case.judgement.verdict if case.judgement else Verdict.ERROR
        if verdict in REFUSED:
            raise RefusedError(
                f"{case.case.id} is {verdict.value}",
                where=result.run_id,
                fix="mend it, run again; or promote the other cases: -k with part of their ids",
            )
        if case.accuracy and case.accuracy.failures:
            raise RefusedError(
                f"{case.case.id} answers wrongly: {case.accuracy.failures[0]}",
                where=result.run_id,
                fix="mend it, run again; no reason makes it right",
            )
        if isinstance(case.outcome, Measured):
            valid = sum(not launch.invalid for launch in case.outcome.launches)
            if valid < (wanted := launches_wanted(case, result.protocol)):
                raise RefusedError(
                    f"{case.case.id} has only {valid} of {wanted} valid launches",
                    where=result.run_id,
                    fix="run again on a quiet machine; the launches say what disturbed them",
                )
        _refuse_loss(case, verdict, result.run_id, terms.accept)


def _measured_ids(result: RunResult) -> set[str]:
    return {case.case.id for case in result.cases if isinstance(case.outcome, Measured)}


def _refuse_unlike(results: Sequence[RunResult]) -> None:
    """Runs of another machine or toolchain; and of other cases: what the first run measured is stored, and a
    case that only a later run measured would be lost unseen."""
    for other in results[1:]:
        if differ := differences(results[0].environment.key, other.environment.key):
            names = ", ".join(one.field for one in differ)
            raise RefusedError(
                f"was measured with another {names} than {results[0].run_id}",
                where=other.run_id,
                fix="merge runs of one toolchain and one kind of machine only",
            )
        if more := sorted(_measured_ids(other) - _measured_ids(results[0])):
            raise RefusedError(
                f"measured a case that {results[0].run_id} did not: {more[0]}",
                where=other.run_id,
                fix="name the run with all cases first, or promote runs of other cases one by one",
            )


def _refuse_loss(case: CaseResult, verdict: Verdict, run_id: str, accept: Sequence[str]) -> None:
    code = case.judgement.code if case.judgement else ""
    if case.case.id in accept or not needs_accept(case):
        return
    said = f"{verdict.value} ({code})" if code == ALREADY_ON_BASE else verdict.value
    meant = f"if that is meant: --accept {case.case.id}"
    fix = f"{_ACROSS}; or, {meant}" if verdict is Verdict.INCOMPARABLE else meant
    raise RefusedError(f"{case.case.id} is {said}", where=run_id, fix=fix)


def _merge(
    before: Baseline, cases: list[CaseResult], results: Sequence[RunResult], terms: PromotionTerms
) -> Baseline:
    result = results[0]
    key = _environment_key(result.environment)
    merged = dict(before.cases)
    for case in cases:
        if not isinstance(case.outcome, Measured):
            merged.pop(case.case.id, None)
            continue
        engine = case.outcome.engine
        stored = before.cases.get(case.case.id) if terms.add else None
        metrics, runs = _grouped(case, results, stored)
        if wrong := metrics_fault(metrics):
            raise RefusedError(f"{case.case.id} {wrong}", where=result.run_id, fix="measure it again")
        merged[case.case.id] = BaselineCase(
            case_digest=case.case_digest,
            usage_digest=case.usage_digest,
            mode=case.outcome.mode or case.case.mode,
            timing_cache=engine.timing_cache_digest if engine else "",
            onnx_digest=case.recipe.onnx_digest if case.recipe else "",
            file_digest=case.file_digest,
            source_digest=case.source_digest,
            engine_digest=engine.digest if engine else "",
            environment=key,
            metrics=metrics,
            runs=runs if len(runs) > 1 else (),
            promoted=max(one.created for one in results),
            commit=result.commit.sha,
            reason=terms.reason,
            accuracy=case.accuracy,
        )
    today = {manifest.key: manifest for manifest in result.manifests.get(before.model, ())}
    return msgspec.structs.replace(
        before,
        cases=merged,
        environments={**before.environments, key: result.environment},
        manifests=tuple({**{one.key: one for one in before.manifests}, **today}.values()),
    )


def _grouped(
    case: CaseResult, results: Sequence[RunResult], stored: BaselineCase | None
) -> tuple[MetricColumns, tuple[BaselineRun, ...]]:
    """The launches of a case in all runs, one run after another, and how many are whose."""
    parts: list[tuple[MetricColumns, BaselineRun]] = []
    if stored is not None:
        _refuse_another(case, stored.case_digest, "the baseline")
        launches = len(stored.metrics["latency_ns"])
        first = BaselineRun(run_id="first", created=stored.promoted, launches=launches, commit=stored.commit)
        parts += zip(columns_by_run(stored), stored.runs or (first,), strict=True)
    for result in results:
        found = next((one for one in result.cases if one.case.id == case.case.id), None)
        if found is None or not isinstance(found.outcome, Measured):
            continue
        _refuse_another(case, found.case_digest, result.run_id)
        if any(run.run_id == result.run_id for _, run in parts):
            raise RefusedError("is in it already", where=result.run_id, fix="name each run once")
        valid = [one for one in found.outcome.launches if not one.invalid]
        run = BaselineRun(
            run_id=result.run_id, created=result.created, launches=len(valid), commit=result.commit.sha
        )
        engine = found.outcome.engine
        # One that came from the cache was built on that machine too, and it is known how long that took.
        facts = msgspec.structs.replace(engine, cached=False) if engine else None
        parts.append((columns(valid, facts), run))
    # A metric that one run lacks cannot stand in columns of equal length.
    names = set.intersection(*(set(part) for part, _ in parts))
    joined = {name: tuple(value for part, _ in parts for value in part[name]) for name in sorted(names)}
    return joined, tuple(run for _, run in parts)


def _refuse_another(case: CaseResult, case_digest: str, where: str) -> None:
    if case_digest != case.case_digest:
        raise RefusedError(
            f"{case.case.id} is another model, recipe or protocol there",
            where=where,
            fix="merge runs of one and the same case only",
        )


def _timing_caches(
    baseline: Path, cases: list[CaseResult], before: Baseline, folder: Path
) -> dict[str, bytes]:
    """The timing caches of a model to build with from now on, by precision. The stored one stays where it
    told these very engines again: a cache is written in another order each time, and another file would have
    every engine built again."""
    caches: dict[str, bytes] = {}
    for case in cases:
        precision = case.case.precision
        engine = case.outcome.engine if isinstance(case.outcome, Measured) else None
        if engine is None or not engine.timing_cache_digest:
            continue
        path = timing_path(baseline, case.case.model, precision)
        stored = read_bytes(path, limit_bytes=TIMING_LIMIT_BYTES) if path.is_file() else b""
        built_with = case.recipe.timing_cache_digest if case.recipe else ""
        again = any(one.engine_digest == engine.digest for one in before.cases.values())
        if again and built_with == hashlib.sha256(stored).hexdigest():
            caches.setdefault(precision, stored)
            continue
        source = folder / f"{engine.timing_cache_digest}.timing"
        data = read_bytes(source, limit_bytes=TIMING_LIMIT_BYTES)
        if hashlib.sha256(data).hexdigest() != engine.timing_cache_digest:
            raise DataError("is not the timing cache that the results name", where=source, fix="run again")
        caches[precision] = data
    return caches


def _naming(after: Baseline, caches: Mapping[str, bytes], environment: str) -> Baseline:
    """All cases of a model and precision name its one timing cache, those too that were not promoted now;
    those of another environment name none, for its tactics were not timed there."""
    cases = dict(after.cases)
    for precision, data in caches.items():
        name = hashlib.sha256(data).hexdigest()
        for case_id, case in after.cases.items():
            if case_id.split("/")[:2] == [after.model, precision]:
                told = name if case.environment == environment else ""
                cases[case_id] = msgspec.structs.replace(case, timing_cache=told)
    return msgspec.structs.replace(after, cases=cases)


def _environment_key(environment: Environment) -> str:
    return digest(environment)[:12]


def _median(case: BaselineCase | None) -> float | None:
    return statistics.median(case.metrics["latency_ns"]) if case else None
