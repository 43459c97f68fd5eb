"""Cases that are Python, not engines: functions at the top of a test file, and pytest-benchmark's tests.

A pytest-benchmark test is launched as any case is: in a fresh process, several times. One launch is a
`pytest --benchmark-only` of all selected benchmark tests; its rounds are the samples.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from perfgate.errors import CaseError, DataError
from perfgate.measure.launch import CallableTarget
from perfgate.measure.schedule import Job, measure
from perfgate.records import Case, CaseResult, Failed, Launch, Measured, Outcome, digest
from perfgate.run.pipeline import Pipeline
from perfgate.util.files import RESULTS_LIMIT_BYTES, read_bytes
from perfgate.util.process import package_environment, run_child

BACKEND = "pytest-benchmark"
_TESTS_FAILED = 1


def benchmark_case_id(nodeid: str) -> str:
    return f"{BACKEND}/{nodeid}"


def benchmark_nodes(config: Any, items: Sequence[Any]) -> list[str]:
    """The node ids of the items that use pytest-benchmark's fixture, where that is there and switched on:
    xdist switches it off in the workers, not in its launches."""
    skipped = config.getoption("benchmark_skip", default=False)
    if skipped or not config.pluginmanager.hasplugin("benchmark"):
        return []
    return [item.nodeid for item in items if "benchmark" in getattr(item, "fixturenames", ())]


def launch_benchmarks(nodes: Sequence[str], *, root: Path, timeout_s: float) -> dict[str, Launch]:
    """One launch of all these tests in a fresh process: a `Launch` by node id.

    Raises `CaseError` when the process fails or reports nothing.
    """
    with tempfile.TemporaryDirectory(prefix="perfgate-benchmark-") as name:
        out = Path(name) / "benchmark.json"
        child = run_child(
            [
                *(sys.executable, "-m", "pytest", *nodes),
                *("--rootdir", root, "--benchmark-only", f"--benchmark-json={out}", "-q"),
                *("-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="),
            ],
            timeout_s=timeout_s,
            env={key: text for key, text in package_environment().items() if not key.startswith("PYTEST_")},
            cwd=root,
        )
        # A test that fails is not in the report; those beside it are.
        if child.failure and not (child.returncode == _TESTS_FAILED and out.is_file()):
            tail = "\n".join(part for part in (child.stdout_tail, child.stderr_tail) if part)
            raise CaseError(f"the benchmark tests' process {child.failure}", stderr_tail=tail[-4000:])
        try:
            report = msgspec.json.decode(read_bytes(out, limit_bytes=RESULTS_LIMIT_BYTES), type=_Report)
        except (msgspec.MsgspecError, DataError) as error:
            raise CaseError(f"pytest-benchmark wrote no readable report: {error}") from error
    return {one.fullname: one.launch() for one in report.benchmarks}


class _Stats(msgspec.Struct):
    data: list[float]


class _Benchmark(msgspec.Struct):
    fullname: str
    stats: _Stats

    def launch(self) -> Launch:
        samples = tuple(max(1, round(seconds * 1e9)) for seconds in self.stats.data)
        return Launch(
            samples_ns=samples, wall_ns=max(1, sum(samples)), load_ns=0, first_inference_ns=samples[0]
        )


class _Report(msgspec.Struct):
    """What we read of pytest-benchmark's file; it is its own format, so other keys are let be."""

    benchmarks: list[_Benchmark]


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
