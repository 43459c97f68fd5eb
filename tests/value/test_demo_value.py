"""The business half of `make demo`: stored stacks where they are there, the given example where not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import demo_value
from business_runs import DATA, EAGER, ENGINE, measured_run

from perfgate.util.files import record_json
from perfgate.util.process import package_environment


def test_without_stored_stacks_it_is_the_given_example(tmp_path: Path) -> None:
    for name in ("example.toml", "demo.toml"):
        shutil.copy(DATA / name, tmp_path)
    case = demo_value.stored_case(tmp_path)
    assert case.original.source == "given" and case.device == "Tesla T4"


def test_stored_stacks_are_the_case(tmp_path: Path) -> None:
    shutil.copy(DATA / "demo.toml", tmp_path)
    (tmp_path / "h200").mkdir()
    runs = (
        measured_run("torch", EAGER),
        measured_run("tensorrt", ENGINE, precision="fp16", number=2),
    )
    for name, run in zip(demo_value.STACKS, runs, strict=True):
        (tmp_path / "h200" / name).write_text(record_json(run))
    case = demo_value.stored_case(tmp_path)
    assert case.tensorrt.source == "measured" and case.device == "NVIDIA H200"
    assert case.terms.inputs.load.peak_per_s == 400_000 and case.saving_month is not None


def test_the_kept_stacks_are_those_of_one_h200_and_like_is_set_beside_like() -> None:
    case = demo_value.stored_case()
    assert case.device == "NVIDIA H200" and case.model == "resnet50"
    assert case.original.source == case.tensorrt.source == "measured"
    assert case.original.precision == case.tensorrt.precision == "fp16"
    assert all("transfers" in side.mode for side in (case.original, case.tensorrt))
    assert case.saving_month and case.saving_month > 0
    slower = [line.metric for line in case.lines if line.outcome == "worse"]
    assert slower == ["deploy_hours"], "what costs more is shown like what costs less"


def test_the_command_writes_every_form(tmp_path: Path) -> None:
    script = Path(demo_value.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=package_environment(),
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"value.html", "value.zh-CN.html", "value.md", "value.csv", "value.json"}
