"""Tests of one's own as cases: pytest-benchmark's, and functions at the top of a test file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from perfgate.errors import CaseError
from perfgate.measure.launch import CallableTarget
from perfgate.measure.schedule import Job, measure
from perfgate.pytest_plugin.benchmark_launches import benchmark_case_id, launch_benchmarks
from perfgate.records import Case, CaseResult, Failed, Launch, Measured, Outcome, digest
from perfgate.run.pipeline import Pipeline


def run_benchmarks(pipeline: Pipeline, nodes: Sequence[str], *, root: Path) -> list[CaseResult]:
    """Launch pytest-benchmark's tests in fresh processes; one unjudged result a test."""
    launches: dict[str, list[Launch]] = {node: [] for node in nodes}
    failure: Failed | None = None
    with pipeline.lock():
        pipeline.progress.start(pipeline.protocol.launches)
        for _ in range(pipeline.protocol.launches):
            try:
                found = launch_benchmarks(nodes, root=root, timeout_s=pipeline.protocol.timeout_s)
            except CaseError as error:
                failure = Failed.by("launch", error)
                break
            for node in nodes:
                launches[node] += [found[node]] if node in found else []
            pipeline.progress.step("pytest-benchmark", f"{len(found)} tests")
    return [
        CaseResult(
            case=_case(pipeline, benchmark_case_id(node), "pytest-benchmark"),
            outcome=failure or _outcome(launches[node]),
            case_digest=digest(node),
        )
        for node in nodes
    ]


def run_function(pipeline: Pipeline, file: Path, test: str, function: str) -> CaseResult:
    """Measure and judge a function at the top of a test file."""
    case = _case(pipeline, f"{file.stem}/{test}", "python")
    job = Job(
        case_id=case.id,
        target=CallableTarget(file=str(file), function=function),
        protocol=pipeline.protocol,
    )
    with pipeline.lock():
        outcomes, interrupted = measure([job], pipeline.progress)
    if interrupted:
        raise KeyboardInterrupt
    result = CaseResult(case=case, outcome=outcomes[case.id], case_digest=digest(case.id))
    return pipeline.judging.waived(msgspec.structs.replace(result, judgement=pipeline.judging.case(result)))


def _case(pipeline: Pipeline, case_id: str, backend: str) -> Case:
    return Case(
        id=case_id,
        model=case_id.split("/")[0],
        backend=backend,
        precision="fp32",
        tolerance=pipeline.settings.tolerance("cpu"),
    )


def _outcome(launches: Sequence[Launch]) -> Outcome:
    if not launches:
        return Failed(stage="launch", reason="the test reported no benchmark: was it skipped?")
    return Measured(engine=None, launches=tuple(launches))
