"""`make demo`: the reports of the stored H200 results, on a machine without a GPU."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from perfgate.gate.baselines import read_baseline
from perfgate.records import Unchanged, Verdict
from perfgate.run.outputs import read_results
from perfgate.util.process import package_environment

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "baselines" / "nvidia-h200" / "tensorrt-8.5.3.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [sys.executable, str(ROOT / "tests/benchmarks/demo.py"), "--out", str(out)],
        env=package_environment(),
        check=True,
        timeout=120,
    )
    return out


def test_the_results_are_the_stored_numbers_and_claim_nothing_else(folder: Path) -> None:
    run = read_results(folder / "results.json")
    stored = {
        case_id: case for path in STORED.glob("*.json") for case_id, case in read_baseline(path).cases.items()
    }
    assert {case.case.id for case in run.cases} == set(stored)
    for case in run.cases:
        assert isinstance(case.outcome, Unchanged) and case.judgement is not None
        assert case.judgement.verdict is Verdict.UNCHANGED and case.judgement.ratio is None
        assert case.judgement.base == stored[case.case.id].metrics
        assert case.case_digest == stored[case.case.id].case_digest
        assert case.case.mode == stored[case.case.id].mode
    assert run.summary is not None and run.summary.exit_code == 0
    assert run.commit.sha in {case.commit for case in stored.values()}


def test_the_report_is_there_in_both_languages(folder: Path) -> None:
    launches_ns = read_baseline(STORED / "resnet50.json").cases["resnet50/fp16/b8"].metrics["latency_ns"]
    median = f"{statistics.median(launches_ns) / 1000:.1f} µs"
    for name, word in (
        ("report.html", "UNCHANGED"),
        ("report.zh-CN.html", "无变化"),
        ("comment.md", "UNCHANGED"),
    ):
        text = (folder / name).read_text(encoding="utf-8")
        assert word in text and "resnet50/fp16/b8" in text and median in text
    assert json.loads((folder / "results.json").read_text())["schema"] == "perfgate-trt/results/v1"


def test_it_makes_the_same_bytes_again(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/benchmarks/demo.py"), "--out", str(tmp_path)]
    subprocess.run(command, env=package_environment(), check=True, timeout=120)
    for path in sorted(folder.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
