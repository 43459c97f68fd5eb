"""INT8 and FP16 on a GPU, answers checked: ResNet-50, a trained recogniser, an overflow, bad calibration.

    python tests/benchmarks/precision_gpu.py --prepare .precision-kit     # where rapidocr and the fonts are
    python tests/benchmarks/precision_gpu.py --kit .precision-kit --out precision-gpu

The first command makes a folder to carry (about 50 MB): the recogniser in FP32, its calibrated Q/DQ graph and
lines of text to judge it on; it takes a minute or two and no GPU. The second takes about four minutes on an
H200 with TensorRT 8.5, and five more for the recogniser, built for batch 8 alone (8.5 takes long over an FP16
engine with a range of batches); without `--kit` it is left out. Each step is a `perfgate run` of its own with
a time limit, a step that fails does not stop the others, and the table comes last.

Targets: every INT8 engine has INT8 layers and answers within its thresholds; the overflow is an ERROR that
names its layer, and none where islands are kept; a broken calibration set is refused in one line.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perfgate.errors import PerfgateError
from perfgate.util.files import record_json, write_text
from perfgate.util.process import package_environment

KIT_SAMPLES = 48
_GRACE_S = 30
_SETTINGS = "[tool.perfgate]\nlaunches = {launches}\nduration_ms = 300\nforeign_cpu_limit = 1.0\n"
_KIT_SPEC = """schema = "perfgate-trt/model/v1"
name = "ocr"
precisions = ["fp32", "fp16", "int8+fp16"]
[source]
onnx = "ocr.onnx"
[precision.graphs]
int8 = "ocr.int8.onnx"
"int8+fp16" = "ocr.int8.onnx"
[dims.b]
min = 8
opt = 8
max = 8
measure = [8]
[calibration]
data = "lines.npz"
[accuracy]
data = "lines.npz"
samples = {samples}
metric = "ocr_score.py"
task_drop = 0.01
"""
_HOT_SPEC = """schema = "perfgate-trt/model/v1"
name = "{name}"
precisions = ["fp16"]
[source]
onnx = "hot.onnx"
[precision]
islands = {islands}
[accuracy.sqnr_db]
fp16 = 45
"""


def prepare(folder: Path) -> None:
    """The recogniser with its graphs and lines, made from `models/ocr.toml` by perfgate itself."""
    from perfgate.model.onnx_file import export_onnx
    from perfgate.model.precision.convert import convert_model, data_request
    from perfgate.model.precision.data import EVALUATION_SEED, DataSet
    from perfgate.model.precision.samples import samples_of
    from perfgate.model.read import read_spec
    from perfgate.model.sources import Sources

    spec = read_spec(common.ROOT / "models/ocr.toml")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        model = export_onnx(spec, Sources(store))
        # On 8.5 this one graph serves INT8 with and without FP16 beside it.
        emission = convert_model(spec, model, "int8+fp16", "weak", Sources(store), print)
        shutil.copy(model.path, folder / "ocr.onnx")
        shutil.copy(emission.path, folder / "ocr.int8.onnx")
        found = samples_of(spec, spec.accuracy.data, KIT_SAMPLES, EVALUATION_SEED, Sources(store))
        request = data_request(
            spec, model.graph, {"b": 1}, found.path, samples=KIT_SAMPLES, seed=EVALUATION_SEED
        )
        data = DataSet(request)
        rows = [{**data.batch(number), **data.extras(number)} for number in range(len(data))]
        arrays: dict[str, Any] = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        np.savez(folder / "lines.npz", **arrays)
    shutil.copy(common.ROOT / "models/ocr_score.py", folder / "ocr_score.py")
    write_text(folder / "ocr.toml", _KIT_SPEC.format(samples=KIT_SAMPLES))
    total = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {total / 1e6:.0f} MB; {', '.join(emission.notes) or 'no warnings'}")


def steps(root: Path, kit: Path | None) -> Iterator[tuple[str, Path, str]]:
    """Each step's name, the spec to run, and what must come of it."""
    for name in ("resnet50.py", "_graph.py"):
        shutil.copy(common.ROOT / "models" / name, root)
    text = (common.ROOT / "models/resnet50.toml").read_text()
    for pattern, value in (
        (r"^precisions = .*$", 'precisions = ["fp16", "int8+fp16"]'),
        (r"^measure = .*$", "measure = [8]"),
    ):
        text = re.sub(pattern, value, text, flags=re.MULTILINE)
    write_text(root / "resnet50.toml", text)
    save_hot(root / "hot.onnx")
    for name, islands in (("overflow", "false"), ("islands", "true")):
        write_text(root / f"{name}.toml", _HOT_SPEC.format(name=name, islands=islands))
    np.savez(root / "broken.npz", x=np.zeros((4, 3, 8, 8), np.float32))
    broken = text.replace('name = "resnet50"', 'name = "broken"').replace(
        "[calibration]\n", '[calibration]\ndata = "broken.npz"\n'
    )
    write_text(
        root / "broken.toml", re.sub(r"^precisions = .*$", 'precisions = ["int8"]', broken, flags=re.M)
    )
    yield "broken calibration", root / "broken.toml", "refused"
    yield "overflow", root / "overflow.toml", "wrong"
    yield "islands", root / "islands.toml", "right"
    yield "resnet50", root / "resnet50.toml", "right"
    if kit is not None:
        for file in kit.iterdir():
            shutil.copy(file, root)
        yield "ocr", root / "ocr.toml", "right"


