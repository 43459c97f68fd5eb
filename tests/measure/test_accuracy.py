"""Answers against a reference: the arithmetic, and whole runs on ONNX Runtime's CPU."""

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

from perfgate.errors import CaseError
from perfgate.measure.accuracy.check import CheckRequest
from perfgate.measure.accuracy.error_metrics import compare_output
from perfgate.measure.launch import EngineTarget
from perfgate.model.precision.data import DataRequest
from perfgate.records import Agreement, Case, Mode, Tolerance
from perfgate.run import check_accuracy as answers
from perfgate.util.process import package_environment

ONE = np.array([[3.0, -4.0], [0.0, 0.0]])


def test_the_numbers_are_those_of_their_formulas() -> None:
    head = ONE + np.array([[0.3, 0.4], [0.0, 0.0]])
    found = compare_output("y", [(ONE[:1], head[:1]), (ONE[1:], head[1:])])
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 0.25))
    assert found.max_abs_error == pytest.approx(0.4)
    assert found.max_rel_error == pytest.approx(0.1)
    assert found.cosine == pytest.approx((3 * 3.3 + 4 * 3.6) / np.sqrt(25 * (3.3**2 + 3.6**2)))
    assert (found.top1, found.nonfinite) == (None, 0)


def test_equal_answers_have_no_noise_and_zeros_no_direction() -> None:
    same = compare_output("y", [(ONE, ONE)])
    assert (same.sqnr_db, same.max_abs_error) == (None, 0)
    zeros = compare_output("y", [(ONE, np.zeros_like(ONE))])
    assert zeros.cosine is None
    assert zeros.sqnr_db == pytest.approx(0)
    assert compare_output("y", [(np.zeros_like(ONE), ONE)]).sqnr_db == -400


def test_a_relative_error_next_to_zero_is_taken_against_a_floor() -> None:
    reference, head = np.array([1000.0, 0.0]), np.array([1000.0, 1.0])
    assert compare_output("y", [(reference, head)]).max_rel_error == pytest.approx(1.0)


def test_top_one_and_top_five_of_a_classifier() -> None:
    reference = np.tile(np.arange(12.0), (3, 1))
    head = reference.copy()
    head[1, 10] = 11.5  # the best is second now
    head[2, 0:6] = 20.0  # the best is seventh
    found = compare_output("y", [(reference, head)])
    assert found.top1 == Agreement(right=1, total=3)
    assert found.top5 == Agreement(right=2, total=3)


def test_what_is_not_finite_is_counted_unless_the_reference_has_it() -> None:
    reference = np.array([1.0, np.inf, np.nan, 2.0])
    assert compare_output("y", [(reference, reference)]).nonfinite == 0
    head = np.array([np.nan, np.inf, np.nan, -np.inf], np.float32)
    assert compare_output("y", [(reference, head)]).nonfinite == 2
    with pytest.raises(ValueError, match=r"\[3\] and the reference's \[4\]"):
        compare_output("y", [(reference, head[:3])])


def project(
    root: Path, more: str = "", *, precisions: str = '["fp32", "fp16"]', scale: float = 1000.0
) -> Path:
    """A project with a model that passes `scale` squared on its way."""
    weights = {"k": np.float32(scale), "s": np.float32(1 / scale)}
    names = ["x", "up", "top", "down", "y"]
    nodes = [
        helper.make_node("Mul", [names[place], "k" if place < 2 else "s"], [names[place + 1]], f"n{place}")
        for place in range(4)
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    models = root / "models"
    models.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(models / "net.onnx"),
    )
    (models / "net.toml").write_text(
        f'schema = "perfgate-trt/model/v1"\nname = "net"\nprecisions = {precisions}\n'
        f'[source]\nonnx = "net.onnx"\n[dims.b]\nmin = 1\nopt = 1\nmax = 4\nmeasure = [2]\n{more}'
    )
    (root / "pyproject.toml").write_text(
        '[tool.perfgate]\nbackend = "onnxruntime"\ndevice = "cpu"\nlaunches = 1\nduration_ms = 20\n'
        "warmup_ms = 1\nforeign_cpu_limit = 1.0\nignore = 5.0\ncatch = 9.0\n"
    )
    return root


