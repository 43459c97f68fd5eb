import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.stats import Stats

from perfgate.records import Measured, RunResult
from perfgate.report import render
from perfgate.report.run.pytest_benchmark import statistics_of


@pytest.mark.parametrize("count", [*range(1, 14), 500, 601, 602, 603])
def test_the_statistics_are_those_of_pytest_benchmark(count: int) -> None:
    draw = random.Random(count)
    samples = [round(2e6 * draw.lognormvariate(0, 0.3)) for _ in range(count)]
    theirs = Stats()
    for sample in samples:
        theirs.update(sample / 1e9)
    ours = statistics_of(samples)
    for name, value in theirs.as_dict().items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-9, abs=1e-18)
        assert ours[name] == expected, name


def test_equal_samples_have_no_spread() -> None:
    stats = statistics_of([1_000] * 7)
    assert (stats["stddev"], stats["iqr"], stats["outliers"]) == (0.0, 0.0, "0;0")


def test_every_measured_case_with_a_valid_launch_is_a_benchmark(run: RunResult) -> None:
    document = json.loads(render(run, "pytest-benchmark"))
    measured = [
        case.case.id
        for case in run.cases
        if isinstance(case.outcome, Measured) and any(not launch.invalid for launch in case.outcome.launches)
    ]
    assert [bench["fullname"] for bench in document["benchmarks"]] == measured
    first = document["benchmarks"][0]
    assert first["group"] == "vgg" and first["stats"]["rounds"] == 105 == len(first["stats"]["data"])
    assert first["extra_info"]["launch_medians_s"][0] == 0.0015
    assert first["extra_info"]["mode"] == "graph, no transfers, spin"
    assert document["commit_info"]["id"] == run.commit.sha and document["commit_info"]["dirty"] is True
    assert document["machine_info"]["device"] == "NVIDIA-H200"


def test_pytest_benchmark_compares_two_of_our_files(run: RunResult, tmp_path: Path) -> None:
    for name in ("0001_base.json", "0002_head.json"):
        (tmp_path / name).write_text(render(run, "pytest-benchmark"), encoding="utf-8")
    program = "from pytest_benchmark.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "compare", "0001_base.json", "0002_head.json", "--group-by=fullname"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet50/fp16/b8" in done.stdout and "0002_head" in done.stdout
    assert "Failed to load" not in done.stdout + done.stderr