def save_hot(path: Path) -> None:
    """A convolution whose output passes FP16's end, though no weight does; a later one scales it back."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(0, 1e4, (64, 64, 3, 3)).astype(np.float32),
        "v": random.normal(0, 1e-6, (64, 64, 1, 1)).astype(np.float32),
        "u": random.normal(0, 0.04, (64, 64, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "hot_conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "hot_relu"),
        helper.make_node("Conv", ["r", "v"], ["d"], "cold_conv"),
        helper.make_node("Conv", ["d", "u"], ["y"], "last_conv", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "hot",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 64, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 64, 64, 64])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def run_step(spec: Path, options: common.Options) -> dict[str, Any]:
    """One `perfgate run`: its exit code, seconds, and the rows of its results file."""
    out = spec.parent / f"out-{spec.stem}"
    started = time.monotonic()
    command = [sys.executable, "-m", "perfgate", "run", str(spec), "--out", out.name, "--remeasure"]
    command += ["--backend", options.backend, "--device", options.device, *(["--all"] if options.all else [])]
    with subprocess.Popen(
        command,
        cwd=spec.parent,
        env=package_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.communicate(timeout=options.step_seconds)[1]
        except subprocess.TimeoutExpired:
            said = _stopped(process, options.step_seconds)
    code = process.returncode
    file = out / "results.json"
    cases = json.loads(file.read_text())["cases"] if file.is_file() else []
    return {
        "code": code,
        "seconds": round(time.monotonic() - started, 1),
        "rows": [row_of(case) for case in cases],
        "stderr": said[-3000:],
    }


def _stopped(process: subprocess.Popen[str], seconds: int) -> str:
    """What a step said that ran out of time. Stopped like by Ctrl-C, it writes what it has: SIGTERM, because
    what a script starts in the background ignores SIGINT."""
    process.terminate()
    try:
        said = process.communicate(timeout=_GRACE_S)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[1]
    return f"{said}\nstopped after {seconds} s"


def row_of(case: dict[str, Any]) -> dict[str, Any]:
    outcome, accuracy = case["outcome"], case.get("accuracy") or {}
    launches = outcome.get("launches", [])
    engine = outcome.get("engine") or {}
    medians = [float(np.median(launch["samples_ns"])) for launch in launches]
    sqnr = [output["sqnr_db"] for output in accuracy.get("outputs", []) if "sqnr_db" in output]
    return {
        "case": case["case"]["id"],
        "verdict": case["judgement"]["verdict"],
        "reason": case["judgement"]["reason"],
        "median_us": round(float(np.median(medians)) / 1e3, 1) if medians else None,
        "engine_mib": round(engine.get("engine_bytes", 0) / (1 << 20), 1),
        "layers": engine.get("precision_share", {}),
        "unmet": engine.get("unmet", ""),
        "sqnr_db": round(min(sqnr), 1) if sqnr else None,
        "task": (accuracy.get("task") or {}).get("head"),
        "task_reference": (accuracy.get("task") or {}).get("reference"),
        "notes": [*accuracy.get("notes", []), *engine.get("notes", [])],
    }


def met(name: str, wanted: str, step: dict[str, Any]) -> bool:
    """Did a step come out as it must?"""
    rows = step["rows"]
    if wanted == "refused":
        return bool(rows) and all("the data set broken.npz" in row["reason"] for row in rows)
    if wanted == "wrong":
        return bool(rows) and all(row["verdict"] == "ERROR" and "hot_conv" in row["reason"] for row in rows)
    right = bool(rows) and all(row["verdict"] == "NEW" and not row["unmet"] for row in rows)
    # The share of layers is TensorRT's; ONNX Runtime knows that of weights alone, and makes them uint8.
    int8 = [row for row in rows if "/int8" in row["case"]]
    return right and all(row["layers"].get("int8", 0) + row["layers"].get("uint8", 0) > 0 for row in int8)


def run(options: common.Options) -> int:
    if options.prepare:
        prepare(options.prepare)
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="perfgate-precision-") as name:
        root = Path(name)
        write_text(root / "pyproject.toml", _SETTINGS.format(launches=options.launches))
        for step, spec, wanted in steps(root, options.kit):
            if options.only not in step:
                continue
            print(f"{step} …", flush=True)
            try:
                found[step] = run_step(spec, options)
            except (OSError, ValueError, KeyError, PerfgateError) as error:
                found[step] = {
                    "code": -1,
                    "seconds": 0,
                    "rows": [],
                    "stderr": f"{type(error).__name__}: {error}",
                }
            found[step]["met"] = met(step, wanted, found[step])
            write_text(options.out / "precision_gpu.json", record_json(found))
    show(found)
    return 0 if all(step["met"] for step in found.values()) else 1


def show(found: dict[str, Any]) -> None:
    print(f"\n{'case':<22} {'verdict':<8} {'median µs':>10} {'MiB':>6} {'SQNR dB':>8} {'task':>7}  layers")
    for step in found.values():
        for row in step["rows"]:
            layers = " ".join(f"{kind} {share:.0%}" for kind, share in row["layers"].items())
            task = f"{row['task']:.4f}" if row["task"] is not None else "—"
            print(
                f"{row['case']:<22} {row['verdict']:<8} {row['median_us'] or '—':>10} {row['engine_mib']:>6} "
                f"{row['sqnr_db'] or '—':>8} {task:>7}  {layers}"
            )
    for name, step in found.items():
        print(f"{'met   ' if step['met'] else 'MISSED'} {name}: exit {step['code']}, {step['seconds']} s")
        if not step["met"]:
            for row in step["rows"]:
                print(f"       {row['case']}: {row['reason'][:400]} {row['unmet']}")
            print("       " + "\n       ".join(step["stderr"].splitlines()[-6:]))
        elif name in ("broken calibration", "overflow"):
            print(f"       {step['rows'][0]['reason'][:300]}")


OPTIONS = [
    common.option("--prepare", type=Path, metavar="FOLDER"),
    common.option("--kit", type=Path),
    common.option("--out", type=Path, default=Path("precision-gpu")),
    common.option("--backend", default="auto"),
    common.option("--device", default="auto"),
    common.option("--launches", type=int, default=3),
    common.option("--all", action="store_true", help="also what the specs skip here"),
    common.option("--step-seconds", type=int, default=600, help="for each step (default: %(default)s)"),
    common.option("--only", default="", help="only the steps whose name contains this"),
]

if __name__ == "__main__":
    sys.exit(common.main(run, __doc__, OPTIONS))
