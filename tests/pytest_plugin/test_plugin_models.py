"""`pytest --perfgate` on model specs: each verdict with the exit status that CI acts on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from plugin_project import Gate, Project

pytest_plugins = ["pytester", "plugin_project"]

# For launches that are measured anew and are expected to agree: two busy cores vary up to 1.9 times.
WIDE = {"PERFGATE_IGNORE": "1.0", "PERFGATE_CATCH": "3.0"}


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WIDE.items():
        monkeypatch.setenv(name, value)


def test_a_slower_model_is_a_regression_that_names_the_case(project: Project, gate: Gate) -> None:
    project.slow_down()
    result = gate()
    assert result.ret == 1
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["REGRESSION: tinyconv/fp32/b1", "FAILED models/tinyconv.toml::fp32/b1 - REGRESSION*"]
    )
    assert project.verdicts()["tinyconv/fp32/b1"] == "REGRESSION"
    ratio = next(one for one in project.results()["cases"] if "fp32" in one["case"]["id"])["judgement"][
        "ratio"
    ]
    assert ratio["estimate"] > 3


def test_an_unchanged_tree_passes_and_starts_no_child_and_makes_no_model(
    project: Project, gate: Gate
) -> None:
    result = gate()
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)
    assert project.verdicts() == {"tinyconv/fp32/b1": "UNCHANGED", "tinyconv/fp16/b1": "NOT RUN"}
    assert project.started("perfgate.") == 0
    assert not (project.root / ".perfgate/models").exists()
    assert not (project.root / ".perfgate/engines").exists()


def test_remeasure_measures_an_unchanged_tree_and_passes(project: Project, gate: Gate, wide: None) -> None:
    result = gate("--perfgate-remeasure")
    assert result.ret == 0
    assert project.verdicts()["tinyconv/fp32/b1"] in ("PASS", "IMPROVEMENT")
    # Two for the screen; on a noisy machine a suspect, better or worse, is launched again.
    assert project.started("perfgate.measure.launch") >= 2


def test_items_are_named_by_spec_and_case_and_collecting_measures_nothing(
    project: Project, gate: Gate
) -> None:
    result = gate("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["models/tinyconv.toml::fp32/b1", "models/tinyconv.toml::fp16/b1"])
    assert project.started("perfgate.") == 0
    assert not (project.root / "perfgate-out").exists()


def test_keyword_decides_what_is_measured_and_the_rest_is_not_missing(project: Project, gate: Gate) -> None:
    project.add_model("second")
    project.slow_down("tinyconv")
    result = gate("-k", "second", "--perfgate-launches", "1")
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1, deselected=2)
    assert project.verdicts() == {"second/fp32/b1": "NEW", "second/fp16/b1": "NOT RUN"}
    assert project.started("perfgate.measure.launch") == 1


def test_a_node_id_decides_what_is_measured_and_the_rest_is_not_missing(project: Project, gate: Gate) -> None:
    project.change("models/tinyconv.toml", "measure = [1]", "measure = [1, 2]")
    result = gate("models/tinyconv.toml::fp32/b2", "--perfgate-launches", "1")
    assert result.ret == 0
    assert project.verdicts() == {"tinyconv/fp32/b2": "NEW"}


def test_first_failure_stops_the_reporting(project: Project, gate: Gate) -> None:
    project.drop_fp32()
    project.add_ghost("tinyconv/fp32/b4")
    assert gate().parseoutcomes() == {"failed": 2, "skipped": 1}
    result = gate("-x")
    assert result.ret == 1
    result.assert_outcomes(failed=1, skipped=1)


def test_junit_carries_the_measured_seconds(project: Project, gate: Gate, wide: None) -> None:
    assert gate("--perfgate-remeasure", "--junitxml", "junit.xml").ret == 0
    seconds = {
        case.attrib["name"]: float(case.attrib["time"])
        for case in ET.parse(project.root / "junit.xml").iter("testcase")
    }
    measured = next(one for one in project.results()["cases"] if "fp32" in one["case"]["id"])
    spent = sum(
        one["wall_ns"] + one["load_ns"] + one["first_inference_ns"] for one in measured["outcome"]["launches"]
    )
    assert seconds["fp32/b1"] == pytest.approx(spent / 1e9, abs=0.02)
    assert spent / 1e9 > 0.08


def test_a_case_not_run_here_is_skipped_with_its_reason(gate: Gate) -> None:
    result = gate("-rs")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["SKIPPED*folds FP16 back to FP32*"])


def test_a_new_case_passes_unless_a_baseline_is_required(project: Project, gate: Gate) -> None:
    shutil.rmtree(project.root / "baselines")
    assert gate("--perfgate-launches", "1").ret == 0
    assert project.verdicts()["tinyconv/fp32/b1"] == "NEW"
    result = gate("--perfgate-launches", "1", "--perfgate-require-baseline")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["NEW: tinyconv/fp32/b1"])


def test_a_case_that_is_no_longer_made_is_missing(project: Project, gate: Gate) -> None:
    project.drop_fp32()
    result = gate()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["MISSING: tinyconv/fp32/b1"])


@pytest.mark.parametrize("others", [True, False], ids=["of several", "of one"])
def test_a_deleted_spec_with_a_baseline_is_missing(project: Project, gate: Gate, others: bool) -> None:
    if others:
        project.add_model("second")
        project.change("models/second.toml", '["fp32", "fp16"]', '["fp16"]')
    (project.root / "models/tinyconv.toml").unlink()
    result = gate()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["MISSING: tinyconv/fp32/b1"])


def test_a_path_elsewhere_asks_for_no_models(project: Project, gate: Gate) -> None:
    project.write("tests/test_plain.py", "def test_plain(): pass\n")
    project.drop_fp32()
    result = gate("tests")
    assert result.ret == 0
    result.assert_outcomes(passed=1)


def test_only_incomparable_is_the_environments_fault(project: Project, gate: Gate) -> None:
    project.from_other_cpu()
    result = gate("--perfgate-launches", "1")
    assert result.ret == 3
    result.stdout.fnmatch_lines(
        [
            "INCOMPARABLE: tinyconv/fp32/b1",
            "*baseline 999, here *",
            "perfgate: only the environment failed, no case did: exit status 3",
        ]
    )


@pytest.mark.parametrize("stop", [(), ("-x",)], ids=["all", "stopped at the first"])
def test_a_red_case_wins_over_the_environment(project: Project, gate: Gate, stop: tuple[str, ...]) -> None:
    project.from_other_cpu()
    project.add_ghost("tinyconv/fp32/b4")
    result = gate("--perfgate-launches", "1", *stop)
    assert result.ret == 1
    assert project.verdicts()["tinyconv/fp32/b1"] == "INCOMPARABLE"
    assert project.verdicts()["tinyconv/fp32/b4"] == "MISSING"
    result.stdout.no_fnmatch_line("*only the environment failed*")


def test_a_failed_test_of_another_kind_wins_over_the_environment(project: Project, gate: Gate) -> None:
    project.from_other_cpu()
    project.write("tests/test_plain.py", "def test_plain(): assert False\n")
    assert gate("--perfgate-launches", "1").ret == 1


@pytest.mark.parametrize(
    "args", [("-k", "no_such_case"), ("-k", "fp16")], ids=["nothing selected", "nothing that runs here"]
)
def test_a_run_that_compared_nothing_is_not_green(gate: Gate, args: tuple[str, ...]) -> None:
    result = gate(*args)
    assert result.ret in (1, 5)
    result.stdout.fnmatch_lines(["*othing was measured*"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_a_damaged_baseline_is_one_clear_error(
    project: Project, gate: Gate, workers: tuple[str, ...]
) -> None:
    project.baseline.write_text(project.baseline.read_text()[:-40])
    result = gate(*workers)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: *tinyconv.json: is not a valid Baseline*", "*fix: restore*"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_a_mistake_in_a_spec_is_one_clear_line(
    project: Project, gate: Gate, workers: tuple[str, ...]
) -> None:
    project.change("models/tinyconv.toml", "precisions =", "precisons =")
    result = gate(*workers)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: *tinyconv.toml: precisons: unknown key", "*fix: did you mean*"])
    assert project.started("perfgate.") == 0


def test_a_setting_that_does_not_fit_is_one_clear_line(project: Project, gate: Gate) -> None:
    result = gate("--perfgate-launches", "0")
    assert result.ret == 2
    assert "flags: Expected `int` >= 1" in result.stdout.str() + result.stderr.str()


def test_an_output_folder_that_cannot_be_written_is_one_clear_line(project: Project, gate: Gate) -> None:
    project.write("taken", "a file")
    result = gate("--perfgate-out", "taken/out")
    assert result.ret == 2
    result.stdout.fnmatch_lines(["*taken/out: cannot be written: Not a directory*"])


def test_a_store_that_cannot_be_written_is_one_clear_line(project: Project, gate: Gate) -> None:
    project.write(".perfgate", "a file")
    result = gate()
    assert result.ret == 2
    result.stdout.fnmatch_lines(["perfgate: *.perfgate/*: cannot be written: Not a directory*"])


def test_a_model_script_that_raises_fails_its_own_cases_only(
    project: Project, pytester: pytest.Pytester
) -> None:
    project.add_model("second")
    project.change("models/second.toml", "tinyconv.py", "broken.py")
    project.write("models/broken.py", "def write_onnx(path, seed):\n    raise ValueError('no weights')\n")
    # What the script printed is shown, and it ends in its own traceback.
    result = pytester.runpytest_subprocess("--perfgate", timeout=120)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["ERROR: second/fp32/b1", "*broken.py ended with exit code 1: ValueError: no weights; call *"]
    )
    assert project.verdicts()["second/fp32/b1"] == "ERROR"
    assert project.verdicts()["tinyconv/fp32/b1"] == "UNCHANGED"


def test_a_launch_that_is_killed_fails_its_own_case_only(
    project: Project, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_model("second")
    project.add_model("third")
    monkeypatch.setenv("SPY_KILL", "second/fp32/b1")
    result = gate("--perfgate-launches", "1")
    assert result.ret == 1
    result.assert_outcomes(failed=1, passed=2, skipped=3)
    result.stdout.fnmatch_lines(["ERROR: second/fp32/b1", "*was killed by SIGKILL", "*about to die"])
    assert project.verdicts()["third/fp32/b1"] == "NEW"


def test_two_workers_measure_each_case_once_and_agree(project: Project, gate: Gate) -> None:
    project.add_model("second")
    result = gate("-n", "2", "--perfgate-launches", "1")
    assert result.ret == 0
    result.assert_outcomes(passed=2, skipped=2)
    assert project.started("perfgate.measure.launch") == 1
    assert project.verdicts() == {
        "second/fp16/b1": "NOT RUN",
        "second/fp32/b1": "NEW",
        "tinyconv/fp16/b1": "NOT RUN",
        "tinyconv/fp32/b1": "UNCHANGED",
    }
    assert [path.name for path in project.root.rglob("results.json")] == ["results.json"]


def test_two_workers_tell_a_regression(project: Project, gate: Gate) -> None:
    project.slow_down()
    result = gate("-n", "2")
    assert result.ret == 1
    assert project.verdicts()["tinyconv/fp32/b1"] == "REGRESSION"


def test_two_workers_tell_the_environments_fault(project: Project, gate: Gate) -> None:
    project.from_other_cpu()
    result = gate("-n", "2", "--perfgate-launches", "1")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["perfgate: only the environment failed, no case did: exit status 3"])


def test_two_workers_with_nothing_to_compare_are_not_green(gate: Gate) -> None:
    assert gate("-n", "2", "-k", "fp16").ret == 1


def test_an_interrupt_leaves_no_child_and_keeps_what_was_measured(project: Project) -> None:
    project.write("tests/test_plain.py", "from pathlib import Path\ndef test_plain(): Path('ran').touch()\n")
    command = [sys.executable, "-m", "pytest", "--perfgate", "--perfgate-remeasure", "--perfgate-launches=40"]
    with (project.root / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=project.root, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while project.started("perfgate.measure.launch") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == pytest.ExitCode.INTERRUPTED
    launches = project.started("perfgate.measure.launch")
    said = (project.root / "log").read_text()
    assert "Traceback" not in said
    assert project.verdicts()["tinyconv/fp32/b1"] == "INVALID"
    assert project.results()["summary"]["exit_code"] == 3
    assert not (project.root / "ran").exists(), "other tests do not go on"
    assert launches < 40


def test_a_run_leaves_no_scratch_behind(project: Project, gate: Gate) -> None:
    assert gate().ret == 0
    assert list((project.root / ".perfgate").rglob("*.json")) == []


def test_without_the_flag_nothing_changes(project: Project, pytester: pytest.Pytester) -> None:
    project.slow_down()
    project.write(
        "test_plain.py",
        "import sys\n"
        "def test_plain():\n"
        "    assert sys.modules.keys().isdisjoint({'numpy', 'onnxruntime', 'msgspec', "
        "'perfgate.pytest_plugin.session'})\n",
    )
    result = pytester.runpytest_subprocess(timeout=60)
    assert result.ret == 0
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*perfgate =*")
    assert not (project.root / "perfgate-out").exists()
    assert not (project.root / ".perfgate").exists()
