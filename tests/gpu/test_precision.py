"""Precision on a real GPU: INT8 layers are realised, islands are kept, an overflow is caught and named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perfgate.engine.tensorrt.backend import TensorRTBackend
from perfgate.util.process import package_environment

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_tensorrt() -> None:
    reason = TensorRTBackend().unavailable()
    if reason:
        pytest.skip(reason)


def save(path: Path, spread: float) -> None:
    """Four convolutions; the first one's output is `spread` wide and the third one scales it back.

    They are wide enough that a weakly typed TensorRT finds FP16 kernels faster; no weight is beyond FP16.
    """
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, spread / 24, (64, 64, 3, 3)),
        "w2": random.normal(0, 0.04, (64, 64, 3, 3)),
        "w3": random.normal(0, 0.2 / spread, (64, 64, 1, 1)),
        "w4": random.normal(0, 0.04, (64, 64, 3, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "second", pads=[1] * 4),
        helper.make_node("Conv", ["c2", "w3"], ["c3"], "third"),
        helper.make_node("Conv", ["c3", "w4"], ["y"], "fourth", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 64, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 64, 64, 64])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def gated(root: Path, precisions: list[str], *, spread: float, more: str = "") -> dict[str, Any]:
    """The cases of one run by precision, their exit code beside them as `code`."""
    (root / "models").mkdir()
    save(root / "models/net.onnx", spread)
    (root / "models/net.toml").write_text(
        f'schema = "perfgate-trt/model/v1"\nname = "net"\nprecisions = {json.dumps(precisions)}\n'
        '[source]\nonnx = "net.onnx"\n[dims.b]\nmin = 1\nopt = 4\nmax = 4\nmeasure = [4]\n'
        f"[accuracy]\nsamples = 8\nsqnr_db = {{ fp16 = 45 }}\n{more}"
    )
    (root / "pyproject.toml").write_text("[tool.perfgate]\nlaunches = 1\nduration_ms = 50\nwarmup_ms = 10\n")
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", "run", "--backend", "tensorrt"],
        cwd=root,
        env=package_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (root / "perfgate-out/results.json").is_file(), done.stderr
    cases = json.loads((root / "perfgate-out/results.json").read_text())["cases"]
    return {case["case"]["precision"]: case for case in cases} | {
        "code": done.returncode,
        "told": "\n".join([*map(told, cases), done.stderr[-2000:]]),
    }


def told(case: dict[str, Any]) -> str:
    """What a failed test must show of a case: verdict and reason, each output, what was realised, notes."""
    engine = case["outcome"].get("engine") or {}
    accuracy = case.get("accuracy") or {}
    lines = [
        f"{case['case']['id']}: {case['judgement']['verdict']}: {case['judgement']['reason']}",
        f"  layers by precision: {engine.get('precision_share')}, unmet: {engine.get('unmet', 'nothing')}",
        *(f"  {output}" for output in accuracy.get("outputs", [])),
        *(f"  {note}" for note in [*accuracy.get("notes", []), *engine.get("notes", [])]),
    ]
    if case["outcome"]["type"] == "failed":
        lines.append(f"  {case['outcome']['reason']}\n{case['outcome'].get('stderr_tail', '')[-2000:]}")
    return "\n".join(lines)


def test_int8_layers_are_realised_and_answers_are_right(tmp_path: Path) -> None:
    found = gated(tmp_path, ["fp16", "int8", "int8+fp16"], spread=1.0)
    assert found["code"] == 0, found["told"]
    for precision in ("int8", "int8+fp16"):
        engine = found[precision]["outcome"]["engine"]
        assert engine["precision_share"].get("int8", 0) > 0, found["told"]
        assert not engine.get("unmet"), found["told"]
        assert found[precision]["accuracy"]["outputs"][0]["sqnr_db"] > 25, found["told"]
    assert found["fp16"]["outcome"]["engine"]["precision_share"].get("fp16", 0) > 0, found["told"]
    assert found["fp16"]["accuracy"]["outputs"][0]["sqnr_db"] > 45, found["told"]


def test_an_overflow_is_caught_and_its_layer_named(tmp_path: Path) -> None:
    found = gated(tmp_path, ["fp16"], spread=3e5, more="[precision]\nislands = false\n")
    judgement = found["fp16"]["judgement"]
    assert (found["code"], judgement["verdict"]) == (1, "ERROR"), found["told"]
    assert "NaN or infinite" in judgement["reason"]
    assert "first (Conv)" in judgement["reason"]


def test_islands_are_kept_in_fp32_and_answers_are_right(tmp_path: Path) -> None:
    found = gated(tmp_path, ["fp16"], spread=3e5)
    assert found["code"] == 0, found["told"]
    assert found["fp16"]["judgement"]["verdict"] == "NEW"
    assert any("kept in FP32" in note for note in found["fp16"]["accuracy"]["notes"])
    share = found["fp16"]["outcome"]["engine"]["precision_share"]
    assert share.get("fp32", 0) > 0
    assert share.get("fp16", 0) > 0
