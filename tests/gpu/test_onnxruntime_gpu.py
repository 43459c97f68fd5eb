"""ONNX Runtime's CUDA provider on a real GPU, through the command line: both modes, answers checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend
from perfgate.util.process import package_environment

pytestmark = pytest.mark.gpu

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("mode", ["call", "call+transfers"])
def test_a_run_on_cuda(mode: str, tmp_path: Path) -> None:
    if reason := OnnxRuntimeBackend("0").unavailable():
        pytest.skip(reason)
    (tmp_path / "models").mkdir()
    for name in ("tinyconv.py", "tinyconv.toml", "_graph.py"):
        shutil.copy(MODELS / name, tmp_path / "models" / name)
    settings = "[tool.perfgate]\nlaunches = 2\nduration_ms = 50\nwarmup_ms = 20\n"
    (tmp_path / "pyproject.toml").write_text(settings)
    command = ["perfgate", "run", "--backend", "onnxruntime", "--device", "0", "--mode", mode]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=package_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "perfgate-out/results.json").read_text())
    assert run["environment"]["key"]["gpu"].startswith("NVIDIA"), run["environment"]
    for case in run["cases"]:
        assert case["judgement"]["verdict"] == "NEW", case["judgement"]
        assert all(output["sqnr_db"] > 40 for output in case["accuracy"]["outputs"]), case["accuracy"]
        assert any("TF32 is on" in note for note in case["outcome"]["engine"]["notes"])
