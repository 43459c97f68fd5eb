"""The trained model: found in its package, read right, and its lines the same every time."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from perfgate.model.graph import check_against_graph, read_graph
from perfgate.model.onnx_file import missing_requirement
from perfgate.model.read import read_spec

MODELS = Path(__file__).resolve().parents[2] / "models"
FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [str(MODELS), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    for name in ("ocr", "ocr_lines", "ocr_score"):
        sys.modules.pop(name, None)


@pytest.fixture
def _package(scripts: None) -> None:
    spec = read_spec(MODELS / "ocr.toml")
    if reason := missing_requirement(spec):
        pytest.skip(reason)
    if not FONT.is_file():
        pytest.skip("fonts-noto-cjk is not installed")


def test_edit_distance_and_reading(scripts: None) -> None:
    import ocr_score  # type: ignore[import-not-found]

    assert ocr_score.distance(list(b"kitten"), list(b"sitting")) == 3
    assert ocr_score.distance([], [1, 2]) == 2
    scores = np.eye(4)[[0, 1, 1, 0, 1, 2, 2, 3, 0]]
    assert ocr_score.read(scores) == [1, 1, 2, 3]
    labels = np.array([[1, 1, 2, -1], [3, -1, -1, -1]])
    outputs = np.stack([scores, scores])
    assert ocr_score.score({"labels": labels}, {"fetch_name_0": outputs}) == pytest.approx(1 - (1 + 3) / 4)


def test_an_absent_or_other_version_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read_spec(MODELS / "ocr.toml")

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert "rapidocr==3.10.0, and it is not installed" in str(missing_requirement(spec))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.9.1")
    assert missing_requirement(read_spec(MODELS / "tinyconv.toml")) is None
    assert "and 3.9.1 is installed" in str(missing_requirement(spec))


def test_it_reads_rendered_lines(_package: None, tmp_path: Path) -> None:
    import ocr  # type: ignore[import-not-found]
    import ocr_lines  # type: ignore[import-not-found]
    import ocr_score

    path = tmp_path / "ocr.onnx"
    ocr.write_onnx(str(path), 0)
    check_against_graph(read_spec(MODELS / "ocr.toml"), read_graph(path))
    model = onnx.load(path)
    assert (model.ir_version, [one.version for one in model.opset_import]) == (8, [17])
    lines = list(ocr_lines.samples(8, 3))
    again = list(ocr_lines.samples(8, 3))
    assert all(np.array_equal(one["x"], two["x"]) for one, two in zip(lines, again, strict=True))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {name: np.stack([line[name] for line in lines]) for name in lines[0]}
    outputs = {"fetch_name_0": session.run(None, {"x": inputs["x"]})[0]}
    assert ocr_score.score(inputs, outputs) > 0.95
