"""Cases that are Python, not engines: functions of a test file, and pytest-benchmark's tests.

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
from perfgate.records import Launch
from perfgate.util.files import RESULTS_LIMIT_BYTES, read_bytes
from perfgate.util.process import package_environment, run_child

BACKEND = "pytest-benchmark"
_TESTS_FAILED = 1


def benchmark_case_id(nodeid: str) -> str:
    return f"{BACKEND}/{nodeid}"


def has_benchmark(config: Any) -> bool:
    """Is pytest-benchmark there and switched on? (xdist switches it off in the workers, not its launches.)"""
    return config.pluginmanager.hasplugin("benchmark") and not config.getoption(
        "benchmark_skip", default=False
    )


def benchmark_nodes(items: Sequence[Any]) -> list[str]:
    """The node ids of the items that use pytest-benchmark's fixture."""
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
