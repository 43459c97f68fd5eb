"""Shards of a run put together again: nothing may be missing, nothing twice, and all of one commit.

Each shard states its scope, so that a job that died, or was never started, is seen. What is wrong is a fault
of its leg, not an exception: the rest is still worth showing, and a leg with a fault is never green.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perfgate.errors import DataError
from perfgate.gate.verdict.summary import summarise
from perfgate.records import CaseResult, Leg, Measured, RunResult, Scope, Verdict
from perfgate.run.outputs import read_results
from perfgate.run.shards import join_manifests
from perfgate.util.files import TIMING_LIMIT_BYTES, file_digest, read_bytes, write_bytes


def find_results(shards: Sequence[Path]) -> list[Path]:
    """The results files that are named, and those in the folders that are. Raises `DataError`."""
    paths: list[Path] = []
    for shard in shards:
        paths += sorted(shard.rglob("results.json")) if shard.is_dir() else [shard]
    if not paths:
        raise DataError("hold no results.json", where=", ".join(map(str, shards)))
    return paths


def read_legs(paths: Sequence[Path], *, expected: Sequence[str]) -> tuple[Leg, ...]:
    """Read results files, and merge them. Raises `DataError`."""
    return merge([read_results(path) for path in paths], expected=expected)


def copy_timing(result: RunResult, paths: list[Path], out: Path) -> None:
    """The timing caches that the results name, whichever shard brought them; checked by digest."""
    engines = [case.outcome.engine for case in result.cases if isinstance(case.outcome, Measured)]
    for digest in {engine.timing_cache_digest for engine in engines if engine and engine.timing_cache_digest}:
        for path in paths:
            source = path.parent / "timing" / f"{digest}.timing"
            if re.fullmatch(r"[0-9a-f]{64}", digest) and source.is_file() and file_digest(source) == digest:
                data = read_bytes(source, limit_bytes=TIMING_LIMIT_BYTES)
                write_bytes(out / "timing" / source.name, data)
                break


def merge(parts: Sequence[RunResult], *, expected: Sequence[str] = ()) -> tuple[Leg, ...]:
    """The legs of a matrix, the expected ones first. Without a scope a part is a leg of its own device."""
    by_leg: dict[str, list[RunResult]] = {name: [] for name in expected}
    for part in parts:
        by_leg.setdefault(part.scope.leg if part.scope else part.environment.device, []).append(part)
    legs = [
        _leg(name, found, foreign=bool(expected) and name not in expected) for name, found in by_leg.items()
    ]
    return tuple(_same_commit(legs))


def exit_code(legs: Sequence[Leg]) -> int:
    """1 wins over 3 wins over 0; no leg at all is never green."""
    codes = {leg.exit_code for leg in legs} or {3}
    return next((code for code in (1, 3, 2) if code in codes), 0)


def _leg(name: str, parts: list[RunResult], *, foreign: bool) -> Leg:
    if not parts:
        return Leg(name=name, faults=("no results arrived from this runner",))
    scopes = [
        part.scope or Scope(leg=name, plan=tuple(case.case.id for case in part.cases)) for part in parts
    ]
    faults = ["was not expected: is its label in PERFGATE_LEGS?"] if foreign else []
    faults += _scope_faults(scopes) + _differing(parts) + _case_faults(parts, scopes[0].plan)
    order = {case_id: number for number, case_id in enumerate(scopes[0].plan)}
    unique = {case.case.id: case for part in parts for case in part.cases}
    cases = sorted(unique.values(), key=lambda case: order.get(case.case.id, len(order)))
    summary = summarise(
        cases,
        results=f"{name}/results.json",
        require_baseline=any(_required_baseline(part) for part in parts),
        interrupted=any(_interrupted(part) for part in parts),
        dirty=any(part.commit.dirty for part in parts),
    )
    whole = msgspec.structs.replace(
        parts[0],
        cases=tuple(cases),
        manifests=join_manifests(parts),
        summary=summary,
        scope=Scope(leg=name, plan=scopes[0].plan),
    )
    return Leg(name=name, result=whole, faults=tuple(faults))


def _scope_faults(scopes: Sequence[Scope]) -> list[str]:
    """What the shards' own words contradict: their number, which is there, and the plan they divide."""
    count, plan = scopes[0].shards, scopes[0].plan
    if any(scope.shards != count or scope.plan != plan for scope in scopes):
        return ["its shards do not divide the same plan"]
    seen = Counter(scope.shard for scope in scopes)
    missing = [f"{number}/{count}" for number in range(1, count + 1) if not seen[number]]
    faults = [f"shard {', '.join(missing)} did not arrive"] if missing else []
    twice = [f"{number}/{count}" for number, times in seen.items() if times > 1]
    return faults + ([f"shard {', '.join(twice)} is there twice"] if twice else [])


def _case_faults(parts: Sequence[RunResult], plan: Sequence[str]) -> list[str]:
    """Every case of the plan exactly once, and judged: the union must be whole."""
    seen = Counter(case.case.id for part in parts for case in part.cases)
    faults = []
    if absent := [case_id for case_id in plan if not seen[case_id]]:
        faults.append(f"{len(absent)} of {len(plan)} cases have no result, such as {absent[0]}")
    if foreign := sorted(seen.keys() - set(plan)):
        faults.append(f"{len(foreign)} cases are not in the plan, such as {foreign[0]}")
    if twice := [case_id for case_id, times in seen.items() if times > 1]:
        faults.append(f"{len(twice)} cases were measured by two shards, such as {twice[0]}")
    unjudged = [case.case.id for part in parts for case in part.cases if case.judgement is None]
    if unjudged:
        faults.append(f"{len(unjudged)} cases were not judged, such as {unjudged[0]}: was the run cut short?")
    return faults


def _differing(parts: Sequence[RunResult]) -> list[str]:
    """Shards of one leg must be one run: one machine kind, toolchain, protocol and commit."""
    same: dict[str, list[object]] = {
        "device": [part.environment.device for part in parts],
        "toolchain": [part.environment.toolchain for part in parts],
        "environment": [part.environment.key for part in parts],
        "protocol": [part.protocol for part in parts],
        "commit": [part.commit.sha for part in parts],
        "base commit": [part.base.sha for part in parts],
    }
    return [
        f"its shards differ in their {name}"
        for name, values in same.items()
        if any(value != values[0] for value in values)
    ]


def _same_commit(legs: Sequence[Leg]) -> list[Leg]:
    shas = {leg.result.commit.sha for leg in legs if leg.result}
    if len(shas) <= 1:
        return list(legs)
    fault = "the legs measured different commits"
    return [msgspec.structs.replace(leg, faults=(*leg.faults, fault)) for leg in legs]


def _required_baseline(part: RunResult) -> bool:
    """Whether NEW was what made this shard red: then it makes the whole red."""
    red = any(_code(case) == 1 for case in part.cases)
    new = any(case.judgement and case.judgement.verdict is Verdict.NEW for case in part.cases)
    return bool(part.summary and part.summary.exit_code == 1 and new and not red)


def _interrupted(part: RunResult) -> bool:
    """Whether a shard ended with 3 though no case of it is the machine's fault, or never got to an end."""
    if part.summary is None:
        return True
    return part.summary.exit_code == 3 and not any(_code(case) == 3 for case in part.cases)


def _code(case: CaseResult) -> int:
    return case.judgement.verdict.exit_code if case.judgement else 0
