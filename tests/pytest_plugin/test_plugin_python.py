"""`pytest --perfgate` on Python code: pytest-benchmark's tests, and the `perfgate` fixture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from plugin_project import Gate, Project

pytest_plugins = ["pytester", "plugin_project"]


BENCHMARKS = """
import pytest

SUMMANDS = 20_000

def test_sum(benchmark):
    benchmark.pedantic(lambda: sum(range(SUMMANDS)), rounds=10, iterations=2)

def test_sorted(benchmark):
    benchmark.pedantic(lambda: sorted(range(20_000)), rounds=10, iterations=2)
"""
FUNCTIONS = """
import os
from pathlib import Path

SUMMANDS = 20_000

def load():
    with Path("pids").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    return lambda: sum(range(SUMMANDS))

def dies():
    import sys
    print("about to fail", file=sys.stderr, flush=True)
    os.kill(os.getpid(), 9)

def test_sum(perfgate):
    perfgate(load)
"""


@pytest.fixture
def benchmarks(project: Project) -> Path:
    return project.write("test_speed.py", BENCHMARKS)


@pytest.fixture
def functions(project: Project) -> Path:
    return project.write("test_own.py", FUNCTIONS)


def test_a_slowed_benchmark_test_is_a_regression(project: Project, benchmarks: Path, gate: Gate) -> None:
    assert gate("test_speed.py").ret == 0
    assert project.verdicts() == {
        "pytest-benchmark/test_speed.py::test_sum": "NEW",
        "pytest-benchmark/test_speed.py::test_sorted": "NEW",
    }
    project.promote("--allow-dirty")
    project.change("test_speed.py", "SUMMANDS = 20_000", "SUMMANDS = 400_000")
    result = gate("test_speed.py", "-k", "test_sum")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["REGRESSION: pytest-benchmark/test_speed.py::test_sum"])
    assert project.verdicts() == {"pytest-benchmark/test_speed.py::test_sum": "REGRESSION"}


def test_a_new_benchmark_test_fails_where_a_baseline_is_required(benchmarks: Path, gate: Gate) -> None:
    result = gate("test_speed.py", "-k", "test_sum", "--perfgate-launches=1", "--perfgate-require-baseline")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["NEW: pytest-benchmark/test_speed.py::test_sum"])


def test_a_benchmark_test_that_fails_leaves_the_others_measured(
    project: Project, benchmarks: Path, gate: Gate
) -> None:
    project.change("test_speed.py", "sorted(range(20_000))", "1 / 0")
    result = gate("test_speed.py", "--perfgate-launches=1", "--tb=line")
    assert result.ret == 1
    result.assert_outcomes(failed=1, passed=1)
    assert project.verdicts() == {
        "pytest-benchmark/test_speed.py::test_sum": "NEW",
        "pytest-benchmark/test_speed.py::test_sorted": "ERROR",
    }


def test_benchmark_tests_are_launched_without_our_own_flags(
    project: Project, benchmarks: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.change("pyproject.toml", "no:cacheprovider", "no:cacheprovider --perfgate --perfgate-launches=1")
    monkeypatch.setenv("PERFGATE_LOCK_TIMEOUT_S", "5")
    code = "import os, pytest; os.environ['PYTEST_ADDOPTS'] = '--perfgate'; raise SystemExit(pytest.main())"
    result = pytester.runpython_c(code)
    assert result.ret == 0
    assert project.verdicts()["pytest-benchmark/test_speed.py::test_sum"] == "NEW"


def test_a_damaged_baseline_fails_benchmark_tests_too(project: Project, benchmarks: Path, gate: Gate) -> None:
    project.baseline.write_text("{}")
    result = gate("test_speed.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: *tinyconv.json: is not a valid Baseline*"])


def test_two_workers_gate_benchmark_tests(project: Project, benchmarks: Path, gate: Gate) -> None:
    result = gate("-n", "2", "test_speed.py", "--perfgate-launches=1")
    assert result.ret == 0
    assert project.verdicts() == {
        "pytest-benchmark/test_speed.py::test_sum": "NEW",
        "pytest-benchmark/test_speed.py::test_sorted": "NEW",
    }
    assert project.started("pytest test_speed.py::test_sum") == 1


def test_models_are_gated_without_pytest_benchmark(project: Project, gate: Gate) -> None:
    assert gate("-p", "no:benchmark").ret == 0
    assert project.verdicts()["tinyconv/fp32/b1"] == "UNCHANGED"
    project.drop_fp32()
    assert gate("-p", "no:benchmark").ret == 1


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_a_slowed_function_is_a_regression(
    project: Project, functions: Path, gate: Gate, workers: tuple[str, ...]
) -> None:
    assert gate(*workers, "test_own.py").ret == 0
    assert project.verdicts() == {"test_own/test_sum": "NEW"}
    pids = (project.root / "pids").read_text().split()
    assert len(set(pids)) == len(pids) == 2
    assert str(os.getpid()) not in pids
    project.promote("--allow-dirty")
    project.change("test_own.py", "SUMMANDS = 20_000", "SUMMANDS = 400_000")
    result = gate(*workers, "test_own.py")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["REGRESSION: test_own/test_sum"])
    assert project.verdicts() == {"test_own/test_sum": "REGRESSION"}


def test_functions_and_models_share_one_results_file(project: Project, functions: Path, gate: Gate) -> None:
    assert gate("--perfgate-launches", "1").ret == 0
    assert project.verdicts() == {
        "test_own/test_sum": "NEW",
        "tinyconv/fp16/b1": "NOT RUN",
        "tinyconv/fp32/b1": "UNCHANGED",
    }


def test_a_function_from_another_machine_is_the_environments_fault(
    project: Project, functions: Path, gate: Gate
) -> None:
    project.edit_baseline(lambda table: [e["key"].update(cpus="999") for e in table["environments"].values()])
    project.add_ghost("test_own/test_sum")
    result = gate("test_own.py", "--perfgate-launches", "1")
    assert result.ret == 3
    assert project.verdicts() == {"test_own/test_sum": "INCOMPARABLE"}


def test_a_second_function_in_one_test_is_refused(project: Project, functions: Path, gate: Gate) -> None:
    project.change("test_own.py", "perfgate(load)", "perfgate(load); perfgate(load)")
    result = gate("test_own.py", "--perfgate-launches", "1")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: test_own/test_sum: is measured already*"])


def test_a_function_whose_process_dies_fails_with_its_last_words(
    project: Project, functions: Path, gate: Gate
) -> None:
    project.change("test_own.py", "perfgate(load)", "perfgate(dies)")
    result = gate("test_own.py")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR: test_own/test_sum", "*was killed by SIGKILL", "*about to fail"])


def test_a_damaged_baseline_fails_a_function(project: Project, functions: Path, gate: Gate) -> None:
    project.baseline.write_text("{}")
    result = gate("test_own.py")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: *tinyconv.json: is not a valid Baseline*"])


def test_without_the_flag_a_function_is_called_once_here(
    project: Project, functions: Path, pytester: pytest.Pytester
) -> None:
    result = pytester.runpytest_subprocess("test_own.py", timeout=60)
    assert result.ret == 0
    assert len((project.root / "pids").read_text().split()) == 1
    assert not (project.root / "perfgate-out").exists()