def perfgate(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "perfgate", *args],
        cwd=root,
        env={**package_environment(), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def results(root: Path) -> dict[str, Any]:
    cases = json.loads((root / "perfgate-out/results.json").read_text())["cases"]
    return {case["case"]["id"]: case for case in cases}


def test_an_fp16_overflow_fails_the_case_is_named_and_blocks_promotion(tmp_path: Path) -> None:
    root = project(tmp_path, "[precision]\nislands = false\n")
    done = perfgate(root, "run")
    assert done.returncode == 1, done.stdout + done.stderr
    found = results(root)
    assert found["net/fp32/b2"]["judgement"]["verdict"] == "NEW"
    judgement = found["net/fp16/b2"]["judgement"]
    assert (judgement["verdict"], judgement["code"]) == ("ERROR", "accuracy")
    assert "output 'y' holds" in judgement["reason"]
    assert "first at n1 (Mul)" in judgement["reason"]
    refused = perfgate(
        root, "promote", "perfgate-out/results.json", "--reason", "x", "--accept", "net/fp16/b2"
    )
    assert refused.returncode == 2
    assert "net/fp16/b2 is ERROR" in refused.stderr


def _forget_what_the_reference_took(root: Path) -> None:
    """As a cache that an earlier perfgate filled has it."""
    for facts in (root / ".perfgate/accuracy").rglob("answers.json"):
        known = json.loads(facts.read_text())
        assert known.pop("took_ns") > 0
        facts.write_text(json.dumps(known))


def test_a_right_model_is_promoted_unchanged_and_then_drifts(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert perfgate(root, "run").returncode == 0
    notes = results(root)["net/fp16/b2"]["accuracy"]["notes"]
    assert any("kept in FP32" in note and "n1 (up to" in note for note in notes)
    first = results(root)
    stages = first["net/fp16/b2"]["stages"]
    assert min(stages[f"{name}_ns"] for name in ("conversion", "reference", "verification")) > 0
    # Both precisions of a model are held against one reference; a file has no export, FP16 no calibration.
    assert "conversion_ns" not in first["net/fp32/b2"]["stages"]
    assert not {"export_ns", "calibration_ns", "unknown"} & stages.keys()
    assert stages["reference_ns"] == first["net/fp32/b2"]["stages"]["reference_ns"]
    assert json.loads((root / "perfgate-out/results.json").read_text())["probe_ns"] > 0
    promoted = perfgate(root, "promote", "perfgate-out/results.json", "--reason", "first", "--allow-dirty")
    assert promoted.returncode == 0, promoted.stderr
    again = perfgate(root, "run")
    assert again.returncode == 0
    assert {case["judgement"]["verdict"] for case in results(root).values()} == {"UNCHANGED"}
    assert "converting" not in again.stderr
    # The stored accuracy becomes better than what can be had: the same run is now a drift.
    path = next((root / "baselines").rglob("net.json"))
    stored = json.loads(path.read_text())
    output = stored["cases"]["net/fp16/b2"]["accuracy"]["outputs"][0]
    output["sqnr_db"] += 10
    path.write_text(json.dumps(stored))
    assert "stages" not in results(root)["net/fp16/b2"]
    _forget_what_the_reference_took(root)
    assert perfgate(root, "run", "--remeasure").returncode == 1
    late = results(root)["net/fp16/b2"]["stages"]
    assert (late["conversion_ns"], late["cached"]) == (stages["conversion_ns"], ["conversion", "reference"])
    assert late["unknown"] == ["reference"] and "reference_ns" not in late
    judgement = results(root)["net/fp16/b2"]["judgement"]
    assert (judgement["verdict"], judgement["code"]) == ("REGRESSION", "accuracy-drift")


def test_a_metric_and_a_data_script_judge_the_task(tmp_path: Path) -> None:
    root = project(
        tmp_path, '[accuracy]\ndata = "data.py"\nmetric = "metric.py"\nsamples = 8\n', precisions='["fp16"]'
    )
    (root / "models/data.py").write_text(
        "import numpy as np\n"
        "def samples(count, seed):\n"
        "    for number in range(count):\n"
        "        yield {'x': np.full(16, number, np.float32), 'label': np.int32(number)}\n"
    )
    (root / "models/metric.py").write_text(
        "def score(inputs, outputs):\n"
        "    assert inputs['x'].shape == outputs['y'].shape == (8, 16)\n"
        "    return (abs(outputs['y'][:, 0] - inputs['label']) < 0.5).mean()\n"
    )
    done = perfgate(root, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    task = results(root)["net/fp16/b2"]["accuracy"]["task"]
    assert task == {"name": "metric", "reference": 1.0, "head": 1.0, "samples": 8}
    (root / "models/metric.py").write_text("def score(inputs, outputs):\n    return float('nan')\n")
    assert perfgate(root, "run").returncode == 1
    assert "the metric metric.py returned nan" in results(root)["net/fp16/b2"]["judgement"]["reason"]


def test_weights_in_a_package_that_is_absent_are_a_reason_not_to_run(tmp_path: Path) -> None:
    root = project(tmp_path)
    path = root / "models/net.toml"
    path.write_text(path.read_text().replace("[source]\n", '[source]\nrequires = "no-such-weights==1.0"\n'))
    perfgate(root, "run")
    outcome = results(root)["net/fp32/b2"]["outcome"]
    assert outcome["type"] == "not-run"
    assert "no-such-weights==1.0, and it is not installed" in outcome["reason"]


def test_all_precisions_side_by_side(tmp_path: Path) -> None:
    root = project(tmp_path)
    done = perfgate(root, "precision", "net", "--launches", "1", "--format", "json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    rows = {row["precision"]: row for row in table["rows"]}
    assert list(rows) == ["fp32", "fp16", "int8", "int8+fp16"]
    assert all(row["latency_ns"] > 0 and row["accuracy"] for row in rows.values())
    assert {layer["node"] for layer in rows["fp16"]["layers"]} <= {"n0", "n1", "n2", "n3"}
    shown = perfgate(root, "precision", "net", "--launches", "1", "--format", "markdown")
    assert (
        shown.stdout.startswith("### net b2 with onnxruntime on ")
        and "| precision | latency |" in shown.stdout
    )
    assert "comparing layers" in shown.stderr
    wrong = perfgate(root, "precision", "nothing")
    assert (wrong.returncode, "one of: net" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("kind", "again"), [("GraphCaptureError", True), ("SIGABRT", True), ("CaseError", False)]
)
def test_a_network_that_cannot_be_captured_answers_enqueued(
    monkeypatch: pytest.MonkeyPatch, kind: str, again: bool
) -> None:
    asked: list[Mode] = []

    def check(request: CheckRequest, store: Path) -> str:
        asked.append(request.target.case.mode)
        if request.target.case.mode.drive == "graph":
            raise CaseError("it synchronises", kind=kind)
        return "the answers"

    monkeypatch.setattr(answers, "check", check)
    limits = Tolerance(ignore=0.1, catch=0.3)
    mode = Mode(drive="graph", transfers=True)
    case = Case(id="n/fp32", model="n", backend="tensorrt", precision="fp32", tolerance=limits, mode=mode)
    request = CheckRequest(
        target=EngineTarget(engine="engine", case=case, folder=""),
        onnx="",
        onnx_digest="",
        emitted="",
        data=DataRequest(tensors=(), folder="", samples=1, seed=0),
        runtime="",
    )
    if again:
        assert str(answers._checked(request, Path())) == "the answers"
        assert asked == [mode, Mode(drive="enqueue", transfers=True)]
    else:
        with pytest.raises(CaseError, match="synchronises"):
            answers._checked(request, Path())
        assert asked == [mode]
