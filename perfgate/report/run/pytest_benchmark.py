"""pytest-benchmark JSON, so that `pytest-benchmark compare`, github-action-benchmark and Bencher read us.

Every measured case is one benchmark. Its statistics, in seconds, are those that pytest-benchmark computes,
over the samples of all valid launches together; launches are kept apart in `extra_info`.
"""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from perfgate.records import CaseResult, Environment, Launch, Measured, RunResult

FORMAT_VERSION = "5.1.0"  # of pytest-benchmark, whose schema this is
_S = 1e9


def render(result: RunResult) -> str:
    """The measured cases as pytest-benchmark JSON. A case without a valid launch is left out."""
    taken = ((case, case.outcome.launches) for case in result.cases if isinstance(case.outcome, Measured))
    document = {
        "machine_info": _machine(result.environment),
        "commit_info": _commit(result),
        "benchmarks": [
            _benchmark(case, valid, len(launches))
            for case, launches in taken
            if (valid := [launch for launch in launches if not launch.invalid])
        ],
        "datetime": result.created,
        "version": FORMAT_VERSION,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _benchmark(result: CaseResult, launches: Sequence[Launch], attempted: int) -> dict[str, Any]:
    case = result.case
    samples = [sample for launch in launches for sample in launch.samples_ns]
    extra: dict[str, Any] = {
        "launches": len(launches),
        "launches_invalid": attempted - len(launches),
        "launch_medians_s": [launch.median_ns / _S for launch in launches],
        "mode": str(case.mode),
        "backend": case.backend,
        "precision": case.precision,
        "case_digest": result.case_digest,
    }
    if result.judgement is not None:
        extra["verdict"] = result.judgement.verdict.value
    return {
        "group": case.model,
        "name": case.id,
        "fullname": case.id,
        "params": None,
        "param": None,
        "extra_info": extra,
        "options": {"timer": "perfgate", "disable_gc": False, "warmup": True},
        "stats": statistics_of(samples),
    }


def statistics_of(samples_ns: Sequence[int]) -> dict[str, Any]:
    """What pytest-benchmark's `Stats` says of these samples, in seconds.

    Sums are taken over whole nanoseconds and are exact; only the result is rounded to a float.
    """
    data = sorted(samples_ns)
    n, total = len(data), sum(data)
    mean = total / n
    variance = (n * sum(x * x for x in data) - total * total) / (n * (n - 1)) if n > 1 else 0.0
    stddev = math.sqrt(variance)
    q1, median, q3 = _hinges(data)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    iqr_outliers = bisect_left(data, low) + n - bisect_right(data, high)
    stddev_outliers = bisect_left(data, mean - stddev) + n - bisect_right(data, mean + stddev)
    return {
        "min": data[0] / _S,
        "max": data[-1] / _S,
        "mean": mean / _S,
        "stddev": stddev / _S,
        "rounds": n,
        "median": median / _S,
        "iqr": (q3 - q1) / _S,
        "q1": q1 / _S,
        "q3": q3 / _S,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": data[min(n - 1, bisect_left(data, low))] / _S,
        "hd15iqr": data[max(1, bisect_right(data, high)) - 1] / _S,
        "ops": n * _S / total,
        "total": total / _S,
        "data": [sample / _S for sample in samples_ns],
        "iterations": 1,
    }


def _hinges(data: Sequence[int]) -> tuple[float, float, float]:
    """Quartiles as pytest-benchmark has them: halves if even, 1/4-3/4 mixtures if odd."""
    n = len(data)
    if n == 1:
        return data[0], data[0], data[0]
    if n % 2 == 0:
        half = n // 2
        return statistics.median(data[:half]), statistics.median(data), statistics.median(data[half:])
    k = n // 4
    if n % 4 == 1:
        q1 = 0.25 * data[k - 1] + 0.75 * data[k]
        q3 = 0.75 * data[3 * k] + 0.25 * data[3 * k + 1]
    else:
        q1 = 0.75 * data[k] + 0.25 * data[k + 1]
        q3 = 0.25 * data[3 * k + 1] + 0.75 * data[3 * k + 2]
    return q1, data[n // 2], q3


def _machine(environment: Environment) -> dict[str, Any]:
    """The machine that was measured (never the one that renders), in pytest-benchmark's words."""
    known = {**environment.noted, **environment.key}
    return {
        "node": known.get("host", environment.device),
        "processor": known.get("cpu", ""),
        "machine": known.get("machine", ""),
        "python_compiler": "",
        "python_implementation": "CPython",
        "python_implementation_version": known.get("python", ""),
        "python_version": known.get("python", ""),
        "python_build": ["", ""],
        "release": known.get("kernel", ""),
        "system": known.get("system", ""),
        "cpu": {"brand_raw": known.get("cpu", "")},
        "device": environment.device,
        "toolchain": environment.toolchain,
        "environment": dict(sorted(known.items())),
    }


def _commit(result: RunResult) -> dict[str, Any]:
    return {
        "id": result.commit.sha or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": result.commit.dirty,
        "project": "perfgate",
        "branch": "(unknown)",
    }
